"""Announces users whose connection was lost, once the grace in which they may come back is over.

The waiting is in Redis, not in a node: whichever node looks next announces what is due.
"""

from __future__ import annotations

import asyncio

from gateway.backplane import Target
from gateway.errors import Unavailable
from gateway.presence.contract import announcement
from gateway.presence.scripts import DUE, GONE
from gateway.redis.keys import Keys
from gateway.redis.link import Command
from gateway.redis.records import Rejections, sorted_out
from gateway.redis.store import Store

PERIOD = 0.5
AT_ONCE = 100


class GracePeriods:
    """Announces whose time to come back is over."""

    def __init__(self, store: Store, keys: Keys, grace: float, rejections: Rejections) -> None:
        self._store = store
        self._keys = keys
        self._rejections = rejections
        self._grace = grace
        self._publish = keys.verbs.publish

    async def run(self) -> None:
        while self._grace:
            await asyncio.sleep(PERIOD)
            try:
                for channel in await self._due(self._keys.leaving_channels):
                    await self._announce(channel)
            except Unavailable:
                continue

    async def _due(self, key: str) -> list[str]:
        names, others = sorted_out(key, await self._store.ask(key, DUE((key,), AT_ONCE)), self._rejections)
        if others:  # they would be due for ever, and leave no room for others
            await self._store.ask(key, ("ZREM", key, *others))
        return names

    async def _announce(self, channel: str) -> None:
        key, index = self._keys.leaving(channel), self._keys.leaving_channels
        words: list[str | bytes] = []
        for user in await self._due(key):
            words += (user, announcement(user, channel, connected=False))
        topic = self._keys.topic(Target("channel", channel))
        if self._store.whole:
            await self._store.ask(key, GONE((key, index), self._publish, topic, channel, *words))
            return
        if not await self._listed(channel, GONE((key,), self._publish, topic, channel, *words)):
            await self._store.ask(index, ("ZREM", index, channel))
            await self._listed(channel, GONE((key,), self._publish, topic, channel))  # one may have left meanwhile

    async def _listed(self, channel: str, gone: Command) -> bool:
        """In a cluster: list a channel by when the next one there is due; tell whether anybody is."""
        ends = float(await self._store.ask(self._keys.leaving(channel), gone))
        if ends:
            await self._store.ask(self._keys.leaving_channels, ("ZADD", self._keys.leaving_channels, ends, channel))
        return bool(ends)
