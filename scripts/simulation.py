"""Simulate a large cluster on one real Redis; see `scripts/million --help`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import redis.exceptions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import at_least, count
from measure.ledger import Ledger, machine
from measure.node_processes import NodeProcess, start_nodes
from measure.population import Population
from measure.sets import Wrong, differences, settled

from tests.harness.redis import RedisServer

ABOUT = """\
Simulate a cluster of many nodes and connections on one real Redis, without sockets, with the gateway's own code:
whole nodes, whose connections write to nowhere. Each connection is in three channels: one of ten members, one of
5,000, and one with a tenth of everybody; one user in twenty has two connections.

Measured are Redis' memory; how fast connections come and go; what a message costs Redis; the pages an operator looks
at; how Redis is filled again after FLUSHALL; and how one node cleans up after another that was killed. After each
step all sets of presence must have exactly the members they should have: exit code 1 if not.

Redis has a core of its own. All nodes share the others: what they do together takes longer here than on machines of
their own. So the CPU of the node that asks, and that of each node it asks, are given beside the time.
"""
CHURN = 50
"""One connection in so many goes and comes again."""
PUBLISHED = 20_000
"""Messages to measure a publication by."""
QUIET = 6.0
"""Seconds in which nothing happens: two renewals of each lease."""
TIMES = 5
"""How often each page is looked at."""
DEADLINE = 900.0
UNLIMITED = "pubsub 0 0 0"  # a subscriber that is only busy is not to be cut off


class Simulation:
    """One run."""

    def __init__(self, population: Population, server: RedisServer, ledger: Ledger) -> None:
        self._population = population
        self._server = server
        self._ledger = ledger
        self._alive = tuple(range(population.nodes))
        self._processes: list[NodeProcess] = []

    async def run(self, shares: int) -> None:
        population = self._population
        self._processes = await start_nodes(self._server.url, population, shares)
        try:
            self._ledger.watch(self._processes)
            await self._fill()
            await self._churn()
            await self._publish()
            await self._look()
            await self._refill()
            await self._reap()
        finally:
            for process in self._processes:
                await process.kill()

    async def _all(self, do: str, **arguments: object) -> list[Any]:
        return await asyncio.gather(*(process.order(do, **arguments) for process in self._processes))

    async def _right(self) -> None:
        """Check every set. Raises `Wrong`."""
        wrong = await differences(self._server, self._population, self._alive)
        if wrong:
            raise Wrong("; ".join(wrong[:5]))

    async def _count(self, what: str) -> int:
        return sum(int(figures[what]) for figures in await self._all("figures"))

    async def _fill(self) -> None:
        count, ledger = self._population.connections, self._ledger
        empty = await ledger.memory()
        async with ledger.step("registered", count):
            await self._all("start")
        filled = await ledger.memory()
        async with ledger.step("subscribed"):
            await self._all("subscribe")
        await self._right()
        subscribed = await ledger.memory()
        topics = await ledger.subscriptions()
        ledger.note("redis_bytes_per_connection", (filled - empty) / count)
        ledger.note("redis_bytes_per_subscription", (subscribed - filled) / topics)
        ledger.note("redis_subscriptions_per_connection", topics / count)
        ledger.note("redis_bytes", subscribed)
        async with ledger.step("quiet"):
            await asyncio.sleep(QUIET)

    async def _churn(self) -> None:
        each = max(1, self._population.connections // self._population.nodes // CHURN)
        for do, what in (("go", "gone"), ("come", "come")):
            async with self._ledger.step(what, each * self._population.nodes):
                await self._all(do, each=each)
        await self._right()

    async def _publish(self) -> None:
        crowds = max(1, self._population.connections // 5000)
        users = [self._population.user(number) for number in range(1, self._population.connections, 7)]
        for what, kind, names in (
            ("published to nobody", "channel", ["nowhere"] * PUBLISHED),
            ("published to a node", "user", (users * (PUBLISHED // len(users) + 1))[:PUBLISHED]),
            ("published to all nodes", "channel", [f"crowd-{number % crowds}" for number in range(PUBLISHED // 50)]),
        ):
            async with self._ledger.step(what, len(names)):
                await self._processes[0].order("publish", names=names, kind=kind)
                await self._quiet()

    async def _quiet(self) -> None:
        """Wait until all that was published is delivered."""
        before = -1
        while before != (now := await self._count("delivered")):
            before = now
            await asyncio.sleep(0.2)

    async def _look(self) -> None:
        """Look at the pages from one node, as an operator would."""
        population = self._population
        everybody, far = population.connections, population.id(population.nodes - 1)
        expected = population.expected(self._alive)
        await self._page("overview", "overview", totals=("totals", "connections", everybody))
        first = await self._page("newest connections", "connections", totals=("total", everybody))
        assert first["items"]
        by_name = await self._page("connections by name", "connections", sort="name", order="up")
        await self._page(
            "their next page",
            "connections",
            sort="name",
            order="up",
            cursor=by_name["cursor"],
            totals=("total", everybody),
        )
        await self._page("text that few have", "connections", text=f"name {everybody - 1}", totals=("total", 1))
        await self._page(
            "connections of a channel",
            "connections",
            channel="crowd-0",
            totals=("total", expected["members"]["crowd-0"]),
        )
        await self._page("connections of a user", "user", name=population.user(0), totals=("total", 1))
        await self._page("largest channels", "channels", totals=("items", 0, "members", _most(expected["members"])))
        await self._page("channels by name", "channels", sort="name", prefix="chat-1")
        await self._page("users by id", "users")
        await self._page("users with most connections", "users", sort="size", totals=("items", 0, "connections", 2))
        await self._page(
            "a large channel", "channel", name="news-0", totals=("channel", "members", expected["members"]["news-0"])
        )
        await self._page("one connection", "connection", name=far, totals=("connection", "id", far))

    async def _page(
        self, what: str, view: str, *, totals: tuple[object, ...] | None = None, **query: str
    ) -> dict[str, Any]:
        """Look at one page, and check one value of it: a path, and what must be there."""
        async with self._ledger.page(what) as page:
            seen = await self._processes[0].order("view", view=view, query=query, times=TIMES)
            page.update(seconds=seen["seconds"], longest=seen["longest"], times=TIMES)
        picture: dict[str, Any] = seen["picture"]
        if picture.get("silent"):
            raise Wrong(f"{what}: {len(picture['silent'])} nodes were silent")
        if totals is not None:
            *path, wanted = totals
            found: Any = picture
            for part in path:
                found = found[part]
            if found != wanted:
                raise Wrong(f"{what}: expected {wanted}, got {found}")
        return picture

    async def _refill(self) -> None:
        """Lose all data. The nodes find that out when they renew their leases."""
        before = await self._count("announced")
        await self._server.command("FLUSHALL", "ASYNC")
        async with self._ledger.step("refilled after FLUSHALL", self._population.connections):
            await settled(self._server, self._population, self._alive, DEADLINE)
        await self._right()
        if announced := await self._count("announced") - before:
            raise Wrong(f"refilling announced somebody to {announced} members")

    async def _reap(self) -> None:
        """Kill the node that has a process to itself."""
        doomed, lost, self._alive = self._processes.pop(), self._alive[-1], self._alive[:-1]
        lease = f"gateway:node:{self._population.node(lost)}"
        async with self._ledger.step("until the lease of a killed node ran out"):
            await doomed.kill()
            self._ledger.watch(self._processes)
            while await self._server.command("EXISTS", lease):  # noqa: ASYNC110 - Redis does not say when
                await asyncio.sleep(0.05)
        async with self._ledger.step("reaped", len(self._population.held(lost))):
            await settled(self._server, self._population, self._alive, DEADLINE)
        await self._right()


def _most(sizes: dict[str, int]) -> int:
    return max(sizes.values())


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/million",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("--connections", type=at_least(200), default=1_000_000, help="how many in all (1,000,000)")
    option("--nodes", type=at_least(3), default=50, help="on how many nodes (50)")
    option("--processes", type=count, default=2, help="that share all nodes but two (2)")
    option("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser.parse_args(arguments)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    population = Population(options.connections, options.nodes)
    server = RedisServer(client_output_buffer_limit=UNLIMITED, slowlog_log_slower_than=1000, slowlog_max_len=10_000)
    await server.start()
    _give_own_core(server.process.pid)
    try:
        async with Ledger.opened(server) as ledger:
            await Simulation(population, server, ledger).run(options.processes)
            command = " ".join(["scripts/million", *sys.argv[1:]])
            return {**await machine(server), "command": command, **vars(options), **ledger.figures()}
    finally:
        server.close()


def _give_own_core(redis: int) -> None:
    """Keep everything else off one core: Redis counts as work of a command what it waits for a core meanwhile."""
    *others, own = sorted(os.sched_getaffinity(0))
    if others:
        os.sched_setaffinity(redis, [own])
        os.sched_setaffinity(0, others)


def main() -> int:
    options = parse(sys.argv[1:])
    try:
        report = asyncio.run(measure(options))
    except (Wrong, OSError, redis.exceptions.RedisError) as failure:
        print(f"scripts/million: {failure}", file=sys.stderr)
        return 1
    print(Ledger.table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, default=str) + "\n")
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
