"""The simulation of a large cluster, small: it runs to its end, and would say if any set were wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.harness.process import output_of
from tests.harness.redis import RedisServer

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.append(str(SCRIPTS))

from measure.population import Population  # noqa: E402
from measure.sets import differences  # noqa: E402

CONNECTIONS, NODES = 4000, 4


@pytest.mark.slow
async def test_every_step_ends_with_exactly_the_sets_there_should_be(tmp_path: Path) -> None:
    """It ends with 0 only after it has compared them."""
    report = tmp_path / "report.json"
    size = ("--connections", str(CONNECTIONS), "--nodes", str(NODES))
    command = [sys.executable, str(SCRIPTS / "simulation.py"), *size, "--json", str(report)]
    written = await output_of(command, deadline=100)
    assert "| reaped" in written
    figures = json.loads(report.read_text())
    counts = {step: figures["steps"][step]["count"] for step in ("registered", "refilled after FLUSHALL", "reaped")}
    assert counts == {"registered": 4000, "refilled after FLUSHALL": 4000, "reaped": 1000}
    assert all(page["ms"] > 0 for page in figures["pages"].values())
    assert 500 < figures["figures"]["redis_bytes_per_connection"] < 3000


async def test_each_kind_of_wrong_set_is_found(redis: RedisServer) -> None:
    """A member too few or too many, a stranger in another's place, a key that should be gone."""
    population = Population(300, 3)
    await fill(redis, population)
    alive = (0, 1, 2)
    assert await differences(redis, population, alive) == []
    one, other, user = population.id(0), "somebody~else", population.user(10)
    for harm, repair in (
        (("SREM", "gateway:online:chat-1", user), ("SADD", "gateway:online:chat-1", user)),
        (("SADD", "gateway:users", other), ("SREM", "gateway:users", other)),
        (("SADD", "gateway:members:gone", other), ("DEL", "gateway:members:gone")),
        (("SET", "gateway:connection:gone", 1), ("DEL", "gateway:connection:gone")),
    ):
        await redis.command(*harm)
        assert len(await differences(redis, population, alive)) == 1, harm
        await redis.command(*repair)
    await redis.command("SREM", "gateway:members:chat-0", one)
    await redis.command("SADD", "gateway:members:chat-0", other)
    assert await differences(redis, population, alive) == [
        "gateway:members:chat-0 has other members than it should have"
    ]


async def fill(redis: RedisServer, population: Population) -> None:
    """Write the sets by hand, by the names that are documented."""
    async with redis.client() as client, client.pipeline(transaction=False) as pipeline:
        for number in range(population.connections):
            id, user, node = population.id(number), population.user(number), population.node(number % population.nodes)
            pipeline.sadd("gateway:nodes", node)
            pipeline.sadd(f"gateway:node:{node}:connections", id)
            pipeline.sadd("gateway:users", user)
            pipeline.sadd(f"gateway:user:{user}:connections", id)
            pipeline.hset(f"gateway:connection:{id}", "node", node)
            for channel in population.channels(number):
                pipeline.sadd("gateway:channels", channel)
                pipeline.sadd(f"gateway:members:{channel}", id)
                pipeline.sadd(f"gateway:online:{channel}", user)
        await pipeline.execute()
