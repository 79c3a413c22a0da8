"""Histories of a node that is alone, kept in this process."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from itertools import islice

from gateway.backplane.target import Page
from gateway.codec import Envelope
from gateway.config import Rule
from gateway.message import Position


class _Stream:
    def __init__(self) -> None:
        self.epoch = secrets.token_hex(6)
        self.offset = self.start = 0
        self.messages: deque[Envelope] = deque()
        self.expiry: asyncio.TimerHandle | None = None


class MemoryStreams:
    """Keeps what Redis streams would; offsets and epochs last as long as the process."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}

    def append(self, channel: str, envelope: Envelope, rule: Rule) -> Envelope:
        """Number a message and keep it; return it with its position."""
        stream = self._streams.setdefault(channel, _Stream())
        stream.offset += 1
        kept = envelope._replace(position=Position(stream.epoch, stream.offset, time.time_ns() // 1_000_000))
        stream.messages.append(kept)
        while len(stream.messages) > rule.history:
            stream.messages.popleft()
        self._expire_later(stream, rule.ttl)
        return kept

    def read(self, channel: str, after: Position | None, limit: int, seen: int) -> Page:
        """Do what `Backplane.read` promises."""
        stream = self._streams.setdefault(channel, _Stream())
        found = stream.messages
        time_seen = next((m.position.time for m in found if m.position and m.position.offset == seen), None)
        messages = _newest(found, limit) if after is None else _first(found, _behind(stream, after), limit)
        more = after is not None and len(messages) == limit
        return Page(stream.epoch, stream.offset, stream.start, time_seen, messages, more)

    def renew(self, channel: str, epoch: str, behind: int) -> None:
        """Do what `Backplane.renew` promises."""
        stream = self._streams.setdefault(channel, _Stream())
        if stream.epoch == epoch:
            stream.epoch, stream.start = secrets.token_hex(6), behind

    def _expire_later(self, stream: _Stream, ttl: int) -> None:
        if stream.expiry is not None:
            stream.expiry.cancel()
        stream.expiry = asyncio.get_running_loop().call_later(ttl, stream.messages.clear) if ttl else None


def _behind(stream: _Stream, after: Position) -> int:
    return after.offset if after.epoch == stream.epoch else stream.start


def _newest(messages: deque[Envelope], limit: int) -> list[Envelope]:
    return list(islice(messages, max(0, len(messages) - limit), None))


def _first(messages: deque[Envelope], offset: int, limit: int) -> list[Envelope]:
    later = (message for message in messages if message.position and message.position.offset > offset)
    return list(islice(later, limit))
