"""Presence of a cluster, in Redis sets that a person can read."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from typing import Any

from gateway.backplane import Backplane, Target
from gateway.backplane.keys import Keys
from gateway.backplane.link import Dialer, Link, LinkLost, RedisRefused, stay_connected
from gateway.config import Settings
from gateway.connection import ConnectionInfo
from gateway.errors import Unavailable
from gateway.presence.crowds import Crowds
from gateway.presence.protocol import Counts, NodeInfo, announcement
from gateway.presence.writer import Script, Writer
from gateway.version import __version__

JOIN, LEAVE, FORGET_USER = Script("join"), Script("leave"), Script("forget_user")

LEASE = 10
"""Seconds after which Redis forgets a node that has not renewed its lease."""
RENEW = 3.0
PAGE = 500


class RedisPresence:
    """Writes what this node knows, reads what all know."""

    def __init__(self, settings: Settings, backplane: Backplane) -> None:
        self._node = settings.node_id
        self._presence_max = settings.presence_max
        self._keys = keys = Keys(settings.prefix)
        self._dialer = Dialer(settings.redis_url, f"{settings.prefix}-{settings.node_id}-presence")
        self._writer = Writer((JOIN, LEAVE, FORGET_USER))
        self._link: Link | None = None
        self._crowds = Crowds(self._size, backplane)
        self._started = time.time_ns() // 1_000_000
        self._lease = keys.node(self._node)
        self._held: dict[str, tuple[str, ...]] = {}
        """Of each connection of this node: its channels as last written."""

    # ---- life

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stay_connected(self._dialer.dial, self._use, "presence"))
            tasks.create_task(self._renew())
            tasks.create_task(self._crowds.run())

    async def ready(self) -> None:
        await self._writer.put("SADD", self._keys.nodes, self._node)

    async def close(self) -> None:
        self._writer.put("SREM", self._keys.nodes, self._node)
        self._writer.put("DEL", self._lease)
        await self._writer.flushed()

    async def _use(self, link: Link) -> None:
        self._link = link
        try:
            await self._writer.use(link)
        finally:
            self._link = None

    async def _renew(self) -> None:
        """Keep the lease: the only thing that a quiet node writes."""
        while True:
            await self._writer.put("HSET", self._lease, *self._vital())
            await self._writer.put("EXPIRE", self._lease, LEASE)
            await asyncio.sleep(RENEW)

    def _vital(self) -> tuple[str | int, ...]:
        channels = {channel for held in self._held.values() for channel in held}
        return (
            *("host", socket.gethostname(), "version", __version__, "started", self._started),
            *("connections", len(self._held), "channels", len(channels)),
        )

    # ---- writing

    def open(self, connection: ConnectionInfo, agent: str) -> Awaitable[None]:
        self._held[connection.id] = connection.channels
        self._writer.put("HSET", self._keys.connection(connection.id), *_fields(connection), "agent", agent)
        done = self._writer.put("SADD", self._keys.node_connections(self._node), connection.id)
        if connection.user != connection.id:
            self._writer.put("SADD", self._keys.user_connections(connection.user), connection.id)
            done = self._writer.put("SADD", self._keys.users, connection.user)
        return done

    def join(self, connection: ConnectionInfo, channel: str) -> Awaitable[bool]:
        # The hash goes first: whoever cleans up after this node finds every channel there.
        self._write_channels(connection)
        word = announcement(connection.user, channel, connected=True, exclude=connection.id)
        return self._change(JOIN, connection, channel, word)

    def leave(self, connection: ConnectionInfo, channel: str) -> Awaitable[bool]:
        word = announcement(connection.user, channel, connected=False, exclude=connection.id)
        emptied = self._change(LEAVE, connection, channel, word)
        self._write_channels(connection)
        return emptied

    def forget(self, connection: ConnectionInfo) -> Awaitable[None]:
        self._held.pop(connection.id, None)
        if connection.user != connection.id:
            keys = (self._keys.user_connections(connection.user), self._keys.users)
            self._writer.put(*FORGET_USER.command(keys, connection.id, connection.user))
        self._writer.put("SREM", self._keys.node_connections(self._node), connection.id)
        return self._writer.put("DEL", self._keys.connection(connection.id))

    def _write_channels(self, connection: ConnectionInfo) -> None:
        if self._held.get(connection.id, connection.channels) != connection.channels:
            self._held[connection.id] = connection.channels
            key = self._keys.connection(connection.id)
            self._writer.put("HSET", key, "channels", json.dumps(connection.channels))

    def _change(self, script: Script, connection: ConnectionInfo, channel: str, word: bytes) -> Awaitable[bool]:
        keys = (
            self._keys.members(channel),
            self._keys.online(channel),
            self._keys.tabs(channel),
            self._keys.channels,
        )
        topic = self._keys.topic(Target("channel", channel))
        arguments = (connection.id, connection.user, channel, topic, word, self._presence_max)
        return self._writer.put(*script.command(keys, *arguments), read=partial(self._changed, channel))

    def _changed(self, channel: str, answer: list[int]) -> bool:
        created_or_emptied, crowded = answer
        if crowded:
            self._crowds.add(channel)
        return bool(created_or_emptied)

    # ---- reading

    async def connections(self) -> AsyncIterator[ConnectionInfo]:
        for node in await self._ask("SMEMBERS", self._keys.nodes):
            async for info in self._listed(self._keys.node_connections(node.decode())):
                yield info

    def members(self, channel: str) -> AsyncIterator[ConnectionInfo]:
        return self._listed(self._keys.members(channel))

    async def online(self, channel: str) -> AsyncIterator[str]:
        async for page in self._scan(self._keys.online(channel)):
            for user in page:
                yield user

    async def count(self) -> Counts:
        nodes = await self.nodes()
        channels = await self._ask("SCARD", self._keys.channels)
        users = await self._ask("SCARD", self._keys.users)
        held = [await self._ask("SCARD", self._keys.node_connections(node.id)) for node in nodes]
        return Counts(len(nodes), channels, sum(held), users)

    async def nodes(self) -> list[NodeInfo]:
        ids = sorted(id.decode() for id in await self._ask("SMEMBERS", self._keys.nodes))
        found = [(id, await self._ask("HGETALL", self._keys.node(id))) for id in ids]
        return [_node_info(id, dict(zip(flat[::2], flat[1::2], strict=True))) for id, flat in found if flat]

    async def _size(self, channel: str) -> int:
        size: int = await self._ask("SCARD", self._keys.online(channel))
        return size

    async def _listed(self, key: str) -> AsyncIterator[ConnectionInfo]:
        async for page in self._scan(key):
            keys = [self._keys.connection(id) for id in page]
            found = await asyncio.gather(*(self._ask("HMGET", key, *_FIELDS) for key in keys))
            for id, values in zip(page, found, strict=True):
                if values[0] is not None:
                    yield _info(id, values)

    async def _scan(self, key: str) -> AsyncIterator[list[str]]:
        """Yield a set page by page, no member twice."""
        cursor, seen = b"0", set[str]()
        while True:
            cursor, members = await self._ask("SSCAN", key, cursor, "COUNT", PAGE)
            page = [name for member in members if (name := member.decode()) not in seen]
            seen.update(page)
            yield page
            if cursor == b"0":
                return

    async def _ask(self, *command: str | bytes | int) -> Any:
        if self._link is None:
            raise Unavailable("Redis is away")
        try:
            return await self._link.call(*command)
        except (LinkLost, RedisRefused) as error:
            raise Unavailable(f"Redis did not answer: {error}") from None


_FIELDS = ("node", "user", "name", "channels", "started", "remote")


def _fields(connection: ConnectionInfo) -> tuple[str | int, ...]:
    values: tuple[str | int, ...] = (
        *(connection.node, connection.user, connection.name),
        *(json.dumps(connection.channels), connection.started, connection.remote),
    )
    return tuple(part for pair in zip(_FIELDS, values, strict=True) for part in pair)


def _info(id: str, values: list[bytes]) -> ConnectionInfo:
    node, user, name, channels, started, remote = (value.decode() if value else "" for value in values)
    return ConnectionInfo(id, node, user, name, tuple(json.loads(channels or "[]")), int(started or 0), remote)


def _node_info(id: str, fields: dict[bytes, bytes]) -> NodeInfo:
    def number(name: bytes) -> int:
        return int(fields.get(name, 0))

    host, version = fields.get(b"host", b"").decode(), fields.get(b"version", b"").decode()
    return NodeInfo(id, host, version, number(b"started"), number(b"connections"), number(b"channels"))
