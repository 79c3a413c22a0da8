"""Reads the sets, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress

from gateway.backplane.keys import Keys
from gateway.connection import ConnectionInfo
from gateway.presence.protocol import Counts, NodeInfo
from gateway.presence.registry import FIELDS, info_of, number_of
from gateway.presence.store import Store
from gateway.vitals import of_fields

SECONDS = 10
"""How long a node's lease lasts, by Redis' clock."""
PAGE = 500
_COUNTS = ("started", "connections", "channels")


def names_in(members: Iterable[bytes]) -> list[str]:
    """Read names, but for what only a hand can have put among them."""
    names: list[str] = []
    for member in members:
        with suppress(UnicodeDecodeError):
            names.append(member.decode())
    return names


async def node_ids(store: Store, keys: Keys) -> list[str]:
    """Return the ids in the set of nodes: those of nodes that died a moment ago, too."""
    return sorted(names_in(await store.ask(keys.nodes, ("SMEMBERS", keys.nodes))))


async def pages(store: Store, key: str) -> AsyncIterator[list[str]]:
    """Yield the members of a set, no member twice; one that comes or goes meanwhile may be missed."""
    cursor, seen = b"0", set[str]()
    while True:
        cursor, members = await store.ask(key, ("SSCAN", key, cursor, "COUNT", PAGE))
        page = [name for name in names_in(members) if name not in seen]
        seen.update(page)
        yield page
        if cursor == b"0":
            return


class Listing:
    """Answers what the cluster looks like. Raises `Unavailable` while Redis is away."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    async def connections(self) -> AsyncIterator[ConnectionInfo]:
        for node in await self.node_ids():
            async for info in self._described(self._keys.node_connections(node)):
                yield info

    def members(self, channel: str) -> AsyncIterator[ConnectionInfo]:
        return self._described(self._keys.members(channel))

    async def online(self, channel: str) -> AsyncIterator[str]:
        async for page in pages(self._store, self._keys.online(channel)):
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
        return await node_ids(self._store, self._keys)

    async def nodes(self) -> list[NodeInfo]:
        infos = await asyncio.gather(*(self._node(id) for id in await self.node_ids()))
        return [info for info in infos if info is not None]

    async def _node(self, id: str) -> NodeInfo | None:
        key = self._keys.node(id)
        flat, left = await asyncio.gather(self._store.ask(key, ("HGETALL", key)), self._store.ask(key, ("PTTL", key)))
        read = [part.decode(errors="replace") for part in flat]
        fields = dict(zip(read[::2], read[1::2], strict=True))
        if not fields:
            return None
        started, connections, channels = (number_of(fields.get(name, "")) for name in _COUNTS)
        silent = max(0.0, SECONDS - left / 1000) if left > 0 else 0.0
        host, version = fields.get("host", ""), fields.get("version", "")
        return NodeInfo(id, host, version, started, connections, channels, of_fields(fields), silent)

    async def _size(self, key: str) -> int:
        size: int = await self._store.ask(key, ("SCARD", key))
        return size

    async def _described(self, key: str) -> AsyncIterator[ConnectionInfo]:
        async for page in pages(self._store, key):
            keys = [self._keys.connection(id) for id in page]
            found = await asyncio.gather(*(self._store.ask(key, ("HMGET", key, *FIELDS)) for key in keys))
            for id, values in zip(page, found, strict=True):
                if values[0] is not None:
                    yield info_of(id, values)
