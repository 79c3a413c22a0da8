"""A handler that blocks its node's event loop is named, and the node is not taken for dead."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import redis as redis_client

from gateway.operations.watchdog import WINDOW, Beats, LoopLag, innermost
from tests.handlers.blocking import slow_query
from tests.harness.client import Clients
from tests.harness.cluster import RedisCluster
from tests.harness.embedded import Embedded
from tests.harness.node import Node, Nodes
from tests.harness.redis import RedisServer
from tests.harness.sentinel import Sentinels
from tests.harness.wait import eventually

V1 = ["gateway.v1.json"]
LEASE = 10.0


async def test_who_blocks_the_loop_is_named(
    redis: RedisServer, start_node: Callable[..., Awaitable[Node]], connect: Clients
) -> None:
    """One line while it happens: the connection, the command, the place in the application's code."""
    node = await start_node(redis, handler="blocking:Blocking")
    client = await connect(node, protocols=V1)
    id = (await client.expect("$welcome"))["param"]["connection"]
    assert (await client.request("slow\n\x1b[31m", {"seconds": 3}))["cmd"] == "$reply"
    line = next(line for line in node.output.splitlines() if "stands still" in line)
    assert f"connection={id} cmd='slow\\n\\x1b[31m' in blocking.py:" in line
    assert " slow_query < blocking.py:" in line
    assert line.endswith(" on")
    metrics = (await node.get("/metrics")).text
    assert "gateway_loop_stalls_total 1.0" in metrics


async def test_a_node_whose_handler_blocks_for_longer_than_its_lease_keeps_its_members(
    own_redis: RedisServer, start_nodes: Callable[..., Awaitable[Nodes]], connect: Clients
) -> None:
    """The other node reaps nothing and announces nobody, and the client gets its answer."""
    blocked, other = await start_nodes(2, own_redis, handler="blocking:Blocking", message_rate=0)
    witness = await connect(other, "lobby", protocols=V1)
    await witness.expect("$welcome")
    client = await connect(blocked, "lobby", protocols=V1)
    await witness.expect("online-update")
    members = await own_redis.command("SMEMBERS", "gateway:members:lobby")
    assert len(members) == 2
    answer = await client.request("slow", {"seconds": LEASE + 5}, deadline=40)
    assert answer["param"] == "done"
    assert await own_redis.command("SMEMBERS", "gateway:members:lobby") == members
    assert await own_redis.command("SMEMBERS", "gateway:nodes") == {blocked.id, other.id}
    assert "has no lease" not in other.output
    assert "registered anew" not in blocked.output
    await client.send("chat", {"text": "still here"}, channel="lobby")
    await witness.expect("chat")
    await witness.expect_nothing_but("$gap")


Embed = Callable[[str], Awaitable[Embedded]]


async def renewed(embedded: Embedded, server: RedisServer, key: str) -> float:
    """Renew a lease that has a minute left, without letting the event loop turn; return what is left of it then."""
    with redis_client.Redis(host="127.0.0.1", port=server.port) as client:
        client.expire(key, 60)
        embedded.service.node.presence.hold()
        return float(client.ttl(key))


@pytest.fixture
async def embed() -> AsyncIterator[Embed]:
    """Starts nodes in this process."""
    started: list[Embedded] = []

    async def start(url: str) -> Embedded:
        started.append(Embedded(url, node_id="node-a"))
        await started[-1].start()
        return started[-1]

    yield start
    for embedded in started:
        await embedded.stop()


async def test_the_lease_is_renewed_without_the_loop(redis: RedisServer, embed: Embed) -> None:
    """Over a connection of its own."""
    assert await renewed(await embed(redis.url), redis, "gateway:node:node-a") == LEASE


async def test_it_is_renewed_at_the_master_that_sentinel_named(sentinels: Sentinels, embed: Embed) -> None:
    """The URL names no master."""
    embedded = await embed(sentinels.url)
    assert await renewed(embedded, await sentinels.master(), "gateway:node:node-a") == LEASE


async def test_it_is_renewed_at_the_master_of_its_slot(small_cluster: RedisCluster, embed: Embed) -> None:
    """Wherever in the cluster that is."""
    embedded = await embed(small_cluster.url)
    key = "gateway:node:{node-a}"
    assert await renewed(embedded, await small_cluster.master_of(key), key) == LEASE


async def test_the_lease_of_another_process_is_not_renewed(redis: RedisServer, embed: Embed) -> None:
    """Nor is one that is gone made anew."""
    embedded = await embed(redis.url)
    with redis_client.Redis(host="127.0.0.1", port=redis.port) as client:
        client.hset("gateway:node:node-a", "incarnation", "another")
        client.expire("gateway:node:node-a", 60)
        embedded.service.node.presence.hold()
        assert client.ttl("gateway:node:node-a") == 60
        client.delete("gateway:node:node-a")
        embedded.service.node.presence.hold()
        assert not client.exists("gateway:node:node-a")


def test_the_innermost_places_are_those_of_the_application() -> None:
    """From where it is to where the gateway called it; of a deep stack both ends."""

    def deep(levels: int) -> list[str]:
        return deep(levels - 1) if levels else innermost(sys._getframe())

    places = deep(8)
    assert len(places) == 5
    assert places[0].startswith("test_watchdog.py:")
    assert places[0].endswith(" deep")
    assert places[2] == "..."
    assert innermost(None) == []


def test_the_lag_remembers_the_worst_of_about_a_minute() -> None:
    """The last, and the most of this span of time and the one before."""
    beats = Beats()
    assert beats.lag == LoopLag(0.0, 0.0)
    for late in (0.5, *[0.1] * WINDOW):
        beats.beat(late)
    assert beats.lag == LoopLag(0.1, 0.5)
    for _ in range(WINDOW):
        beats.beat(0.2)
    assert beats.lag == LoopLag(0.2, 0.2)


async def test_a_service_tells_how_late_its_loop_is(embed: Embed) -> None:
    """For the metrics and the admin pages."""
    embedded = await embed("memory://")
    slow_query(0.3)

    async def noticed() -> bool:
        return embedded.service.node.beats.lag.most > 0.01

    await eventually(noticed)
