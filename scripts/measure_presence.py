"""Measure presence with many connections registered: `python scripts/measure_presence.py [CONNECTIONS]`.

Fills a Redis of its own through the product's own registry, without sockets, and prints what a connection in
three channels costs there, how fast connections are written, and how long the cluster-wide questions take.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from gateway.backplane import open_backplane
from gateway.config import Settings
from gateway.connection import ConnectionInfo, make_id
from gateway.counters import Counters
from gateway.hub import Hub
from gateway.presence import Presence, open_presence
from tests.harness.redis import RedisServer

CHANNELS = 1000
PAGE = 100


def connection(node: str, number: int) -> ConnectionInfo:
    """Make up a connection of an identified user in three channels."""
    channels = tuple(f"room-{(number * k) % CHANNELS}" for k in (1, 7, 13))
    id = make_id(node, f"{number:010x}")
    return ConnectionInfo(id, node, f"user-{number}", f"Name {number}", channels, 1_800_000_000_000, "192.0.2.1")


async def fill(presence: Presence, node: str, count: int) -> None:
    """Register connections in chunks, so that no queue overflows."""
    for start in range(0, count, 5000):
        done: list[Awaitable[object]] = []
        for number in range(start, min(start + 5000, count)):
            info = connection(node, number)
            done.append(presence.open(info, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"))
            done += [presence.join(info, channel) for channel in dict.fromkeys(info.channels)]
        await asyncio.gather(*done)


async def first_page(items: AsyncIterator[object]) -> None:
    """Take as many as a page shows."""
    count = 0
    async for _ in items:
        count += 1
        if count == PAGE:
            return


async def timed(what: str, do: Callable[[], Awaitable[object]]) -> None:
    """Print how long something takes: the median of 20, and the longest."""
    spent = []
    for _ in range(20):
        began = time.perf_counter()
        await do()
        spent.append((time.perf_counter() - began) * 1000)
    print(f"{what:40} {statistics.median(spent):8.1f} ms  (longest {max(spent):.1f})")


async def measure(count: int) -> None:
    """Start Redis, fill it, ask."""
    server = RedisServer()
    await server.start()
    settings = Settings(redis_url=server.url, node_id="gateway-7d9f8c6b5-x2x4q")
    backplane = open_backplane(settings)
    presence = open_presence(settings, backplane, Hub(), Counters())
    tasks = [asyncio.create_task(backplane.run()), asyncio.create_task(presence.run())]
    try:
        await presence.ready()
        empty = int((await server.client().info("memory"))["used_memory"])
        began = time.perf_counter()
        await fill(presence, settings.node_id, count)
        seconds = time.perf_counter() - began
        used = int((await server.client().info("memory"))["used_memory"]) - empty
        print(f"{'connections':40} {count:8}")
        print(f"{'Redis bytes a connection':40} {used / count:8.0f}")
        print(f"{'connections registered a second':40} {count / seconds:8.0f}")
        await timed("status counts", presence.count)
        await timed(f"first {PAGE} connections", lambda: first_page(presence.connections()))
        await timed(f"first {PAGE} of a channel", lambda: first_page(presence.members("room-7")))
        await timed(f"first {PAGE} online in a channel", lambda: first_page(presence.online("room-7")))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        server.close()


if __name__ == "__main__":
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
