"""The presence of two nodes without their services: what happens to connections is told to it by the test."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Self

from gateway import codec
from gateway.backplane import Target, open_backplane
from gateway.config import Settings
from gateway.connection import Connection, ConnectionInfo, Profile, make_id
from gateway.counters import Counters
from gateway.handler import Handler
from gateway.hub import Hub
from gateway.presence import open_presence
from gateway.presence.redis import RedisPresence

from .wait import eventually

__all__ = ["LoneNode", "PresenceCluster", "PresenceNode", "Somebody"]

_numbers = itertools.count(1)


class PresenceNode:
    """A hub, a backplane and a presence, kept in step as a node does."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.settings = Settings(redis_url=url, node_id=f"node-{next(_numbers)}", **settings)
        self.hub = Hub()
        self.backplane = open_backplane(self.settings)
        self.presence = open_presence(self.settings, self.backplane, self.hub, Counters())
        # What was said in the channels that were listened to: (channel, command, parameter, whom to skip).
        self.said: list[tuple[str, str, Any, set[str]]] = []

    async def run(self, started: asyncio.Event) -> None:
        """Run it until cancelled."""
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
        await self.backplane.publish(Target("channel", channel), codec.pack(codec.Envelope(codec.encode(mark))))
        await eventually(lambda: any(said[1] == mark for said in self.said), what=mark)

    async def _listen(self) -> None:
        async for batch in self.backplane.batches():
            for target, data in batch:
                if target.kind == "channel":
                    envelope = codec.unpack(data, target.name)
                    message = json.loads(envelope.payload)
                    self.said.append((target.name, message["cmd"], message["param"], set(envelope.exclude)))


class Somebody:
    """A connection of a node, and what happens to it."""

    def __init__(self, node: PresenceNode, user: str, name: str) -> None:
        self.node = node
        id = make_id(node.settings.node_id, f"{next(_numbers):010x}")
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
        found = Somebody(node, user, name)
        await node.presence.open(found.info, "a browser")
        for channel in channels:
            await found.join(channel)
        return found

    async def listen(self, *channels: str) -> None:
        """Hear on both nodes what is said in channels."""
        for node in self.nodes:
            await node.backplane.subscribe([Target("channel", channel) for channel in channels])


class LoneNode:
    """A hub, a backplane and a presence over Redis, whose parts a test may ask."""

    def __init__(self, url: str, **options: Any) -> None:
        settings = Settings(redis_url=url, node_id="lone", **options)
        self.hub, self.counters = Hub(), Counters()
        self.backplane = open_backplane(settings)
        self.presence = RedisPresence(settings, self.backplane, self.hub, self.counters)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Run it for the length of a `with`."""
        tasks = [asyncio.create_task(self.backplane.run()), asyncio.create_task(self.presence.run())]
        try:
            await self.presence.ready()
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def add(self, user: str, channels: list[str], number: int) -> Connection:
        """Let a connection come, and join channels."""
        connection = Connection(make_id("lone", str(number)), Profile(id=user), Handler())
        self.hub.add(connection)
        self.presence.open(connection.info(), "")
        for channel in channels:
            self.hub.join(connection, channel)
            self.presence.join(connection.info(), channel)
        return connection

    async def lose(self, connection: Connection) -> None:
        """Let a connection break."""
        last_known = connection.info()
        for channel in last_known.channels:
            self.hub.leave(connection, channel)
        self.hub.remove(connection)
        await self.presence.lose(last_known)
