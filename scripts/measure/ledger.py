"""What each step of the simulation cost: time, Redis' CPU, the nodes' CPU, and for how long others had to wait."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from measure.node_processes import NodeProcess
from measure.results import table
from tests.harness.redis import RedisServer

PROBE = 0.01
"""Seconds between the PINGs of one more client."""
Figures = dict[str, float]


class Ledger:
    """Measures steps, and keeps what came of them."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._processes: Sequence[NodeProcess] = ()
        self._pings: list[float] = []
        self._steps: dict[str, dict[str, Any]] = {}
        self._pages: dict[str, Figures] = {}
        self._notes: Figures = {}

    @classmethod
    @asynccontextmanager
    async def opened(cls, server: RedisServer) -> AsyncIterator[Ledger]:
        """Open one, with a client that notices how long Redis lets it wait."""
        async with server.client(socket_timeout=60) as client:
            ledger = cls(client)
            probe = asyncio.create_task(ledger._probe(server))
            try:
                yield ledger
            finally:
                probe.cancel()
                await asyncio.wait((probe,))

    def watch(self, processes: Sequence[NodeProcess]) -> None:
        """Count the CPU of these."""
        self._processes = list(processes)

    def note(self, name: str, value: float) -> None:
        self._notes[name] = round(value, 2)
        print(name, round(value), file=sys.stderr)

    async def memory(self) -> int:
        return int((await self._client.info("memory"))["used_memory"])

    async def subscriptions(self) -> int:
        """Count what all clients are subscribed to."""
        return sum(int(client["sub"]) for client in await self._client.client_list())

    @asynccontextmanager
    async def step(self, what: str, count: int = 0) -> AsyncIterator[None]:
        """Measure a step that does something so many times."""
        await self._client.slowlog_reset()
        self._pings.clear()
        began, redis, nodes = time.perf_counter(), await self._redis_cpu(), await self._figures()
        yield
        took = time.perf_counter() - began
        figures: dict[str, Any] = {"count": count, "seconds": round(took, 2)}
        figures["redis_cpu"] = round(await self._redis_cpu() - redis, 3)
        after = await self._figures()
        figures["nodes_cpu"] = round(sum(now["cpu"] - then["cpu"] for now, then in zip(after, nodes, strict=False)), 2)
        figures["held_ms"] = round(1000 * max(now["held"] for now in after), 1)
        pings = sorted(self._pings) or [0.0]
        figures["ping_p99_ms"] = round(1000 * pings[int(0.99 * len(pings))], 1)
        figures["ping_longest_ms"] = round(1000 * pings[-1], 1)
        figures |= await self._slowest()
        self._steps[what] = figures
        print(what, figures, file=sys.stderr)  # a whole run takes minutes

    @asynccontextmanager
    async def page(self, what: str) -> AsyncIterator[Figures]:
        """Measure a page that is looked at some times; the caller adds the seconds and how often."""
        before, redis = await self._figures(), await self._redis_cpu()
        page: Figures = {}
        yield page
        after, times = await self._figures(), page["times"]
        asker, *others = (now["cpu"] - then["cpu"] for now, then in zip(after, before, strict=True))
        nodes = sum(process.nodes for process in self._processes[1:])
        figures = self._pages[what] = {
            "ms": round(1000 * page["seconds"], 1),
            "longest_ms": round(1000 * page["longest"], 1),
            "asker_cpu_ms": round(1000 * asker / times, 1),
            "node_cpu_ms": round(1000 * sum(others) / nodes / times, 1),
            "redis_cpu_ms": round(1000 * (await self._redis_cpu() - redis) / times, 1),
            "held_ms": round(1000 * after[0]["held"], 1),
        }
        print(what, figures, file=sys.stderr)

    def figures(self) -> dict[str, Any]:
        return {"figures": self._notes, "steps": self._steps, "pages": self._pages}

    # ----

    async def _probe(self, server: RedisServer) -> None:
        async with server.client(socket_timeout=60) as client:
            while True:
                began = time.perf_counter()
                await client.ping()
                self._pings.append(time.perf_counter() - began)
                await asyncio.sleep(PROBE)

    async def _redis_cpu(self) -> float:
        used = await self._client.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    async def _figures(self) -> list[Figures]:
        return list(await asyncio.gather(*(process.order("figures") for process in self._processes)))

    async def _slowest(self) -> dict[str, Any]:
        """Name the command that held Redis longest, if any held it for a millisecond."""
        entries = await self._client.slowlog_get(10_000)
        ours = [entry for entry in entries if not entry["command"].startswith((b"SLOWLOG", b"INFO"))]
        slowest = max(ours, key=lambda entry: entry["duration"], default=None)
        if slowest is None:
            return {"slowest_ms": 0.0, "slowest": ""}
        words = slowest["command"].decode(errors="replace").split(" ")
        return {"slowest_ms": slowest["duration"] / 1000, "slowest": " ".join(words[:4])[:80]}

    # ---- for people

    @staticmethod
    def table(report: dict[str, Any]) -> str:
        """Write a report as tables."""
        steps = [_step(what, figures) for what, figures in report["steps"].items()]
        pages = [[what, *(f"{value:,.1f}" for value in figures.values())] for what, figures in report["pages"].items()]
        notes = [[name.replace("_", " "), f"{value:,.0f}"] for name, value in report["figures"].items()]
        return "\n\n".join(
            (
                table(["figure", f"{report['connections']:,} connections, {report['nodes']} nodes"], notes),
                table(["step", "times", "s", "a second", "Redis us", "nodes us", "slowest ms", "ping p99 ms"], steps),
                table(["page", "ms", "longest", "CPU asker", "CPU each node", "CPU Redis", "loop held"], pages),
            )
        )


def _step(what: str, figures: dict[str, Any]) -> list[str]:
    count, seconds = figures["count"], figures["seconds"]
    each = [f"{figures[cpu] / count * 1e6:,.1f}" if count else "" for cpu in ("redis_cpu", "nodes_cpu")]
    rate = f"{count / seconds:,.0f}" if count and seconds else ""
    slow = (f"{figures['slowest_ms']:.1f}", f"{figures['ping_p99_ms']:.1f}")
    return [what, f"{count:,}" if count else "", f"{seconds:,.1f}", rate, *each, *slow]


async def machine(server: RedisServer) -> dict[str, Any]:
    """Say when and on what this was measured."""
    async with server.client() as client:
        version = (await client.info("server"))["redis_version"]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} shared {platform.machine()} cores",
        "python": platform.python_version(),
        "redis": version,
    }
