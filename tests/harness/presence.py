"""The presence of two nodes without their services: what happens to connections is told to it by the test."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Self

from gateway.application.service import Handler
from gateway.backplane import Target, open_backplane
from gateway.config import Settings
from gateway.connections.connection import Connection, ConnectionInfo, Profile
from gateway.connections.counters import Counters
from gateway.connections.hub import Hub
from gateway.presence import SCRIPTS, open_presence
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope, pack, unpack
from gateway.protocol.message import make_id
from gateway.redis.links import open_links

from .wait import eventually

__all__ = ["PresenceCluster", "PresenceNode", "Somebody"]

_numbers = itertools.count(1)


class PresenceNode:
    """A hub, a backplane and a presence, kept in step as a node does."""

    def __init__(self, url: str, *, id: str = "", **settings: Any) -> None:
        self.settings = Settings(redis_url=url, node_id=id or f"node-{next(_numbers)}", **settings)
        self.hub, self.counters = Hub(), Counters()
        links = open_links(self.settings, SCRIPTS)
        self.backplane = open_backplane(self.settings, links)
        self.presence = open_presence(self.settings, links, self.backplane, self.hub, self.counters)
        # What was said in the channels that were listened to: (channel, command, parameter, whom to skip).
        self.said: list[tuple[str, str, Any, set[str]]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Run it for the length of a `with`; fail if it ended by itself."""
        started = asyncio.Event()
        task = asyncio.create_task(self._run(started))
        try:
            async with asyncio.timeout(20):
                await started.wait()
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled(), task.exception()

    async def somebody(self, user: str = "", *channels: str, name: str = "", number: int | None = None) -> Somebody:
        """Connect somebody, and join channels; with a `number` the connection's id ends with it."""
        found = Somebody(self, user, name, number)
        await self.presence.open(found.info, "a browser")
        for channel in channels:
            await found.join(channel)
        return found

    async def _run(self, started: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            for part in (self.backplane.run(), self.presence.run(), self._listen()):
                tasks.create_task(part)
            await self.backplane.ready()
            await self.presence.ready()
            started.set()

    async def announced(self, channel: str) -> list[tuple[str, bool, set[str]]]:
        """Return who was announced in a channel so far: user, whether connected, and whom it skips."""
        await self.hear_all(channel)
        return [
            (param["userID"], param["connected"], exclude)
            for name, cmd, param, exclude in self.said
            if (name, cmd) == (channel, "online-update")
        ]

    async def hear_all(self, channel: str) -> None:
        """Wait until everything that was said in a channel has arrived here."""
        mark = f"mark-{next(_numbers)}"
        await self.backplane.publish(Target("channel", channel), pack(Envelope(codec.encode(mark))))
        await eventually(lambda: any(said[1] == mark for said in self.said), what=mark)

    async def _listen(self) -> None:
        async for batch in self.backplane.batches():
            for target, data in batch:
                if target.kind == "channel":
                    envelope = unpack(data, target.name)
                    message = json.loads(envelope.payload)
                    self.said.append((target.name, message["cmd"], message["param"], set(envelope.exclude)))


class Somebody:
    """A connection of a node, and what happens to it."""

    def __init__(self, node: PresenceNode, user: str, name: str, number: int | None = None) -> None:
        self.node = node
        id = make_id(node.settings.node_id, f"{next(_numbers):010x}" if number is None else str(number))
        self.connection = Connection(id, Profile(user, name), Handler(), started=1_700_000_000_123, remote="192.0.2.1")
        node.hub.add(self.connection)

    @property
    def id(self) -> str:
        """The connection's id."""
        return self.connection.id

    @property
    def info(self) -> ConnectionInfo:
        """What other nodes should know of the connection now."""
        return self.connection.info()

    def join(self, channel: str) -> Awaitable[bool]:
        """Join a channel; what comes back tells whether that created it."""
        self.node.hub.join(self.connection, channel)
        return self.node.presence.join(self.info, channel)

    def leave(self, channel: str) -> Awaitable[bool]:
        """Leave a channel; what comes back tells whether that emptied it."""
        self.node.hub.leave(self.connection, channel)
        return self.node.presence.leave(self.info, channel)

    def lose(self) -> Awaitable[Any]:
        """Break the connection."""
        last_known = self.info
        for channel in last_known.channels:
            self.node.hub.leave(self.connection, channel)
        self.node.hub.remove(self.connection)
        return self.node.presence.lose(last_known)


class PresenceCluster:
    """Two nodes; on `memory://` both are the same one."""

    def __init__(self, one: PresenceNode, two: PresenceNode) -> None:
        self.one = one
        self.two = two
        self.nodes = [one] if one is two else [one, two]

    async def somebody(self, node: PresenceNode, user: str = "", *channels: str, name: str = "") -> Somebody:
        """Connect somebody to a node, and join channels."""
        return await node.somebody(user, *channels, name=name)

    async def listen(self, *channels: str) -> None:
        """Hear on both nodes what is said in channels."""
        for node in self.nodes:
            await node.backplane.subscribe([Target("channel", channel) for channel in channels])
