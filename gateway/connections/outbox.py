"""The queue of frames for one slow client: plain data, bounded in bytes by its socket.

Most of it must arrive, and a client that lets too much of that wait is closed. Messages of channels whose
rule says so may be dropped instead: the oldest first, or those that a newer one of the same key has replaced.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class Sparable(NamedTuple):
    """One framed message that may be dropped."""

    frame: bytes
    channel: str
    key: str | None
    """What it is the latest state of; it is dropped only for a newer one. None: it may be dropped at any time."""
    gap: bytes
    """What the client is told in its place, framed."""


class _Waiting(NamedTuple):
    frame: bytes
    sparable: Sparable | None = None
    told: str = ""
    """The channel whose gap this tells."""


class Outbox:
    """Frames in the order in which they were written."""

    def __init__(self) -> None:
        self.size = 0
        """In bytes."""
        self.dropped = 0
        """Messages."""
        self._number = 0
        self._waiting: dict[int, _Waiting] = {}
        self._spare: deque[int] = deque()
        """What is dropped first, in this order; some of it may be gone already."""
        self._latest: dict[tuple[str, str], int] = {}
        self._told: set[str] = set()
        """Channels whose gap waits to be told."""

    def put(self, frame: bytes) -> None:
        """Let a frame wait that must arrive."""
        self._add(_Waiting(frame))

    def put_first(self, frame: bytes) -> None:
        """Let a frame that must arrive wait ahead of all others."""
        self._waiting = {-1: _Waiting(frame), **self._waiting}  # once, at the release: the others count from 1
        self.size += len(frame)

    def put_sparable(self, message: Sparable) -> None:
        """Let a message wait that may be dropped."""
        number = self._add(_Waiting(message.frame, message))
        if message.key is None:
            self._spare.append(number)
            return
        # The latest of a key is not spare: the client must get it. A newer one makes it so.
        last = self._latest.get((message.channel, message.key))
        if last is not None:
            self._spare.append(last)
        self._latest[message.channel, message.key] = number

    def shrink(self, size: int) -> int:
        """Drop what may be dropped until no more than `size` bytes wait; return how many messages that were.

        Each channel's first one is replaced by word of the gap.
        """
        before = self.dropped
        while self.size > size and self._spare:
            self._drop(self._spare.popleft())
        return self.dropped - before

    def take(self, size: int) -> bytes:
        """Take out the first frames: as many as make `size` bytes, and one at least if any waits."""
        taken: list[int] = []
        length = 0
        for number, waiting in self._waiting.items():
            if taken and length + len(waiting.frame) > size:
                break
            taken.append(number)
            length += len(waiting.frame)
        frames = [self._forget(number) for number in taken]
        # What was written was not dropped, and would make this grow for as long as the client is behind.
        while self._spare and self._spare[0] not in self._waiting:
            self._spare.popleft()
        return b"".join(frames)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def _add(self, waiting: _Waiting) -> int:
        self._number += 1
        self._waiting[self._number] = waiting
        self.size += len(waiting.frame)
        return self._number

    def _drop(self, number: int) -> None:
        waiting = self._waiting.get(number)
        if waiting is None or waiting.sparable is None:  # it was written meanwhile, or word of the gap stands there
            return
        _, channel, _, gap = waiting.sparable
        self.dropped += 1
        if gap and channel not in self._told:
            self._told.add(channel)
            self._waiting[number] = _Waiting(gap, told=channel)
            self.size += len(gap) - len(waiting.frame)
        else:
            self._forget(number)

    def _forget(self, number: int) -> bytes:
        frame, message, told = self._waiting.pop(number)
        self.size -= len(frame)
        self._told.discard(told)
        if message and message.key is not None and self._latest.get((message.channel, message.key)) == number:
            del self._latest[message.channel, message.key]
        return frame
