"""How far a channel with history was read: drops duplicates after a resume, and tells where messages are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.protocol.message import Message, Position


class Settled(NamedTuple):
    """What an answered join brings: the gap, where there is one, and what was held back, to be told after it."""

    gap: dict[str, Any] | None
    messages: list[Message]


class Progress:
    """Lets each message of a channel with history through once, in the order of the history."""

    def __init__(self) -> None:
        self.position: Position | None = None
        """Of the last message that was let through; None where the channel keeps no history."""
        self.duplicates = 0
        self._is_known = False
        """Whether we were ever in, so that coming back without a position is a gap."""
        self._held: list[Message] | None = None
        """What came while a join is under way: older, newer, or a copy of what the node sends again."""

    def begin(self) -> list[Message]:
        """Begin a join; return what an earlier one that came to nothing had held back."""
        messages = self.abandon()
        self._held = []
        return messages

    def accept(self, message: Message) -> list[Message]:
        """Take a message in; return what is to be told now."""
        if message.offset is None:
            return [message]
        if self._held is not None:
            self._held.append(message)
            return []
        return self._advance([message])

    def settle(self, answer: Mapping[str, Any]) -> Settled:
        """Take the answer to a join in."""
        epoch, offset = answer.get("epoch"), answer.get("offset") or 0
        since = self.position
        gap = None
        if self._is_known and not (answer.get("recovered") and since):
            gap = gap_of(since, epoch)
        self._is_known = True
        if epoch is None or since is None or since.epoch != epoch:
            self.position = None
        messages = self._release()
        reached = max([offset, *(message.offset or 0 for message in messages[-1:])])
        if self.position is not None:
            reached = max(reached, self.position.offset)
        self.position = None if epoch is None else Position(epoch, reached)
        return Settled(gap, messages)

    def abandon(self) -> list[Message]:
        """Give a join up. With a position the next one brings again what was held back; else return it."""
        messages = [] if self.position else self._release()
        self._held = None
        return messages

    def leave(self) -> list[Message]:
        """Forget everything: coming back later is a first join."""
        messages = self.abandon()
        self.position, self._is_known = None, False
        return messages

    def interrupt(self, param: Mapping[str, Any]) -> dict[str, Any]:
        """Take in that the node says messages were lost; return the gap."""
        epoch, since = param.get("epoch"), param.get("since")
        before = Position(since["epoch"], since["offset"]) if since else self.position
        if epoch is not None:
            self.position = Position(epoch, 0)
        return gap_of(before, epoch)

    def _release(self) -> list[Message]:
        held, self._held = self._held or [], None
        return self._advance(sorted(held, key=lambda message: message.offset or 0))

    def _advance(self, messages: Sequence[Message]) -> list[Message]:
        """Let through what lies behind the position, and move it there."""
        last = self.position.offset if self.position else -1
        fresh: list[Message] = []
        for message in messages:
            if (message.offset or 0) > last:
                last = message.offset or 0
                fresh.append(message)
        self.duplicates += len(messages) - len(fresh)
        if self.position is not None:
            self.position = Position(self.position.epoch, last)
        return fresh


def gap_of(since: Position | None, epoch: str | None) -> dict[str, Any]:
    """Return the `param` of a `$gap`: the last message told before it, and the epoch in which it goes on."""
    return {"since": since and {"epoch": since.epoch, "offset": since.offset}, "epoch": epoch}
