"""Compares the sets of presence with what they must have."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from measure.population import NEWS, Population
from tests.harness.redis import RedisServer

AT_ONCE = 5000
SAMPLE = 200
"""Channels whose members are compared by name, not only by number."""
SIZES = "local sizes = {} for i = 1, #KEYS do sizes[i] = redis.call('SCARD', KEYS[i]) end return sizes"


class Wrong(Exception):
    """A set has not what it must have."""


async def differences(server: RedisServer, population: Population, alive: tuple[int, ...]) -> list[str]:
    """Compare every set there is; say what is wrong."""
    expected = population.expected(alive)
    keys = {
        "gateway:nodes": len(alive),
        "gateway:channels": len(expected["members"]),
        "gateway:users": len(expected["user"]),
        **{f"gateway:node:{name}:connections": size for name, size in expected["node"].items()},
        **{f"gateway:user:{name}:connections": size for name, size in expected["user"].items()},
        **{f"gateway:members:{name}": size for name, size in expected["members"].items()},
        **{f"gateway:online:{name}": size for name, size in expected["online"].items()},
    }
    sizes = await _sizes(server, list(keys))
    wrong = [
        f"{key}: expected {size}, got {found}"
        for (key, size), found in zip(keys.items(), sizes, strict=True)
        if size != found
    ]
    wrong += await _other_keys(server, set(keys), sum(expected["node"].values()))
    return wrong + await _strangers(server, population, alive, list(expected["members"])[:SAMPLE])


async def settled(server: RedisServer, population: Population, alive: tuple[int, ...], seconds: float) -> None:
    """Wait until a few sets, which are right last, have as many members as they must have."""
    expected, deadline = population.expected(alive), time.monotonic() + seconds
    keys = {
        "gateway:nodes": len(alive),
        "gateway:users": len(expected["user"]),
        **{f"gateway:node:{name}:connections": size for name, size in expected["node"].items()},
        **{f"gateway:members:news-{n}": expected["members"][f"news-{n}"] for n in range(NEWS)},
    }
    while (sizes := await _sizes(server, list(keys))) != list(keys.values()):
        if time.monotonic() > deadline:
            raise Wrong(f"not settled within {seconds:g} s: {dict(zip(keys, sizes, strict=True))}")
        await asyncio.sleep(0.1)


async def _sizes(server: RedisServer, keys: Sequence[str]) -> list[int]:
    sizes: list[int] = []
    async with server.client(socket_timeout=60) as client:
        for some in _slices(keys):
            sizes += await client.eval(SIZES, len(some), *some)
    return sizes


async def _other_keys(server: RedisServer, known: set[str], connections: int) -> list[str]:
    """Look at the keys that are no such sets: as many connections as there are, and no sets that should be gone."""
    kinds, strangers = Counter[str](), []
    async with server.client(socket_timeout=60) as client:
        async for key in client.scan_iter(count=AT_ONCE):
            kind = key.split(":", 2)[1]
            kinds[kind] += 1
            if kind in ("members", "online", "user") and key not in known:
                strangers.append(f"{key} should not be there")
    if kinds["connection"] != connections:
        strangers.append(f"gateway:connection:*: expected {connections}, got {kinds['connection']}")
    return strangers


async def _strangers(
    server: RedisServer, population: Population, alive: tuple[int, ...], channels: list[str]
) -> list[str]:
    """Compare the members of some channels one by one."""
    wanted = {
        channel: {population.id(number) for number in population.members(channel) if number % population.nodes in alive}
        for channel in channels
    }
    async with server.client(socket_timeout=60) as client:
        return [
            f"gateway:members:{channel} has other members than it should have"
            for channel, ids in wanted.items()
            if await client.smembers(f"gateway:members:{channel}") != ids
        ]


def _slices(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE))
