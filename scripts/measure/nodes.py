"""Runs some nodes of the simulation: `nodes.py REDIS_URL CONNECTIONS NODES NUMBER...`, orders on stdin as JSON lines.

Each is a whole node of the gateway but for its sockets. Every order is answered by one line.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import uvloop

from gateway import Connection, Settings
from gateway.backplane import Target
from gateway.node.node import Node
from gateway.node.service import NodeService
from gateway.server.admin.views import VIEWS
from measure.population import UNHEARD, Population

PATIENCE = 3600.0
AT_ONCE = 200
"""Clients of one process that come or go at the same time."""
PROBE = 0.002


class Simulated(NodeService):
    """A node whose connections have no sockets."""

    def __init__(self, url: str, population: Population, number: int) -> None:
        super().__init__(Settings(redis_url=url, node_id=population.node(number), startup_timeout=PATIENCE))
        self._population = population
        self._numbers = population.held(number)
        self._made = super()._build()
        self._made.directory.patience = PATIENCE  # nodes that share a core are slower than those that do not

    def _build(self) -> Node:
        """Run what was filled."""
        return self._made

    def fill(self) -> None:
        """Hold all its connections, before it runs: Redis hears of them when it does."""
        for number in self._numbers:
            self._arrive(self._population.connection(number), self._population.channels(number))

    async def subscribe(self) -> None:
        """Hear what its members and users are to hear."""
        wanted = [Target("channel", name) for name in self._made.hub.channels]
        wanted += [Target("user", id) for id in self._made.hub.users]
        for start in range(0, len(wanted), AT_ONCE):
            await self._made.backplane.subscribe(wanted[start : start + AT_ONCE])

    async def come(self, number: int) -> None:
        """Do for a connection all that is done for one that comes."""
        connection = self._population.connection(number)
        self._made.hub.add(connection)
        await self._made.membership.admit(connection, self._population.channels(number))

    async def go(self, number: int) -> None:
        """Do all that is done when a connection breaks; return once Redis knows."""
        connection = self._made.hub.connections[self._population.id(number)]
        self._made.membership.drop(connection)
        await self._made.presence.leave(connection.info(), "nowhere")  # written behind all else

    def some(self, count: int) -> list[int]:
        """Return as many numbers of its connections."""
        return list(self._numbers[:count])

    def _arrive(self, connection: Connection, channels: tuple[str, ...]) -> None:
        self._made.hub.add(connection)
        for channel in channels:
            self._made.hub.join(connection, channel)


class Hold:
    """For how long at most the loop was held: in CPU time, so that what else runs on the machine does not count."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(PROBE)
            now = time.thread_time()
            self.longest = max(self.longest, now - last)
            last = now


class Nodes:
    """All nodes of this process, and what they are told to do."""

    def __init__(self, nodes: list[Simulated]) -> None:
        self._nodes = nodes
        self._hold = Hold()
        self._stack = AsyncExitStack()

    async def run(self) -> None:
        """Carry out orders, which come one at a time, until nobody gives any."""
        for node in self._nodes:
            node.fill()
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)  # as `gateway serve` does
        print("{}", flush=True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hold.watch())
            while line := await asyncio.to_thread(sys.stdin.readline):
                tasks.create_task(self._obey(json.loads(line)))
            os._exit(0)  # nobody is there any more who would tell these nodes to end in good order

    async def _obey(self, order: dict[str, Any]) -> None:
        orders: dict[str, Callable[..., Awaitable[Any]]] = {
            "start": self._start,
            "subscribe": self._subscribe,
            "come": self._come,
            "go": self._go,
            "publish": self._publish,
            "view": self._view,
            "figures": self._figures,
        }
        answer = await orders[order.pop("do")](**order)
        print(json.dumps(answer), flush=True)

    async def _start(self) -> None:
        await asyncio.gather(*(self._stack.enter_async_context(node.running()) for node in self._nodes))

    async def _subscribe(self) -> None:
        await asyncio.gather(*(node.subscribe() for node in self._nodes))

    async def _come(self, each: int) -> int:
        return await self._for_each(Simulated.come, each)

    async def _go(self, each: int) -> int:
        return await self._for_each(Simulated.go, each)

    async def _for_each(self, do: Callable[[Simulated, int], Awaitable[None]], each: int) -> int:
        """Do it for some connections of each node, many at once; return how many those were."""
        todo = [(node, number) for node in self._nodes for number in node.some(each)]
        waiting = iter(todo)

        async def work() -> None:
            for node, number in waiting:
                await do(node, number)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return len(todo)

    async def _publish(self, names: list[str], kind: str) -> None:
        """Write one message to each of these channels or users, some at a time."""
        node = self._nodes[0]
        write = node.write_user if kind == "user" else node.write_channel
        for start in range(0, len(names), AT_ONCE):
            await asyncio.gather(*(write("said", "-" * 80, name) for name in names[start : start + AT_ONCE]))

    async def _view(self, view: str, query: dict[str, str], times: int) -> dict[str, Any]:
        """Look at an admin page; return how long that took each time, and the last picture."""
        seconds, picture = [], {}
        for _ in range(times):
            began = time.perf_counter()
            picture = await VIEWS[view](self._nodes[0], query)
            seconds.append(time.perf_counter() - began)
        return {"seconds": statistics.median(seconds), "longest": max(seconds), "picture": picture}

    async def _figures(self) -> dict[str, float]:
        """Tell what was used and delivered since the start, and the longest hold since this was last asked."""
        longest, self._hold.longest = self._hold.longest, 0.0
        delivered = sum(node.counters.delivered for node in self._nodes)
        counted = {"delivered": delivered, "announced": UNHEARD.announced}
        return {"cpu": time.process_time(), "held": longest, **counted}


async def main(url: str, connections: int, nodes: int, *numbers: int) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    population = Population(connections, nodes)
    await Nodes([Simulated(url, population, number) for number in numbers]).run()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:])))
