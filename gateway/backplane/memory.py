"""The backplane of a node that is alone (`memory://`): what it publishes comes back to it, and histories lie here."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from hashlib import blake2b
from itertools import islice
from zlib import crc32

from gateway.backplane.contract import Arrival, Page
from gateway.backplane.counters import BackplaneCounters
from gateway.backplane.history_sizes import LINGER, HistorySizes
from gateway.config import Rule
from gateway.protocol.envelope import Envelope, Target, pack
from gateway.protocol.message import Position
from gateway.redis.trouble import Troubles

CLASSES = 4096
"""Of channels whose histories were forgotten: what is remembered of them is bounded, whoever names channels."""


class MemoryBackplane:
    """Hands this node's publications back to it, by the same rules as Redis would.

    Nothing waits and nothing is lost here, so nothing raises `Unavailable`, and there are no gaps.
    """

    def __init__(self, *, history_total_bytes: int = 0) -> None:
        self._targets: set[Target] = set()
        self._arrived: list[Arrival] = []
        self._wake = asyncio.Event()
        self.counters = BackplaneCounters()
        self._streams = MemoryStreams(HistorySizes(history_total_bytes, self.counters))
        self.troubles = Troubles()
        self.trouble: list[str] = []
        self.deaf = False

    async def run(self) -> None:
        pass

    async def ready(self) -> None:
        pass

    async def publish(self, target: Target, data: bytes) -> int:
        return self.put(target, data)

    def put(self, target: Target, data: bytes) -> int:
        """Publish without waiting; return 1 if this node subscribes the target, else 0."""
        if target not in self._targets:
            return 0
        self._arrived.append(Arrival(target, data))
        self._wake.set()
        return 1

    async def append(self, channel: str, envelope: Envelope, rule: Rule, *, known: str = "") -> Position:
        kept = self._streams.append(channel, envelope, rule)
        self.put(Target("channel", channel), pack(kept))
        assert kept.position is not None
        return kept.position

    async def read(
        self, channel: str, *, after: Position | None = None, limit: int, seen: int = 0, size: int = 0
    ) -> Page:
        return self._streams.read(channel, after, limit, seen, size)

    async def renew(self, channel: str, epoch: str, behind: int) -> None:
        self._streams.renew(channel, epoch, behind)

    async def subscribe(self, targets: Iterable[Target]) -> None:
        self._targets.update(targets)

    def unsubscribe(self, targets: Iterable[Target]) -> None:
        self._targets.difference_update(targets)

    async def batches(self) -> AsyncIterator[list[Arrival]]:
        while await self._wake.wait():
            self._wake.clear()
            batch, self._arrived = self._arrived, []
            yield batch


# ---- histories


class _Stream:
    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.offset = self.start = self.size = 0
        self.messages: deque[Envelope] = deque()
        self.expiry: asyncio.TimerHandle | None = None


class MemoryStreams:
    """Keeps what Redis streams would, for as long, and as much of it; lost when the process ends."""

    def __init__(self, sizes: HistorySizes | None = None) -> None:
        self._sizes = HistorySizes(0, BackplaneCounters()) if sizes is None else sizes
        self._streams: dict[str, _Stream] = {}
        self._secret = secrets.token_bytes(16)
        self._forgotten = [0] * CLASSES
        """How many histories of each class are gone: the next epoch of a channel is derived from that."""

    def append(self, channel: str, envelope: Envelope, rule: Rule) -> Envelope:
        """Number a message and keep it; return it with its position."""
        stream = self._streams.get(channel)
        if stream is None:
            stream = self._streams[channel] = _Stream(self._promise(channel))
        stream.offset += 1
        now = time.monotonic()
        kept = envelope._replace(position=Position(stream.epoch, stream.offset, time.time_ns() // 1_000_000))
        self._sizes.trimmed(channel, _keep(stream, kept, rule), now)
        self._expire_later(channel, stream, rule.ttl)
        assert kept.position is not None
        for other, _ in self._sizes.note(channel, kept.position, stream.size, rule.ttl, now):
            if self._forget(other):
                self._sizes.dropped(other, now)
        return kept

    def read(self, channel: str, after: Position | None, limit: int, seen: int, size: int = 0) -> Page:
        """Do what `Backplane.read` promises."""
        stream = self._streams.get(channel)
        if stream is None:
            epoch = self._promise(channel)
            return Page(epoch, 0, 0, None, [], more=False, same=after is not None and after[:2] == (epoch, 0))
        found = stream.messages
        time_seen = next((m.position.time for m in found if m.position and m.position.offset == seen), None)
        same = after is not None and after.epoch == stream.epoch
        if after is None:
            newest = _fitting(islice(reversed(found), limit), size)[0]
            return Page(stream.epoch, stream.offset, stream.start, time_seen, newest[::-1], more=False)
        offset = after.offset if same else stream.start
        later = (message for message in found if message.position and message.position.offset > offset)
        messages, is_cut = _fitting(islice(later, limit), size)
        more = is_cut or len(messages) == limit
        return Page(stream.epoch, stream.offset, stream.start, time_seen, messages, more, same)

    def renew(self, channel: str, epoch: str, behind: int) -> None:
        """Do what `Backplane.renew` promises."""
        stream = self._streams.get(channel)
        if stream is not None and stream.epoch == epoch:
            stream.epoch, stream.start = secrets.token_hex(6), behind

    def _promise(self, channel: str) -> str:
        """Return the epoch that a channel without a history has, and that its first message will have.

        It changes whenever a history of the channel's class is forgotten, since that may have been its own, and an
        epoch must not begin twice. That is seldom: it takes a day without messages, or more histories than are kept.
        """
        words = f"{self._forgotten[_class_of(channel)]} {channel}".encode()
        return blake2b(words, digest_size=6, key=self._secret).hexdigest()

    def _expire_later(self, channel: str, stream: _Stream, ttl: int) -> None:
        if stream.expiry is not None:
            stream.expiry.cancel()
        stream.expiry = asyncio.get_running_loop().call_later(ttl, self._expire, channel, stream) if ttl else None

    def _expire(self, channel: str, stream: _Stream) -> None:
        stream.messages.clear()
        stream.size = 0
        stream.expiry = asyncio.get_running_loop().call_later(LINGER, self._forget, channel)

    def _forget(self, channel: str) -> bool:
        """Drop a history and its position; tell whether there were messages left."""
        stream = self._streams.pop(channel, None)
        if stream is None:
            return False
        self._forgotten[_class_of(channel)] += 1
        if stream.expiry is not None:
            stream.expiry.cancel()
        return bool(stream.messages)


def _class_of(channel: str) -> int:
    return crc32(channel.encode()) % CLASSES


def _keep(stream: _Stream, message: Envelope, rule: Rule) -> int:
    """Put a message in, and let the oldest go; return how many went because of `history_bytes`."""
    stream.messages.append(message)
    stream.size += _size(message)
    trimmed = 0
    while len(stream.messages) > rule.history or 0 < rule.history_bytes < stream.size:
        trimmed += len(stream.messages) <= rule.history
        stream.size -= _size(stream.messages.popleft())
    return trimmed


def _fitting(messages: Iterable[Envelope], size: int) -> tuple[list[Envelope], bool]:
    """Take as many as have at most `size` bytes together, the first one in any case; tell whether some are left."""
    found: list[Envelope] = []
    room = size or math.inf
    for message in messages:
        room -= _size(message)
        if room < 0 and found:
            return found, True
        found.append(message)
    return found, False


def _size(message: Envelope) -> int:
    return len(message.payload)
