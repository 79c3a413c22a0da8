"""Reads the cluster's sets, page by page, so that a large one neither blocks Redis nor sits in one reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from gateway.connections.connection import ConnectionInfo
from gateway.presence.contract import Counts, NodeInfo, of_record
from gateway.presence.registry import described, info_of
from gateway.redis.keys import Keys
from gateway.redis.records import Record, Rejections, names_in, sorted_out
from gateway.redis.store import Store, looked

SECONDS = 10
"""How long a node's lease lasts, by Redis' clock."""
PAGE = 500
"""Members that Redis is asked to look at in one step of SSCAN."""
MOST_NODES = 4096
"""Nodes that are asked or shown, at most: a set with more has been written by hand."""


async def pages(store: Store, key: str, rejections: Rejections) -> AsyncIterator[list[str]]:
    """Yield the names among the members of a set, none twice; one that comes or goes meanwhile may be missed.

    All names are remembered until the end, since SSCAN may yield some of them again.
    """
    async for names, _ in raw_pages(store, key, rejections):
        yield names


async def raw_pages(store: Store, key: str, rejections: Rejections) -> AsyncIterator[tuple[list[str], list[bytes]]]:
    """Yield the same names, and with each page those members that no node can have put into the set."""
    cursor, seen = b"0", set[str]()
    while True:
        command = ("SSCAN", key, cursor, "COUNT", PAGE)
        cursor, members = await looked(store, key, command, [b"0", []], rejections)
        names, others = sorted_out(key, members, rejections)
        page = [name for name in names if name not in seen]
        seen.update(page)
        yield page, others
        if cursor == b"0":
            return


class RedisListing:
    """Reads what the cluster looks like. Raises `Unavailable` while Redis is away.

    What somebody has put into the keys by hand is left out: a page that shows the rest is of more use than none.
    """

    def __init__(
        self, store: Store, keys: Keys, rejections: Rejections, spoiled: Callable[[str], None] = lambda id: None
    ) -> None:
        self._store = store
        self._keys = keys
        self._rejections = rejections
        self._spoiled = spoiled
        """Called with the id of a connection whose hash is not as its node wrote it."""

    async def connections(self) -> AsyncIterator[ConnectionInfo]:
        for node in await self.node_ids():
            async for info in self._described(self._keys.node_connections(node)):
                yield info

    def members(self, channel: str) -> AsyncIterator[ConnectionInfo]:
        return self._described(self._keys.members(channel))

    async def online(self, channel: str) -> AsyncIterator[str]:
        async for page in pages(self._store, self._keys.online(channel), self._rejections):
            for user in page:
                yield user

    async def channel_counts(self, channels: Sequence[str]) -> list[tuple[int, int]]:
        keys = [key for channel in channels for key in (self._keys.members(channel), self._keys.online(channel))]
        sizes = await asyncio.gather(*map(self._size, keys))
        return list(zip(sizes[::2], sizes[1::2], strict=True))

    async def user_counts(self, users: Sequence[str]) -> list[int]:
        return list(await asyncio.gather(*(self._size(self._keys.user_connections(user)) for user in users)))

    async def count(self) -> Counts:
        nodes = await self.node_ids()
        sizes = (self._size(key) for key in (self._keys.channels, self._keys.users))
        held = (self._size(self._keys.node_connections(node)) for node in nodes)
        channels, users, *connections = await asyncio.gather(*sizes, *held)
        return Counts(len(nodes), channels, sum(connections), users)

    async def node_ids(self) -> list[str]:
        """Return the ids in the set of nodes, sorted; those of nodes that died a moment ago are among them."""
        key = self._keys.nodes
        found = await looked(self._store, key, ("SMEMBERS", key), [], self._rejections)
        return sorted(names_in(key, found, self._rejections))[:MOST_NODES]

    async def nodes(self) -> list[NodeInfo]:
        infos = await asyncio.gather(*(self._node(id) for id in await self.node_ids()))
        return [info for info in infos if info is not None]

    async def _node(self, id: str) -> NodeInfo | None:
        key = self._keys.node(id)
        flat, left = await asyncio.gather(
            looked(self._store, key, ("HGETALL", key), [], self._rejections), self._store.ask(key, ("PTTL", key))
        )
        record = Record.of_flat(key, flat, self._rejections)
        if not record:
            return None
        started, connections, channels = map(record.number, ("started", "connections", "channels"))
        silent = max(0.0, SECONDS - left / 1000) if left > 0 else 0.0
        host, version = record.line("host"), record.line("version")
        return NodeInfo(id, host, version, started, connections, channels, of_record(record), silent)

    async def _size(self, key: str) -> int:
        size: int = await looked(self._store, key, ("SCARD", key), 0, self._rejections)
        return size

    async def _described(self, key: str) -> AsyncIterator[ConnectionInfo]:
        async for page in pages(self._store, key, self._rejections):
            some = (described(self._store, self._keys, id, self._rejections) for id in page)
            for id, record in zip(page, await asyncio.gather(*some), strict=True):
                if "node" in record:
                    yield info_of(id, record)
                if record.is_spoiled:
                    self._spoiled(id)
