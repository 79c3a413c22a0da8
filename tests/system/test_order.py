"""The main job of a cluster: every message to every member, once, and in one order for all."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from tests.harness.client import Client
from tests.harness.wait import eventually

PUBLISHERS, MESSAGES = 3, 10_000
MEMBERS_PER_NODE = 2


async def _publish(client: Client, publisher: int) -> None:
    for number in range(MESSAGES):
        await client.send("number", {"publisher": publisher, "number": number}, channel="race")


async def test_three_publishers_on_three_nodes_are_heard_in_one_order(redis, start_nodes, connect):
    """Of 3 x 10,000 messages no member misses or doubles one, and all members see the same order."""
    limits = {"outbox_bytes": 1 << 26, "message_rate": 0}
    nodes = await start_nodes(3, redis, handler="relay:Relay", log_level="warning", **limits)
    members = [await connect(node, "race") for node in nodes for _ in range(MEMBERS_PER_NODE)]
    publishers = [await connect(node) for node in nodes]

    async def all_joined() -> bool:
        return await redis.command("SCARD", "gateway:members:race") == len(members)

    await eventually(all_joined)

    await asyncio.gather(*(_publish(client, number) for number, client in enumerate(publishers)))

    def all_heard() -> bool:
        return all(len(_numbers(member)) >= PUBLISHERS * MESSAGES for member in members)

    await eventually(all_heard, deadline=90)
    first = _numbers(members[0])
    by_publisher = defaultdict[int, list[int]](list)
    for publisher, number in first:
        by_publisher[publisher].append(number)
    assert dict(by_publisher) == {publisher: list(range(MESSAGES)) for publisher in range(PUBLISHERS)}
    assert all(_numbers(member) == first for member in members)


def _numbers(client: Client) -> list[tuple[int, int]]:
    return [(m["param"]["publisher"], m["param"]["number"]) for m in client.received if m["cmd"] == "number"]
