"""Announces users whose last connection was lost, once `presence_grace`, in which they may come back, is over.

They wait in Redis (`P:leaving:CHANNEL`), not in a node that may die: whichever node looks next announces what is due.
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
"""Seconds between two looks of a node: an announcement is late by that much at most."""
AT_ONCE = 100
"""Channels, and users in each, that are announced in one look; the next one finds the rest."""


class GracePeriods:
    """Looks, on behalf of all nodes, for users whose grace is over, and announces each once."""

    def __init__(self, store: Store, keys: Keys, grace: float, rejections: Rejections) -> None:
        self._store = store
        self._keys = keys
        self._rejections = rejections
        self._grace = grace
        self._publish = keys.verbs.publish

    async def run(self) -> None:
        """Look every `PERIOD` until cancelled; return at once where there is no grace."""
        while self._grace:
            await asyncio.sleep(PERIOD)
            try:
                for channel in await self._due(self._keys.leaving_channels):
                    await self._announce(channel)
            except Unavailable:
                continue

    async def _due(self, key: str) -> list[str]:
        names, others = sorted_out(key, await self._store.ask(key, DUE((key,), AT_ONCE)), self._rejections)
        if others:  # no names of channels or users: they would be due for ever, and fill every look
            await self._store.ask(key, ("ZREM", key, *others))
        return names

    async def _announce(self, channel: str) -> None:
        """Announce who is due in a channel, and have it listed by when the next one is, or no more."""
        key, index = self._keys.leaving(channel), self._keys.leaving_channels
        words: list[str | bytes] = []
        for user in await self._due(key):
            words += (user, announcement(user, channel, connected=False))
        topic = self._keys.topic(Target("channel", channel))
        # Several nodes may have found the same users: the script takes each out and announces it in one step, so that
        # it is announced once, and not if the user has come back since.
        if self._store.whole:
            await self._store.ask(key, GONE((key, index), self._publish, topic, channel, *words))
            return
        if not await self._listed(channel, GONE((key,), self._publish, topic, channel, *words)):
            await self._store.ask(index, ("ZREM", index, channel))
            # Looked at once more: somebody may have left, and listed the channel, between the two, and was unlisted.
            await self._listed(channel, GONE((key,), self._publish, topic, channel))

    async def _listed(self, channel: str, gone: Command) -> bool:
        """In a cluster: announce, and list the channel by when its next user is due; tell whether there is one."""
        ends = float(await self._store.ask(self._keys.leaving(channel), gone))
        if ends:
            await self._store.ask(self._keys.leaving_channels, ("ZADD", self._keys.leaving_channels, ends, channel))
        return bool(ends)
