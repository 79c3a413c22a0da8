"""What nodes count, against what clients saw.

Between two moments at which nothing is under way, with no fault between them, sums are exact for each node:

- `messages_delivered_total` rose by what came over the sockets of its clients, answers to requests aside;
- `messages_published_total` and `messages_received_total` rose by what its clients wrote and were answered;
- `connections` is how many clients it has, and `connections_opened_total` less `connections_closed_total` as well.

Across faults they cannot be: what was written to a socket that broke was not read, what a client missed is written to
it alone, and the last counts of a node that is killed die with it. What always holds, for a node's life that lasts to
the end: its clients heard from it no more than `messages_delivered_total` and `messages_recovered_total` together.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.harness import http
from tests.harness.node import Node
from tests.soak.followers import Follower
from tests.soak.scene import Scene
from tests.soak.writers import Writer

PREFIX = "gateway_"
NEVER = ("handler_errors_total", "injections_rejected_total", "slow_consumers_total", "messages_dropped_total")
"""What this load gives no reason for."""

Figures = dict[str, float]


@dataclass(frozen=True)
class Moment:
    """All counts at a moment at which nothing is under way."""

    figures: dict[str, Figures]
    """By the life of a node, what it counts."""
    clients: dict[str, int]
    heard: dict[str, int]
    """Over all connections that its present clients ever had."""
    said: dict[str, int]
    """What its present clients wrote and had an answer to."""
    dials: int


class Sums:
    """Reads the counts of nodes and clients, and compares them."""

    def __init__(self, scene: Scene, followers: Sequence[Follower], says: Sequence[tuple[Follower, Writer]]) -> None:
        self._scene = scene
        self._followers = followers
        self._says = says
        self.stretches = 0
        """Between how many pairs of moments the sums were compared."""
        self.delivered = 0
        """Deliveries that were compared."""

    async def moment(self, deadline: float = 20) -> Moment:
        """Wait until nothing is under way, and read everything."""
        async with asyncio.timeout(deadline):
            before, heard = await self._figures(), self._heard()
            while True:
                await asyncio.sleep(0.2)
                after, heard_after = await self._figures(), self._heard()
                if heard == heard_after and _moving(before) == _moving(after):
                    return await self._taken(after)
                before, heard = after, heard_after

    def compare(self, before: Moment, after: Moment) -> list[str]:
        """Return what does not add up between two moments with no fault between them."""
        wrong = [] if before.dials == after.dials else [f"{after.dials - before.dials} clients came anew in the calm"]
        if wrong or before.clients != after.clients:
            return wrong or [f"clients moved in the calm: {before.clients}, then {after.clients}"]
        self.stretches += 1
        for life, figures in after.figures.items():
            rose = {name: figures[name] - before.figures[life][name] for name in MOVING}
            heard = after.heard[life] - before.heard[life]
            said = after.said[life] - before.said[life]
            self.delivered += heard
            expected = dict(zip(MOVING, (heard, said, said), strict=True))
            wrong += [
                f"{life}: {name} rose by {rose[name]:.0f}, its clients counted {expected[name]}"
                for name in MOVING
                if rose[name] != expected[name]
            ]
        return wrong + self._of_one(after)

    def at_the_end(self, last: Moment) -> list[str]:
        """Return which node, by its counts, wrote less than its clients heard from it."""
        heard: Counter[str] = sum((follower.tally.by_life for follower in self._followers), Counter())
        wrong = []
        for life, figures in last.figures.items():
            written = figures["messages_delivered_total"] + figures["messages_recovered_total"]
            if heard[life] > written:
                wrong.append(f"{life}: clients heard {heard[life]} messages, it counts {written:.0f}")
        return wrong

    def _of_one(self, moment: Moment) -> list[str]:
        wrong = []
        for life, figures in moment.figures.items():
            held = figures["connections_opened_total"] - figures["connections_closed_total"]
            if not held == figures["connections"] == moment.clients[life]:
                counts = f"connections {figures['connections']:.0f}, opened less closed {held:.0f}"
                wrong.append(f"{life}: {counts}, clients {moment.clients[life]}")
            wrong += [f"{life}: {name} is {figures[name]:.0f}" for name in NEVER if figures[name]]
        return wrong

    async def _taken(self, figures: dict[str, Figures]) -> Moment:
        life_of = await self._lives()
        clients, heard, said = Counter[str](), Counter[str](), Counter[str]()
        for follower in self._followers:
            clients[life_of[follower.agent]] += 1
            heard[life_of[follower.agent]] += follower.tally.messages
        for follower, writer in self._says:
            said[life_of[follower.agent]] += writer.accepted
        return Moment(figures, clients, heard, said, sum(f.tally.connections for f in self._followers))

    async def _lives(self) -> dict[str, str]:
        """Ask Redis at which node each client is: a plain one is not told."""
        async with self._scene.redis.client() as redis:
            keys = [key async for key in redis.scan_iter("gateway:connection:*", count=1000)]
            pipeline = redis.pipeline(transaction=False)
            for key in keys:
                pipeline.hmget(key, "agent", "node")
            return {agent: self._scene.life(node) for agent, node in await pipeline.execute()}

    async def _figures(self) -> dict[str, Figures]:
        nodes = self._scene.nodes
        found = await asyncio.gather(*map(figures_of, nodes))
        return {self._scene.life(node.id): figures for node, figures in zip(nodes, found, strict=True)}

    def _heard(self) -> int:
        return sum(follower.tally.messages for follower in self._followers)


MOVING = ("messages_delivered_total", "messages_published_total", "messages_received_total")


def _moving(figures: dict[str, Figures]) -> dict[str, list[float]]:
    return {life: [found[name] for name in MOVING] for life, found in figures.items()}


async def figures_of(node: Node) -> Figures:
    """Read a node's own metrics, those with labels aside."""
    answer = await http.get(node.url("/metrics"))
    rows = (line.split() for line in answer.text.splitlines() if line.startswith(PREFIX) and "{" not in line)
    return {name.removeprefix(PREFIX): float(value) for name, value in rows}
