"""One message to many sockets, on a real node: what it costs Redis, and what slow readers cost others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from tests.harness.client import Clients
from tests.harness.crowd import Crowd
from tests.harness.node import Node
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually
from tests.harness.wire import PING, Wire, Wires

BULK = "x" * 50_000
COUNT = 200
"""Messages: more in all than the kernel keeps for a client, which may be 4 MiB."""
SMALL = 20_000
"""Bytes that the kernel may keep for a client that does not read."""


async def _figure(redis: RedisServer, section: str, name: str) -> int:
    async with redis.client() as client:
        found = await client.info(section)
    figure = found.get(name, 0)
    return int(figure["calls"] if isinstance(figure, dict) else figure)


async def _is_size(redis: RedisServer, key: str, size: int) -> bool:
    return bool(await redis.command("SCARD", key) == size)


class TestRedis:
    async def test_a_message_is_one_publish_however_many_members_there_are(
        self, own_redis: RedisServer, start_nodes: Callable[..., Awaitable[list[Node]]], crowd: Crowd, connect: Clients
    ) -> None:
        """On whatever nodes they are."""
        nodes = await start_nodes(2, own_redis, handler="burst:Burst", message_rate=0)
        await crowd.join(node.ws_url("many") for node in nodes for _ in range(100))
        writer = await connect(nodes[0], "many", protocols=["gateway.v1.json"])
        await writer.expect("$welcome")
        await eventually(lambda: _is_size(own_redis, "gateway:members:many", 201))
        calls = partial(_figure, own_redis, "commandstats", "cmdstat_publish")
        before, received = await calls(), crowd.messages
        assert (await writer.request("bulk", 50))["param"] == 50
        await eventually(lambda: crowd.messages >= received + 50 * 200)
        beats = 20  # each node hears itself once a second
        assert 50 <= await calls() - before < 50 + beats

    async def test_what_is_written_in_one_turn_of_the_loop_leaves_in_one_write(
        self, own_redis: RedisServer, start_node: Callable[..., Awaitable[Node]], connect: Clients
    ) -> None:
        """500 publications are read by Redis in a few pieces."""
        node = await start_node(own_redis, handler="burst:Burst", message_rate=0)
        writer = await connect(node, "many", protocols=["gateway.v1.json"])
        await writer.expect("$welcome")
        reads = partial(_figure, own_redis, "stats", "total_reads_processed")
        before = await reads()
        assert (await writer.request("bulk", 500))["param"] == 500
        assert await reads() - before < 50

    async def test_a_node_reads_only_what_it_has_members_for(
        self, own_redis: RedisServer, start_nodes: Callable[..., Awaitable[list[Node]]], connect: Clients
    ) -> None:
        """A channel with members on one node is not sent to the other."""
        one, other = await start_nodes(2, own_redis)
        client = await connect(one, "mine", protocols=["gateway.v1.json"])
        await client.expect("$welcome")
        assert await own_redis.command("PUBSUB", "NUMSUB", "gateway:channel:mine") == ["gateway:channel:mine", 1]
        assert (await other.get("/healthz")).status == 200


class TestSlowReaders:
    """Some never read, among many that do."""

    RULES = (
        {"match": "feed", "slow": "drop-oldest"},
        {"match": "ticker", "slow": "keep-latest", "slow_key": "symbol"},
    )

    @pytest.fixture
    async def node(self, redis: RedisServer, start_node: Callable[..., Awaitable[Node]]) -> Node:
        return await start_node(redis, outbox_bytes=400_000, channels=list(self.RULES), heartbeat=0)

    async def test_the_oldest_are_dropped_and_a_gap_tells_it(
        self, node: Node, redis: RedisServer, crowd: Crowd, wire: Wires
    ) -> None:
        """The fast ones miss nothing; the slow ones stay connected and get the newest, in order."""
        await crowd.join(node.ws_url("feed") for _ in range(60))
        slow = [await _reader(wire, node, "feed") for _ in range(20)]
        await _publish(redis, "feed", lambda number: {"number": number}, crowd)
        assert await _metric(node, "messages_dropped_total") > 0
        assert await _metric(node, "slow_consumers_total") == 0
        for found in await asyncio.gather(*(_read_up_to(reader, COUNT - 1) for reader in slow)):
            numbers = [message["param"]["number"] for message in found if message["cmd"] == "bulk"]
            gaps = [message for message in found if message["cmd"] == "$gap"]
            assert numbers == sorted(set(numbers))
            assert len(numbers) < COUNT
            assert gaps[0]["channel"] == "feed"
        assert "reads too slowly, messages are dropped" in node.output

    async def test_the_latest_of_each_key_is_kept(
        self, node: Node, redis: RedisServer, crowd: Crowd, wire: Wires
    ) -> None:
        """Of every symbol the last price arrives, however many were skipped."""
        await crowd.join(node.ws_url("ticker") for _ in range(50))
        slow = await _reader(wire, node, "ticker")
        await _publish(redis, "ticker", lambda number: {"symbol": f"s{number % 2}", "number": number}, crowd)
        found = [message for message in await _read_up_to(slow, COUNT - 1) if message["cmd"] == "bulk"]
        latest = {message["param"]["symbol"]: message["param"]["number"] for message in found}
        assert latest == {f"s{number % 2}": number for number in range(COUNT - 2, COUNT)}
        assert len(found) < COUNT

    async def test_where_nothing_may_be_dropped_they_are_closed(
        self, node: Node, redis: RedisServer, crowd: Crowd, wire: Wires
    ) -> None:
        """4008, which a metric counts; memory stays bounded."""
        await crowd.join(node.ws_url("other") for _ in range(50))
        for _ in range(5):
            await _reader(wire, node, "other")
        await _publish(redis, "other", lambda number: {"number": number}, crowd)
        await eventually(partial(_is_metric, node, "slow_consumers_total", 5), deadline=30)
        assert crowd.open == 50


async def _reader(wire: Wires, node: Node, channel: str) -> Wire:
    """Connect a client that reads no more than its greeting."""
    reader = await wire.open(node, channel, receive_buffer=SMALL)
    await reader.write(reader.upgrade(protocols=["gateway.v1.json"]))
    assert (await reader.read_head()).status == 101
    assert (await reader.read_frame()).json["cmd"] == "$welcome"
    return reader


async def _publish(redis: RedisServer, channel: str, param: Callable[[int], dict[str, object]], crowd: Crowd) -> None:
    """Publish large messages, no faster than the crowd reads: only who reads nothing falls behind."""
    bulk = sum(member.bytes for member in crowd.members)
    async with redis.client() as client:
        for number in range(COUNT):
            message = {"cmd": "bulk", "param": {**param(number), "text": BULK}}
            await client.publish(f"gateway:channel:{channel}", json.dumps(message))
            bulk += len(BULK) * len(crowd.members)
            if number % 4 == 3:
                await eventually(partial(_has_read, crowd, bulk), deadline=30)


def _has_read(crowd: Crowd, size: int) -> bool:
    return sum(member.bytes for member in crowd.members) >= size


async def _read_up_to(reader: Wire, number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        frame = await reader.read_frame(deadline=20)
        if frame.opcode == PING:
            continue
        found.append(frame.json)
        param = found[-1]["param"]
        if isinstance(param, dict) and param.get("number") == number:
            return found


async def _metric(node: Node, name: str) -> float:
    lines = (await node.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"gateway_{name} "))


async def _is_metric(node: Node, name: str, value: float) -> bool:
    return await _metric(node, name) == value
