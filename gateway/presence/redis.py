"""The presence of a cluster in Redis, in sets that a person can read with `redis-cli`; puts its parts together."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from gateway.backplane import Backplane
from gateway.config import Settings
from gateway.connections.connection import ConnectionInfo
from gateway.connections.counters import Counters
from gateway.connections.hub import Hub
from gateway.errors import CannotStart, Unavailable
from gateway.presence.claims import Claims
from gateway.presence.contract import Counts, NodeInfo, Vital
from gateway.presence.counting import Counting
from gateway.presence.duplicates import Duplicates
from gateway.presence.grace import GracePeriods
from gateway.presence.lease import Lease
from gateway.presence.listing import SECONDS, RedisListing
from gateway.presence.marks import Marks
from gateway.presence.reaper import Reaper
from gateway.presence.registry import RedisRegistry
from gateway.presence.repair import Repair
from gateway.presence.rules import Rules
from gateway.presence.scripts import COUNT
from gateway.presence.wrong_types import WrongTypes
from gateway.redis.blocking import BlockingLink
from gateway.redis.links import Links
from gateway.redis.records import Rejections
from gateway.redis.store import looked

logger = logging.getLogger(__name__)

DATABASE_REMEMBERED = 3600
"""Seconds for which the word of a database stays after it was last asked for."""
LOOK = 1.0
"""Seconds between two looks for dead nodes."""


class RedisPresence:
    """Writes what this node holds, reads what all hold, and cleans up after nodes that died."""

    def __init__(
        self,
        settings: Settings,
        links: Links,
        backplane: Backplane,
        hub: Hub,
        counters: Counters,
        rejections: Rejections,
        vital: Callable[[], Vital] = Vital,
        reaped: Callable[[str, int], None] = lambda node, removed: None,
    ) -> None:
        node = self._node = settings.node_id
        store = self._store = links.store
        keys = self._keys = links.keys
        self._rejections = rejections
        claims, marks = Claims(store, keys), Marks(store, keys)
        self._hub = hub
        self._listing = RedisListing(store, keys, rejections, self._spoiled)
        self._counting = Counting(self._size, backplane)
        registry = self._registry = RedisRegistry(store, keys, settings, self._counting)
        reaper = self.reaper = Reaper(store, keys, registry, claims, rejections, marks, reaped)
        rules = Rules(store, keys, rejections, settings.channels)
        duplicates = self._duplicates = Duplicates(node, store, keys, rejections)
        proved = links.troubles.proved
        self.lease = Lease(
            node, store, keys, hub, registry, reaper, claims, rules, duplicates, marks, vital=vital, proved=proved
        )
        self._wrong_types = WrongTypes(store, keys, rejections, self.lease.register_again)
        store.connected.append(self.lease.renew_now)
        store.rearranged.append(self.lease.register_again)
        store.misplaced.append(self._wrong_types.misplaced)
        self._blocking = BlockingLink(links.url, f"{links.name}-standby", lambda: store.server(keys.node(node)))
        self._grace_periods = GracePeriods(store, keys, settings.presence_grace, rejections)
        self._arriving: set[str] = set()
        """Ids of connections that Redis may have counted and the hub does not have yet: no difference to the audit."""
        self.repair = Repair(node, store, keys, hub, self.lease, duplicates, rules, counters, self._arriving)

    # ---- life

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._store.run())
            tasks.create_task(self.lease.run())
            tasks.create_task(self._reap())
            tasks.create_task(self._counting.run())
            tasks.create_task(self._grace_periods.run())
            tasks.create_task(self.repair.run())
            tasks.create_task(self._wrong_types.run())

    async def ready(self) -> None:
        await self.lease.registered.wait()
        if self.lease.refusal:
            raise CannotStart(self.lease.refusal)

    @property
    def trouble(self) -> list[str]:
        return [self._duplicates.present] if self._duplicates.present else []

    async def database(self) -> str:
        key = self._keys.database
        for _ in range(2):  # once more where the word had just expired, or was not one of ours and is removed
            await self._store.ask(key, ("SET", key, secrets.token_hex(8), "NX", "EX", DATABASE_REMEMBERED))
            word = await looked(self._store, key, ("GET", key), b"", self._rejections)
            if word and len(word) == 16 and word.isalnum():
                await self._store.ask(key, ("EXPIRE", key, DATABASE_REMEMBERED))
                return str(word.decode())
            await self._store.ask(key, ("DEL", key))
        raise Unavailable("somebody writes over the word of this database")

    def hold(self) -> None:
        self._blocking.call(self.lease.renewal())

    async def close(self) -> None:
        await self._store.flushed()
        await self.lease.end()

    def _spoiled(self, id: str) -> None:
        """Write a connection again whose hash is not as its node wrote it, if this node holds it."""
        if (connection := self._hub.connections.get(id)) is not None:
            self._registry.open(connection.info(), connection.agent)

    async def _reap(self) -> None:
        """Look for dead nodes, but not before all nodes had a whole lease's time since the last trouble with Redis.

        In an outage all leases run out, and the first node to find Redis again must not reap the others.
        """
        while True:
            await asyncio.sleep(LOOK)
            steady = asyncio.get_running_loop().time() - self.lease.steady_since
            if not self.lease.registered.is_set() or steady < SECONDS:
                continue
            try:
                await self.reaper.reap_dead(self._node)
            except Unavailable as error:
                logger.debug("could not look for dead nodes: %s", error)

    async def _size(self, channel: str, changed: float) -> int:
        """Count the users online in a channel, if this is the node that publishes it now: see `Counting`."""
        counted = self._keys.counted(channel)
        count = COUNT((counted, self._keys.online(channel)), round(changed * 1000))
        size: int = await self._store.ask(counted, count)
        return size

    # ---- Presence

    def open(self, connection: ConnectionInfo, agent: str) -> Awaitable[Any]:
        self._arriving.discard(connection.id)
        return self._registry.open(connection, agent)

    async def reserve(self, connection: ConnectionInfo, agent: str, most: int) -> bool:
        # Before Redis is asked: it may count the connection, and the answer come late or never. Then it stays here
        # until `open` or `lose`.
        self._arriving.add(connection.id)
        has_room = await self._registry.reserve(connection, agent, most)
        if not has_room:
            self._arriving.discard(connection.id)
        return has_room

    def join(self, connection: ConnectionInfo, channel: str) -> Awaitable[bool]:
        return self._registry.join(connection, channel)

    def leave(self, connection: ConnectionInfo, channel: str) -> Awaitable[bool]:
        return self._registry.leave(connection, channel)

    def lose(self, connection: ConnectionInfo) -> Awaitable[Any]:
        self._arriving.discard(connection.id)
        return self._registry.lose(connection)

    def connections(self) -> AsyncIterator[ConnectionInfo]:
        return self._listing.connections()

    def members(self, channel: str) -> AsyncIterator[ConnectionInfo]:
        return self._listing.members(channel)

    def online(self, channel: str) -> AsyncIterator[str]:
        return self._listing.online(channel)

    async def channel_counts(self, channels: Sequence[str]) -> list[tuple[int, int]]:
        return await self._listing.channel_counts(channels)

    async def user_counts(self, users: Sequence[str]) -> list[int]:
        return await self._listing.user_counts(users)

    async def node_ids(self) -> list[str]:
        return await self._listing.node_ids()

    async def count(self) -> Counts:
        return await self._listing.count()

    async def nodes(self) -> list[NodeInfo]:
        return await self._listing.nodes()
