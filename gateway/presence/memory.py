"""The presence of a node that is alone (`memory://`): the same sets as in Redis, kept in this process."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from gateway.backplane import MemoryBackplane, Target
from gateway.config import Settings
from gateway.connections.connection import ConnectionInfo
from gateway.presence.contract import Counts, NodeInfo, Vital, announcement
from gateway.presence.counting import Counting
from gateway.version import __version__

T = TypeVar("T")


class MemoryPresence:
    """Keeps the same sets as Redis would, in this process. Each change is made at once; nothing need be awaited."""

    def __init__(self, settings: Settings, backplane: MemoryBackplane, vital: Callable[[], Vital] = Vital) -> None:
        self._node = settings.node_id
        self._grace = settings.presence_grace
        self._presence_max = settings.presence_max
        self._rule = settings.rule
        self._backplane = backplane
        self._vital = vital
        self._started = time.time_ns() // 1_000_000
        self._connections: dict[str, ConnectionInfo] = {}
        self._members: dict[str, dict[str, str]] = {}
        """For each channel: the user of each connection id."""
        self._online: dict[str, Counter[str]] = {}
        self._users: Counter[str] = Counter()
        self._leaving: dict[tuple[str, str], asyncio.TimerHandle] = {}
        """The timers of users who may still come back, by channel and user."""
        self._counting = Counting(self._size, backplane)

    async def run(self) -> None:
        await self._counting.run()

    async def ready(self) -> None:
        pass

    @property
    def trouble(self) -> list[str]:
        return []

    async def database(self) -> str:
        return ""

    def hold(self) -> None:
        """Do nothing: there is nobody who could take this node for dead."""

    async def close(self) -> None:
        pass

    def open(self, connection: ConnectionInfo, agent: str) -> Awaitable[None]:
        is_new = connection.id not in self._connections
        self._connections[connection.id] = connection
        if is_new and connection.user != connection.id:
            self._users[connection.user] += 1
        return _done(None)

    async def reserve(self, connection: ConnectionInfo, agent: str, most: int) -> bool:
        if connection.id not in self._connections and self._users[connection.user] >= most:
            return False
        await self.open(connection, agent)
        return True

    def join(self, connection: ConnectionInfo, channel: str) -> Awaitable[bool]:
        self._connections[connection.id] = connection
        created = channel not in self._members
        members = self._members.setdefault(channel, {})
        if connection.id in members:
            return _done(False)
        members[connection.id] = connection.user
        online = self._online.setdefault(channel, Counter())
        online[connection.user] += 1
        came_back = self._leaving.pop((channel, connection.user), None)
        if came_back is not None:
            came_back.cancel()
        elif online[connection.user] == 1:
            self._announce(connection, channel, connected=True)
        return _done(created)

    def leave(self, connection: ConnectionInfo, channel: str) -> Awaitable[bool]:
        self._connections[connection.id] = connection
        return _done(self._take(connection, channel))

    def _take(self, connection: ConnectionInfo, channel: str, *, grace: float = 0) -> bool:
        """Take a connection out of a channel; tell whether that emptied it."""
        members, online = self._members.get(channel, {}), self._online.get(channel, Counter())
        if members.pop(connection.id, None) is None:
            return False
        if _decrement(online, connection.user):
            self._say_farewell(connection, channel, grace)
        if not members:
            del self._members[channel], self._online[channel]
        return not members

    def lose(self, connection: ConnectionInfo) -> Awaitable[None]:
        for channel in connection.channels:
            self._take(connection, channel, grace=self._grace)
        if self._connections.pop(connection.id, None) and connection.user != connection.id:
            _decrement(self._users, connection.user)
        return _done(None)

    async def connections(self) -> AsyncIterator[ConnectionInfo]:
        for connection in list(self._connections.values()):
            yield connection

    async def members(self, channel: str) -> AsyncIterator[ConnectionInfo]:
        for id in list(self._members.get(channel, ())):
            if id in self._connections:
                yield self._connections[id]

    async def online(self, channel: str) -> AsyncIterator[str]:
        for user in list(self._online.get(channel, ())):
            yield user

    async def channel_counts(self, channels: Sequence[str]) -> list[tuple[int, int]]:
        return [(len(self._members.get(channel, ())), len(self._online.get(channel, ()))) for channel in channels]

    async def user_counts(self, users: Sequence[str]) -> list[int]:
        return [self._users[user] for user in users]

    async def node_ids(self) -> list[str]:
        return [self._node]

    async def count(self) -> Counts:
        return Counts(1, len(self._members), len(self._connections), len(self._users))

    async def nodes(self) -> list[NodeInfo]:
        counts = await self.count()
        return [
            NodeInfo(
                self._node,
                socket.gethostname(),
                __version__,
                self._started,
                counts.connections,
                counts.channels,
                self._vital(),
            )
        ]

    def _say_farewell(self, connection: ConnectionInfo, channel: str, grace: float) -> None:
        def over() -> None:
            self._leaving.pop((channel, connection.user), None)
            self._announce(connection, channel, connected=False)

        if grace:
            self._leaving[channel, connection.user] = asyncio.get_running_loop().call_later(grace, over)
        else:
            over()

    def _announce(self, connection: ConnectionInfo, channel: str, *, connected: bool) -> None:
        if not self._rule(channel).presence:
            return
        if 0 < self._presence_max < len(self._online.get(channel, ())) + (not connected):
            self._counting.add(channel)
            return
        word = announcement(connection.user, channel, connected=connected, exclude=connection.id)
        self._backplane.put(Target("channel", channel), word)

    async def _size(self, channel: str, changed: float) -> int:
        return len(self._online.get(channel, ()))


def _done(value: T) -> Awaitable[T]:
    """Return the result of something that is done already as a future."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


def _decrement(counter: Counter[str], name: str) -> bool:
    """Count one less; tell whether none is left, in which case the name is removed."""
    counter[name] -= 1
    if counter[name] > 0:
        return False
    del counter[name]
    return True
