"""Presence under random trouble: whatever happened, in the end the sets equal reality."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.harness.client import Client, Clients
from tests.harness.node import Node
from tests.harness.redis import RedisServer
from tests.harness.sets import Sets, expected
from tests.harness.wait import eventually

USERS, CHANNELS = 12, 5


class World:
    """Nodes, clients and what should be true of them; every step picks one thing that happens to them."""

    def __init__(self, seed: int, redis: Any, nodes: list[Node], connect: Clients, start_node: Any) -> None:
        self.random = random.Random(seed)
        self.redis = redis
        self.nodes = nodes
        self.connect = connect
        self.start_node = start_node
        self.clients: dict[Client, tuple[Node, str, set[str]]] = {}
        self.frozen: set[Node] = set()
        self.history: list[str] = []

    async def step(self) -> None:
        steps: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (12, self.open),
            (6, self.join),
            (4, self.leave),
            (4, self.drop),
            (1, self.kill),
            (1, self.freeze),
            (1, self.thaw),
            (1, self.bury),
            (1, self.flush),
            (1, self.restart),
        ]
        weights, things = zip(*steps, strict=True)
        thing = self.random.choices(things, weights)[0]
        self.history.append(thing.__name__)
        await thing()

    async def open(self) -> None:
        if awake := [node for node in self.nodes if node not in self.frozen]:
            node, user = self.random.choice(awake), f"user-{self.random.randrange(USERS)}"
            channels = {self._channel() for _ in range(self.random.randrange(3))}
            client = await self.connect(node.ws_url(*channels, user=user))
            self.clients[client] = (node, user, channels)

    async def join(self) -> None:
        if found := self._client():
            channel = self._channel()
            await found.send("join-room", {"room": channel})
            self.clients[found][2].add(channel)

    async def leave(self) -> None:
        if (found := self._client()) and (channels := self.clients[found][2]):
            channel = self.random.choice(sorted(channels))
            await found.send("leave-room", {"room": channel})
            channels.discard(channel)

    async def drop(self) -> None:
        if found := self._client():
            await found.drop()
            del self.clients[found]

    async def kill(self) -> None:
        node = self.random.choice(self.nodes)
        await node.kill()
        self.frozen.discard(node)
        self.clients = {client: held for client, held in self.clients.items() if held[0] is not node}
        same_name = self.random.random() < 0.5
        self.nodes[self.nodes.index(node)] = await self._start(node.id if same_name else None)

    async def freeze(self) -> None:
        awake = [node for node in self.nodes if node not in self.frozen]
        if len(awake) > 1:
            node = self.random.choice(awake)
            node.freeze()
            self.frozen.add(node)

    async def bury(self) -> None:
        """Let a frozen node be taken for dead, if another one can do that."""
        if self.frozen and len(self.frozen) < len(self.nodes):
            node = min(self.frozen, key=lambda node: node.id)

            async def is_buried() -> bool:
                async with self.redis.client() as client:
                    return node.id not in await client.smembers("gateway:nodes")

            await eventually(is_buried, deadline=60)

    async def thaw(self) -> None:
        while self.frozen:
            self.frozen.pop().thaw()

    async def flush(self) -> None:
        for server in await self._servers():
            await server.command("FLUSHALL")

    async def restart(self) -> None:
        """Restart Redis, with its data or without; a cluster has all its links cut instead."""
        if isinstance(self.redis, RedisServer):
            await self.redis.restart(keep_data=self.random.random() < 0.5)
        else:
            for server in await self._servers():
                await server.command("CLIENT", "KILL", "TYPE", "normal")

    async def equals_reality(self) -> bool:
        async with self.redis.client() as client:
            return await Sets.read(client) == self.reality()

    def reality(self) -> Sets:
        return expected([(user, sorted(channels)) for _, user, channels in self.clients.values()])

    async def _servers(self) -> list[RedisServer]:
        return [self.redis] if isinstance(self.redis, RedisServer) else list(await self.redis.masters())

    def _client(self) -> Client | None:
        able = [client for client, held in self.clients.items() if held[0] not in self.frozen]
        return self.random.choice(able) if able else None

    def _channel(self) -> str:
        return f"room-{self.random.randrange(CHANNELS)}"

    async def _start(self, id: str | None = None) -> Node:
        node: Node = await self.start_node(self.redis, id=id, **SETTINGS)
        return node


SETTINGS: dict[str, Any] = {"handler": "named:Named", "log_level": "warning", "heartbeat": 0, "abuse_limit": 0}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_random_trouble_ends_in_sets_that_equal_reality(own_redis, start_nodes, start_node, connect, seed):
    """Joins, leaves, lost connections, killed and frozen nodes, flushed and restarted Redis, in any order."""
    await _survive(seed, own_redis, start_nodes, start_node, connect)


async def test_the_same_holds_on_a_cluster(small_cluster, start_nodes, start_node, connect):
    """The same on three masters, whose links are cut instead."""
    await _survive(4, small_cluster, start_nodes, start_node, connect)


async def _survive(seed: int, redis: Any, start_nodes: Any, start_node: Any, connect: Clients) -> None:
    nodes = list(await start_nodes(3, redis, **SETTINGS))
    world = World(seed, redis, nodes, connect, start_node)
    for _ in range(60):
        await world.step()
    await world.thaw()
    with suppress(AssertionError):
        await eventually(world.equals_reality, deadline=60)
    async with redis.client() as client:
        assert await Sets.read(client) == world.reality(), world.history
