"""Presence on a Redis Cluster of three masters: the same sets, the same healing, over many slots."""

from __future__ import annotations

import time
from collections import Counter

from tests.harness.presence import PresenceNode
from tests.harness.sets import Held, address, agrees, farewells
from tests.harness.wait import eventually

HANDLER = "named:Named"


async def test_sets_equal_reality_while_connections_come_and_go(small_cluster, start_nodes, crowd, connect):
    """Joins and leaves on two nodes reach every set, wherever in the cluster it lives, and empty it again."""
    nodes = await start_nodes(2, small_cluster, handler=HANDLER, log_level="warning")
    held: Held = [(f"user-{i % 60}", [f"room-{i % 9}", f"den-{i % 4}"]) for i in range(200)]
    members = await crowd.join(address(nodes[i % 2], user, channels) for i, (user, channels) in enumerate(held))
    watcher = await connect(address(nodes[0], "watcher", ["room-0"]))
    await agrees(small_cluster, [*held, ("watcher", ["room-0"])], 30)
    for member in members[100:]:
        member.drop()
    await agrees(small_cluster, [*held[:100], ("watcher", ["room-0"])], 30)
    gone = {user for user, rooms in held[100:] if "room-0" in rooms} - {
        u for u, rooms in held[:100] if "room-0" in rooms
    }
    await eventually(lambda: farewells(watcher) == Counter(("room-0", user) for user in gone), deadline=10)
    crowd.close()
    await watcher.close()
    await agrees(small_cluster, [], 30)


async def test_a_killed_node_is_cleaned_up_and_announced_once(small_cluster, start_nodes, crowd, connect):
    """What a killed node held leaves every set, and each farewell is heard exactly once."""
    doomed, *others = await start_nodes(3, small_cluster, handler=HANDLER, log_level="warning")
    lost: Held = [(f"user-{i}", [f"room-{i % 20}", "hall"]) for i in range(400)]
    await crowd.join(address(doomed, user, channels) for user, channels in lost)
    here: Held = [("watcher", ["hall"]), ("user-7", ["hall"])]
    watcher = await connect(address(others[0], "watcher", ["hall"]))
    await connect(address(others[1], "user-7", ["hall"]))
    await agrees(small_cluster, [*lost, *here], 30)

    await doomed.kill()
    await agrees(small_cluster, here, 40)

    due = Counter(("hall", f"user-{i}") for i in range(400) if i != 7)
    await eventually(lambda: farewells(watcher) == due, deadline=10)


async def test_farewells_that_nobody_is_left_to_announce_are_dropped(small_cluster, start_nodes, connect):
    """When the last node stops within the grace, what waits in Redis has an end."""
    (node,) = await start_nodes(1, small_cluster, handler=HANDLER, presence_grace=600, log_level="warning")
    await connect(address(node, "ada", ["hall"]))
    await agrees(small_cluster, [("ada", ["hall"])], 20)
    assert await node.stop() == 0
    async with small_cluster.client() as client:
        for key in ("gateway:leaving", "gateway:leaving:{hall}"):
            assert 600_000 < await client.pttl(key) <= 4_200_000


async def test_a_frozen_node_and_a_flushed_cluster_are_refilled(small_cluster, start_nodes, crowd):
    """A node taken for dead, and then masters that lost everything, are written again in full."""
    frozen, other = await start_nodes(2, small_cluster, handler=HANDLER, log_level="warning", heartbeat=0)
    held: Held = [(f"user-{i}", ["hall", f"room-{i % 7}"]) for i in range(100)]
    await crowd.join(address((frozen, other)[i % 2], user, channels) for i, (user, channels) in enumerate(held))
    await agrees(small_cluster, held, 20)

    frozen.freeze()
    await agrees(small_cluster, held[1::2], 40)
    frozen.thaw()
    await agrees(small_cluster, held, 30)

    for master in await small_cluster.masters():
        await master.command("FLUSHALL")
    await agrees(small_cluster, held, 30)


async def test_a_departure_of_which_the_answer_was_lost_reaches_all_masters(small_cluster):
    """Repeated, it finds nobody there: the channel is empty all the same, and its farewell due."""
    async with PresenceNode(small_cluster.url, presence_grace=600).running() as node, small_cluster.client() as client:
        ada = await node.somebody("ada", "hall")
        await eventually(lambda: client.sismember("gateway:channels", "hall"), deadline=10)
        ends = round(time.time() * 1000) + 600_000
        await client.srem("gateway:members:{hall}", ada.id)  # what the script does before its link breaks
        await client.srem("gateway:online:{hall}", "ada")
        await client.zadd("gateway:leaving:{hall}", {"ada": ends})

        await ada.lose()

        async def is_known() -> bool:
            is_listed = await client.sismember("gateway:channels", "hall")
            return not is_listed and await client.zscore("gateway:leaving", "hall") == ends

        await eventually(is_known, deadline=10)
