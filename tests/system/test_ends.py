"""How connections and nodes end: by a stopping node, by a reader who is too slow, by everybody leaving."""

from __future__ import annotations

import re
from functools import partial

import pytest

from tests.harness.client import Client
from tests.harness.sets import Sets
from tests.harness.wait import eventually


async def test_a_stopping_node_sends_its_clients_away_and_leaves_no_keys(own_redis, start_nodes, connect):
    """SIGTERM: 1012 with differing `retry_after` within 5 s, exit code 0, and nothing of the node left in Redis."""
    stopping, other = await start_nodes(2, own_redis)
    clients = [await connect(stopping, "ends") for _ in range(20)]
    await eventually(lambda: own_redis.command("SCARD", "gateway:members:ends"))
    await stopping.stop()
    reasons = {(await client.expect_close(1012)).reason for client in clients}
    pauses = {float(found.group(1)) for reason in reasons if (found := re.search(r"retry_after=([\d.]+)", reason))}
    assert len(pauses) > 1
    assert all(0 <= pause <= 5 for pause in pauses)
    assert stopping.process.exit_code == 0

    async def left() -> set[str]:
        async with own_redis.client() as client:
            return {key async for key in client.scan_iter("gateway:*")}

    assert await left() - {"gateway:events", "gateway:rules"} == {"gateway:nodes", f"gateway:node:{other.id}"}
    assert await own_redis.command("SMEMBERS", "gateway:nodes") == {other.id}


async def test_sets_can_be_read_by_hand_and_are_empty_again(nodes, connect):
    """While clients are there SMEMBERS shows them; after everybody left nothing of them remains."""
    clients = [await connect(node, "readable", protocols=["gateway.v1.json"]) for node in nodes]
    ids = {(await client.expect("$welcome"))["param"]["connection"] for client in clients}
    assert set((await nodes.redis.cli("SMEMBERS", "gateway:members:readable")).split()) == ids
    assert set((await nodes.redis.cli("SMEMBERS", "gateway:online:readable")).split()) == ids
    assert (await nodes.redis.cli("SISMEMBER", "gateway:channels", "readable")).strip() == "1"
    for client in clients:
        await client.close()

    async def is_empty() -> bool:
        async with nodes.redis.client() as client:
            return await Sets.read(client) == Sets()

    await eventually(is_empty)


async def test_who_reads_too_slowly_is_closed_and_nobody_waits(redis, start_node, connect, wire):
    """A client that reads nothing is closed with 4008 once its outbox is full; the others get everything."""
    node = await start_node(redis, outbox_bytes=1_000_000, message_rate=0, handler="relay:Relay")
    publisher = await connect(node, "flood")
    others = await connect.many(5, node, "flood")
    slow = await wire(node, "flood")
    for client in others:
        await client.send("hello", channel="flood")
        await client.expect("hello")
    for number in range(1, 401):
        await publisher.send("bulk", {"number": number, "text": "x" * 50_000}, channel="flood")
        if number % 4 == 0:  # so that only who reads nothing falls behind
            for client in (publisher, *others):
                await eventually(partial(_has_all, client, number), deadline=30)

    async def is_counted() -> bool:
        return "gateway_slow_consumers_total 1.0" in (await node.get("/metrics")).text

    await eventually(is_counted, deadline=20)
    slow.close()


def _has_all(client: Client, count: int) -> bool:
    return sum(message["cmd"] == "bulk" for message in client.received) == count


async def test_a_client_that_sends_no_pong_is_closed(redis, start_node, wire):
    """A connection silent for a whole heartbeat is closed with 4408."""
    node = await start_node(redis, heartbeat=0.5)
    client = await wire(node, "silent")
    assert (await client.read_close(deadline=20)).close_code == 4408

    async def is_counted() -> bool:
        told = (await node.get("/metrics")).text
        return 'gateway_closes_total{code="4408"} 1.0' in told and "gateway_pongs_missed_total 1.0" in told

    await eventually(is_counted)


@pytest.mark.parametrize(("code", "counted"), [(1000, "1000"), (1008, "1008"), (3001, "other"), (4408, "other")])
async def test_what_a_client_closes_with_is_no_word_of_the_node_s(start_node, connect, code, counted):
    """No client can make it look as if the node had missed a pong."""
    node = await start_node()
    await (await connect(node, "goodbye")).close(code)

    async def is_counted() -> bool:
        told = (await node.get("/metrics")).text
        return f'gateway_closes_total{{code="{counted}"}} 1.0' in told and "gateway_pongs_missed_total 0.0" in told

    await eventually(is_counted)


async def test_a_node_that_has_crashed_ends(redis, start_node, connect):
    """It would take clients in and bring them nothing: they are sent elsewhere, and a supervisor may start another."""
    node = await start_node(redis, handler="tests.handlers.crashing:Crashing", drain_seconds=1)
    client = await connect(node, "ends")
    await client.send("break")
    await client.expect_close(1012)
    assert await node.process.wait() == 1
    assert "the node has crashed" in node.output
    assert "LookupError: broken" in node.output
