"""Measure the lists of the admin pages and the API: `python scripts/measure_search.py [CONNECTIONS]`.

Fills a hub with connections of identified users in three channels each, without sockets, asks for pages as a
node does, and prints how much CPU and time a page takes, and for how long at most the event loop was held meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.harness.directory import open_directory

TIMES = 20


async def longest_hold(stop: asyncio.Event) -> float:
    """Turn with the loop, and return the longest time between two turns, in milliseconds."""
    longest, last = 0.0, time.perf_counter()
    while not stop.is_set():
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return longest * 1000


async def timed(what: str, ask: Callable[[], Awaitable[Any]]) -> None:
    """Print how long a question takes."""
    spent, stop = [], asyncio.Event()
    watch, used = asyncio.create_task(longest_hold(stop)), time.process_time()
    for _ in range(TIMES):
        began = time.perf_counter()
        await ask()
        spent.append((time.perf_counter() - began) * 1000)
    used = (time.process_time() - used) * 1000 / TIMES
    stop.set()
    spent.sort()
    p50, p95 = statistics.median(spent), spent[int(0.95 * len(spent))]
    print(f"{what:40} {used:7.1f} {p50:7.1f} {p95:7.1f} {spent[-1]:7.1f} {await watch:9.1f}")


async def measure(count: int) -> None:
    """Fill a node, and ask it."""
    directory = open_directory(count)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # as `gateway serve` does
    connections, channels, users = directory.find_connections, directory.find_channels, directory.find_users
    cursor = (await connections(sort="name")).cursor
    print(f"{f'{count} connections, ms':40} {'CPU':>7} {'p50':>7} {'p95':>7} {'longest':>7} {'loop held':>9}")
    await timed("first page", connections)
    await timed("newest first", partial(connections, descending=True))
    await timed("by name", partial(connections, sort="name"))
    await timed("by name, next page", partial(connections, sort="name", cursor=cursor))
    await timed("by number of channels, 1000 rows", partial(connections, sort="channels", limit=1000))
    await timed("text that few have", partial(connections, text="name 4711"))
    await timed("text that all have, by user", partial(connections, text="X2X4", sort="user"))
    await timed("address", partial(connections, remote="192.0.2.77"))
    await timed("of one channel", partial(connections, channel="room-7"))
    await timed("of one user", partial(connections, user="user-7"))
    await timed("channels by name", channels)
    await timed("channels by members", partial(channels, sort="size"))
    await timed("users by id", partial(users, "user-1"))
    await timed("users by connections", partial(users, sort="size"))


if __name__ == "__main__":
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
