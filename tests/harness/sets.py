"""What presence's sets hold, beside what they should hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .address import Addressed
from .client import Client
from .wait import eventually

__all__ = ["Held", "Sets", "address", "agrees", "expected", "farewells"]

Held = Sequence[tuple[str, Sequence[str]]]
"""Connections: of each its user and its channels."""


@dataclass
class Sets:
    """The cluster's presence, compared by `==`; connections are counted, for their ids are the nodes' to choose."""

    members: dict[str, int] = field(default_factory=dict)
    online: dict[str, set[str]] = field(default_factory=dict)
    channels: set[str] = field(default_factory=set)
    users: set[str] = field(default_factory=set)
    tabs: dict[str, int] = field(default_factory=dict)
    connections: int = 0
    held: int = 0

    @classmethod
    async def read(cls, client: Any, prefix: str = "gateway") -> Sets:
        """Read all of it through a redis-py client of a server or a cluster."""
        found = cls()
        async for raw in client.scan_iter(f"{prefix}:*", count=1000):
            key = raw.replace("{", "").replace("}", "").removeprefix(f"{prefix}:")
            await found._take(client, raw, key)
        found.channels = set(await client.smembers(f"{prefix}:channels"))
        found.users = set(await client.smembers(f"{prefix}:users"))
        return found

    async def _take(self, client: Any, raw: str, key: str) -> None:
        kind, _, name = key.partition(":")
        if kind == "members":
            self.members[name] = await client.scard(raw)
        elif kind == "online":
            self.online[name] = set(await client.smembers(raw))
        elif kind == "connection":
            self.connections += 1
        elif kind == "node" and name.endswith(":connections"):
            self.held += await client.scard(raw)
        elif kind == "user":
            self.tabs[name.removesuffix(":connections")] = await client.scard(raw)


def expected(connections: Iterable[tuple[str, Sequence[str]]]) -> Sets:
    """Make the sets that these connections, each a user and its channels, should lead to."""
    sets, members, online, tabs = Sets(), Counter[str](), defaultdict[str, set[str]](set), Counter[str]()
    for user, channels in connections:
        members.update(channels)
        tabs[user] += 1
        for channel in channels:
            online[channel].add(user)
        sets.connections += 1
    sets.members, sets.online, sets.tabs = dict(members), dict(online), dict(tabs)
    sets.channels, sets.users, sets.held = set(members), set(tabs), sets.connections
    return sets


def address(node: Addressed, user: str, channels: Iterable[str]) -> str:
    """Where `user` connects to join these channels."""
    return node.ws_url(*channels, user=user)


async def agrees(redis: Any, connections: Held, deadline: float) -> None:
    """Return once the sets equal reality; fail with both when that does not come about."""
    wanted = expected(connections)
    async with redis.client() as client:

        async def are_equal() -> bool:
            return await Sets.read(client) == wanted

        try:
            await eventually(are_equal, deadline=deadline)
        except AssertionError:
            assert await Sets.read(client) == wanted


def farewells(client: Client) -> Counter[tuple[str, str]]:
    """Count who was said to be gone, by channel and user."""
    return Counter(
        (message["channel"], message["param"]["userID"])
        for message in client.received
        if message["cmd"] == "online-update" and not message["param"]["connected"]
    )
