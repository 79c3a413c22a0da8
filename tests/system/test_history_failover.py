"""History through failovers: Redis itself may lose the newest messages, and gives out their offsets again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.harness.client import Client, Clients, Message
from tests.harness.cluster import RedisCluster
from tests.harness.feed import JSON, MSGPACK, RULES, Feed, flows, join, numbered, params, saw
from tests.harness.node import Nodes
from tests.harness.numbered import running
from tests.harness.sentinel import Sentinels

pytestmark = pytest.mark.redis

StartNodes = Callable[..., Awaitable[Nodes]]


async def _members(connect: Clients, nodes: Nodes) -> list[Client]:
    members = [await connect(node, protocols=[protocol]) for node in nodes for protocol in (JSON, MSGPACK)]
    for member in members:
        await join(member)
        await join(member, "loose")
    return members


async def _survives(
    url: str, fail: Callable[[], Awaitable[object]], start_nodes: StartNodes, connect: Clients, *, planned: bool
) -> None:
    nodes = await start_nodes(2, url, channels=RULES)
    members = await _members(connect, nodes)
    async with running(url, publish_queue=0, publish_timeout=30) as backplane:
        feed = Feed(backplane)
        async with feed.flowing():
            await flows(members[0], feed, "kept")
            await fail()
            for member in members:
                await flows(member, feed, "kept")
        for member in members:
            await saw(member, feed.sent)
    for member in members:
        assert_whole(member.received)
        assert len(params(member.received)) >= feed.sent - (0 if planned else 100)
    late = await connect(nodes[0], "kept", protocols=[JSON])
    offsets = [message["offset"] for message in (await late.request("$history", None, "kept"))["param"]["messages"]]
    assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))


def assert_whole(received: list[Message]) -> None:
    """Fail if a message is missing, doubled or out of order, unless a `$gap` in front of it ends the epoch."""
    last, told = 0, True
    for message in [m for m in received if m["cmd"] == "$gap" or m in numbered([m])]:
        if message["channel"] != "kept":
            continue
        if message["cmd"] == "$gap":
            told = message["param"]["epoch"] != message["param"]["since"]["epoch"]
            continue
        assert told or message["param"] == last + 1, f"{last} is followed by {message}"
        last, told = message["param"], False


async def test_a_killed_master_of_sentinel(sentinels: Sentinels, start_nodes: StartNodes, connect: Clients) -> None:
    """The replica goes on where it stands."""
    await _survives(sentinels.url, sentinels.kill_master, start_nodes, connect, planned=False)


async def test_a_planned_one_of_a_cluster(cluster: RedisCluster, start_nodes: StartNodes, connect: Clients) -> None:
    """Nothing at all is lost."""
    key = "gateway:channel:{kept}"
    await _survives(cluster.url, lambda: cluster.failover(key), start_nodes, connect, planned=True)


async def test_a_killed_master_of_a_cluster(cluster: RedisCluster, start_nodes: StartNodes, connect: Clients) -> None:
    """Its replica takes the slots over."""
    key = "gateway:channel:{kept}"
    await _survives(cluster.url, lambda: cluster.kill_master(key), start_nodes, connect, planned=False)
