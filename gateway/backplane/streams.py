"""Histories of channels in Redis streams, appended to and read by Lua scripts.

An entry's id is OFFSET-TIME (ms), so that `XRANGE gateway:stream:lobby 18 +` is what came after offset 17; its fields
are `message`, as clients read it, and `exclude` where the message skips connections. Epoch and newest offset are in a
key of their own, which the first message makes. Until then a channel has an epoch that is derived from a seed, a key
of which there is one in a Redis, or in each slot of a cluster.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any, Protocol

import orjson

from gateway.backplane.contract import Page
from gateway.backplane.history_sizes import HistorySizes
from gateway.backplane.scripts import APPEND, DROP, READ, RENEW
from gateway.config import Rule
from gateway.errors import InvalidEnvelope, Unavailable
from gateway.protocol.envelope import Envelope, Target, pack, stored
from gateway.protocol.message import Position
from gateway.redis.keys import Keys
from gateway.redis.link import Command
from gateway.redis.records import Entry, Rejections, entries_in, place_of

SLACK = 60
"""Seconds, beyond the publish timeout, for which Redis knows the last number of a sender: past the timeout nothing is
sent again, and the rest is for what is still on its way."""


class Call(Protocol):
    """Sends a command in its turn and returns the answer: `Publishing.call`, of the right shard in a cluster."""

    async def __call__(self, command: Command, *, size: int, repeatable: bool = False) -> Any: ...


class Streams:
    """Appends to and reads from the streams of one Redis, or of a cluster.

    Each append carries a number, and Redis takes those of one process to one channel only in rising order: so one that
    a broken link made us send again is carried out once. That needs `call` to keep the order of each channel.
    """

    def __init__(self, call: Call, keys: Keys, sizes: HistorySizes, *, timeout: float, rejections: Rejections) -> None:
        self._call = call
        self._sizes = sizes
        self._keys = keys
        self._rejections = rejections
        self._remembered = int(timeout) + SLACK
        self._sender = secrets.token_hex(6)
        self._numbers = count(1)

    async def append(self, channel: str, envelope: Envelope, rule: Rule, *, known: str = "") -> Position:
        """Do what `Backplane.append` promises."""
        keys = (
            self._keys.position(channel),
            self._keys.stream(channel),
            self._keys.sent(channel, self._sender),
            self._keys.seed(channel),
        )
        exclude = ("exclude", orjson.dumps(list(envelope.exclude))) if envelope.exclude else ()
        command = APPEND(
            keys,
            _new_epoch(),
            next(self._numbers),
            self._remembered,
            time.time_ns() // 1_000_000,
            rule.history,
            rule.history_bytes,
            rule.ttl,
            known or self._sizes.epoch(channel),
            self._keys.verbs.publish,
            self._keys.topic(Target("channel", channel)),
            pack(envelope),
            "message",
            envelope.payload,
            *exclude,
        )
        epoch, offset, size, trimmed = await self._call(command, size=len(envelope.payload), repeatable=True)
        position, now = Position(epoch.decode(), offset), time.monotonic()
        self._sizes.trimmed(channel, trimmed, now)
        for other, end in self._sizes.note(channel, position, size, rule.ttl, now):
            await self._drop(other, end)
        return position

    async def read(self, channel: str, *, after: Position | None, limit: int, seen: int, size: int) -> Page:
        """Do what `Backplane.read` promises."""
        keys = self._keys.position(channel), self._keys.stream(channel), self._keys.seed(channel)
        behind = () if after is None else (after.epoch, after.offset)
        command = READ(keys, _new_epoch(), limit, size, seen, *behind)
        epoch, offset, start, id_seen, entries, more, same = await self._call(command, size=0, repeatable=True)
        found = list(entries_in(entries if after else entries[::-1]))
        messages = list(self._messages(channel, epoch.decode(), found))
        seen_at = place_of(id_seen) if id_seen else None
        return Page(epoch.decode(), offset, start, seen_at and seen_at[1], messages, bool(more), bool(same))

    async def renew(self, channel: str, epoch: str, behind: int) -> None:
        """Do what `Backplane.renew` promises."""
        keys = self._keys.position(channel), self._keys.stream(channel)
        await self._call(RENEW(keys, _new_epoch(), epoch, behind), size=0, repeatable=True)

    async def _drop(self, channel: str, end: Position) -> None:
        """Drop a history, unless another node has written to it since we did: then it is that node's to keep.

        Never fails: the history counts as gone here, and expires by itself if its rule has a `ttl`.
        """
        keys = self._keys.position(channel), self._keys.stream(channel)
        with suppress(Unavailable):
            if await self._call(DROP(keys, _new_epoch(), end.offset), size=0, repeatable=True):
                self._sizes.dropped(channel, time.monotonic())

    def _messages(self, channel: str, epoch: str, entries: Iterable[Entry]) -> Iterator[Envelope]:
        """Yield the messages in entries, oldest first, and skip what was put among them by hand."""
        last = 0
        for id, fields in entries:
            place = place_of(id)
            try:
                if place is None:
                    raise InvalidEnvelope("expected an entry that a node has written")
                position = Position(epoch, *place)
                message = stored(fields.get(b"message", b""), fields.get(b"exclude", b"[]"), position)
            except InvalidEnvelope as error:
                self._rejections.stands(self._keys.stream(channel), f"{id.decode()}: {error}", fields)
                continue
            if message.position is not None and message.position.offset > last:
                last = message.position.offset
                yield message


def _new_epoch() -> str:
    return secrets.token_hex(6)
