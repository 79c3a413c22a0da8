"""What is soaked: nodes behind haproxy, each with a link of its own to one Redis that keeps its data."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from tests.harness.haproxy import Haproxy
from tests.harness.node import Node
from tests.harness.proxy import Proxy
from tests.harness.redis import RedisServer

SECRET = "soaked for as long as it takes, and then an hour"
HISTORY, TTL = 1000, 900
START_SECONDS = 60


class Scene:
    """Redis, a proxy for each node, the nodes, and the balancer."""

    def __init__(self, nodes: int) -> None:
        self.redis = RedisServer(appendonly="yes", appendfsync="everysec")
        self.proxies = [Proxy(self.redis.port) for _ in range(nodes)]
        self.nodes = [self._node(number, proxy) for number, proxy in enumerate(self.proxies, 1)]
        self.balancer = Haproxy(self.nodes)
        self.lives: Counter[str] = Counter()
        """How often each node was started."""

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self.balancer.ws_url()

    def life(self, node_id: str) -> str:
        """Name the present life of a node."""
        return f"{node_id}, life {self.lives[node_id]}"

    def link_of(self, node: Node) -> Proxy:
        """Return what is between a node and Redis."""
        return self.proxies[self.nodes.index(node)]

    async def start(self) -> None:
        """Start everything; return when the balancer finds all nodes ready."""
        await self.redis.start()
        for proxy in self.proxies:
            proxy.start()
        await asyncio.gather(*map(self.start_node, self.nodes))
        await self.balancer.start()

    async def start_node(self, node: Node) -> None:
        """Start a node, again or for the first time."""
        self.lives[node.id] += 1
        await node.start(START_SECONDS)

    async def all_up(self) -> None:
        """Wait until the balancer sends clients to every node."""
        for node in self.nodes:
            await self.balancer.state(node, "UP", START_SECONDS)

    def close(self) -> None:
        """End everything at once, whatever state it is in."""
        self.balancer.close()
        for node in self.nodes:
            node.close()
        for proxy in self.proxies:
            proxy.close()
        self.redis.close()

    def _node(self, number: int, proxy: Proxy) -> Node:
        rules: list[dict[str, Any]] = [{"match": "kept-*", "history": HISTORY, "ttl": TTL}]
        return Node(
            proxy,
            id=f"node-{number}",
            handler="relay:Relay",
            channels=rules,
            jwt_secret=SECRET,
            allow_anonymous=True,
            drain_seconds=5,
            log_level="warning",
        )
