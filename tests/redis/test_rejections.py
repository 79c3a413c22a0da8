"""Payloads that are no message are counted, and said of in the log once a second at most; others go on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial

import msgpack
from redis.asyncio import Redis

from tests.harness.client import Clients
from tests.harness.node import Node, Nodes
from tests.harness.redis import RedisServer, injection
from tests.harness.wait import eventually

StartNodes = Callable[..., Awaitable[Nodes]]


async def rejected(node: Node) -> int:
    """Return how many payloads a node has rejected so far."""
    found = re.search(r"^gateway_injections_rejected_total (\S+)$", (await node.get("/metrics")).text, re.MULTILINE)
    assert found
    return int(float(found[1]))


async def counts(node: Node, expected: int) -> bool:
    """Tell whether a node has rejected so many."""
    return await rejected(node) == expected


async def publish_all(client: Redis, topic: str, *payloads: str | bytes) -> None:
    async with client.pipeline(transaction=False) as pipeline:
        for payload in payloads:
            pipeline.execute_command("PUBLISH", topic, payload)
        await pipeline.execute()


async def test_a_flood_of_garbage_is_counted_and_hardly_logged(
    redis: RedisServer, start_nodes: StartNodes, connect: Clients
) -> None:
    """Thousands a second among real messages: every message arrives in order, every other payload is counted."""
    nodes = await start_nodes(2, redis)
    members = [await connect(node, "flooded") for node in nodes]
    for member in members:
        await member.send("ping")
        await member.expect("pong")
    began = asyncio.get_running_loop().time()
    async with redis.client() as client:
        for turn in range(100):
            garbage = [
                b"\xff" * 20,
                b"{",
                b'{"cmd": 1}',
                b'{"cmd": "x", "param": 123456789012345678901234567890}',
                b"",
            ] * 10
            await publish_all(client, "gateway:channel:flooded", *garbage, injection("x", turn))
    for member in members:
        assert [(await member.expect("x", deadline=20))["param"] for _ in range(100)] == list(range(100))
    for node in nodes:
        assert await rejected(node) == 5000
        elapsed = asyncio.get_running_loop().time() - began
        assert 1 <= node.output.count("rejected") <= 2 + elapsed
        assert all(len(line) < 500 for line in node.output.splitlines())


async def test_a_word_is_told_what_was_expected(redis: RedisServer, start_nodes: StartNodes, connect: Clients) -> None:
    """Whoever tries it by hand reads it in the log of a node."""
    (node,) = await start_nodes(1, redis)
    member = await connect(node, "tried")
    await member.send("ping")
    await member.expect("pong")
    await redis.command("PUBLISH", "gateway:channel:tried", "hi")
    await eventually(lambda: "channel:tried: expected a JSON object" in node.output and "b'hi'" in node.output)


async def test_a_huge_payload_is_no_more_than_a_payload(
    redis: RedisServer, start_nodes: StartNodes, connect: Clients
) -> None:
    """Megabytes of garbage are one rejection and a short line; megabytes of message arrive."""
    [node] = await start_nodes(1, redis, outbox_bytes=0)
    member = await connect(node, "huge")
    await member.send("ping")
    await member.expect("pong")
    count = 0
    for topic in ("channel:huge", "all", "direct"):
        for payload in (b"{" + b"x" * 5_000_000, b"\x00" * 5_000_000, b"\xdd\x7f\xff\xff\xff" + b"\xc0" * 1_000_000):
            await redis.command("PUBLISH", f"gateway:{topic}", payload)
            count += 1
            await eventually(partial(counts, node, count))
    await redis.publish("gateway:channel:huge", "x", "y" * 5_000_000)
    assert len((await member.expect("x", deadline=30))["param"]) == 5_000_000
    assert len(node.output) < 20_000


async def test_a_message_to_one_connection_must_say_to_which(
    redis: RedisServer, start_nodes: StartNodes, connect: Clients
) -> None:
    """On `direct` there is nobody else to give it to; one for a stranger is no mistake."""
    [node] = await start_nodes(1, redis)
    member = await connect(node, "direct")
    for payload in (injection("x"), injection("x", connection=1), injection("x", connection=None)):
        await redis.command("PUBLISH", "gateway:direct", payload)
    await redis.publish("gateway:direct", "x", connection="nowhere~1")
    await redis.publish("gateway:all", "last")
    await member.expect("last")
    assert await rejected(node) == 3
    assert "x" not in {message["cmd"] for message in member.received}


async def test_what_nodes_say_to_each_other_may_be_forged(
    redis: RedisServer, start_nodes: StartNodes, connect: Clients
) -> None:
    """Maps of the wrong shape, as a node of another version might send, are rejected as everything else is."""
    [node] = await start_nodes(1, redis, node_id="forged")
    member = await connect(node, "talk")
    await member.send("ping")
    await member.expect("pong")
    wishes = [{"tap": "x", "filters": filters} for filters in ([5], [None], 5)]
    questions = [{"ask": "write", "number": "1", "from": "x"}, {"answer": 1, "error": 5}]
    for topic, said in (("nodes", wishes), ("node:forged", questions)):
        for fields in said:
            assert await redis.command("PUBLISH", f"gateway:{topic}", msgpack.packb(fields)) == 1
    await redis.publish("gateway:channel:talk", "last")
    await member.expect("last")
    await eventually(partial(counts, node, len(wishes) + len(questions)))
