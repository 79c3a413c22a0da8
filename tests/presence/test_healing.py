"""Presence after nodes were killed or frozen and Redis lost its data: the sets are right again, by themselves."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import pytest

from tests.harness.client import Client
from tests.harness.redis import RedisServer
from tests.harness.sets import Held, address, agrees, farewells
from tests.harness.wait import eventually

HANDLER = "named:Named"


async def test_a_killed_node_is_cleaned_up_and_announced_once(own_redis, start_nodes, crowd, connect):
    """A killed node's 5,000 connections leave every set, and each other member hears each farewell exactly once."""
    doomed, *others = await start_nodes(3, own_redis, handler=HANDLER, log_level="warning")
    lost: Held = [(f"user-{i % 2000}", [f"room-{i % 500}"]) for i in range(5000)]
    tabs: Held = [(f"user-{i}", [f"room-{i % 500}"]) for i in range(200)]
    await crowd.join(address(doomed, user, channels) for user, channels in lost)
    await crowd.join(address(others[0], user, channels) for user, channels in tabs)
    watching: Held = [(f"watcher-{n}", [f"room-{n * 100 + i}" for i in range(100)]) for n in range(5)]
    watchers = [await connect(address(others[n % 2], user, channels)) for n, (user, channels) in enumerate(watching)]
    await agrees(own_redis, [*lost, *tabs, *watching], 30)
    await own_redis.command("CONFIG", "RESETSTAT")

    await doomed.kill()
    await agrees(own_redis, [*tabs, *watching], 40)

    gone = {(channels[0], user) for user, channels in lost} - {(channels[0], user) for user, channels in tabs}
    for (_, channels), watcher in zip(watching, watchers, strict=True):
        due = {farewell for farewell in gone if farewell[0] in channels}
        await eventually(partial(_has_heard, watcher, due), deadline=20)
        assert farewells(watcher) == Counter(due)
    assert await _scripts_run(own_redis) >= len(lost), "one command may clean up after one connection, no more"


async def _scripts_run(redis: RedisServer) -> int:
    async with redis.client() as client:
        return int((await client.info("commandstats"))["cmdstat_evalsha"]["calls"])


def _has_heard(client: Client, due: set[tuple[str, str]]) -> bool:
    return due <= farewells(client).keys()


async def test_a_reaper_that_dies_is_followed_by_another(own_redis, start_nodes, crowd, connect):
    """Two nodes killed one after the other, the second while it may be reaping the first, leave nothing behind."""
    first, second, survivor = await start_nodes(3, own_redis, handler=HANDLER, log_level="warning")
    held: Held = [(f"user-{i}", [f"room-{i % 20}", "hall"]) for i in range(600)]
    await crowd.join(address((first, second)[i % 2], user, channels) for i, (user, channels) in enumerate(held))
    watcher = await connect(address(survivor, "watcher", ["hall"]))
    await agrees(own_redis, [*held, ("watcher", ["hall"])], 30)

    await first.kill()

    async def first_is_dead() -> bool:
        return not await own_redis.command("EXISTS", f"gateway:node:{first.id}")

    await eventually(first_is_dead, deadline=30)
    await second.kill()
    await agrees(own_redis, [("watcher", ["hall"])], 60)
    await eventually(lambda: len(farewells(watcher)) == 600, deadline=10)
    assert set(farewells(watcher).values()) == {1}


async def test_a_frozen_node_comes_back_with_all_it_holds(own_redis, start_nodes, crowd, connect):
    """A node frozen until the others have cleaned up after it writes everything again, and its users return."""
    frozen, other = await start_nodes(2, own_redis, handler=HANDLER, log_level="warning", heartbeat=0)
    held: Held = [(f"user-{i}", ["hall", f"room-{i % 7}"]) for i in range(50)]
    await crowd.join(address(frozen, user, channels) for user, channels in held)
    watcher = await connect(address(other, "watcher", ["hall"]))
    here: Held = [("watcher", ["hall"])]
    await agrees(own_redis, [*held, *here], 20)

    frozen.freeze()
    await agrees(own_redis, here, 40)
    frozen.thaw()
    await agrees(own_redis, [*held, *here], 20)

    await eventually(lambda: len(farewells(watcher)) == 50, deadline=5)
    assert set(farewells(watcher).values()) == {1}
    assert crowd.open == 50


@pytest.mark.parametrize("how", ["flush", "restart"])
async def test_lost_data_is_written_again_and_nobody_is_announced(own_redis, start_nodes, crowd, connect, how):
    """After FLUSHALL, or a restart without persistence, every node refills Redis in silence."""
    nodes = await start_nodes(2, own_redis, handler=HANDLER, log_level="warning")
    held: Held = [(f"user-{i % 150}", [f"room-{i % 9}", "hall"]) for i in range(400)]
    await crowd.join(address(nodes[i % 2], user, channels) for i, (user, channels) in enumerate(held))
    watcher = await connect(address(nodes[0], "watcher", ["hall"]))
    held = [*held, ("watcher", ["hall"])]
    await agrees(own_redis, held, 20)
    await watcher.send("ping")
    await watcher.expect("pong")
    before = len(watcher.received)

    if how == "flush":
        await own_redis.command("FLUSHALL")
    else:
        await own_redis.restart()
    await agrees(own_redis, held, 30)

    await watcher.send("ping")
    await watcher.expect("pong", deadline=10)
    assert [message["cmd"] for message in watcher.received[before:]] == ["pong"]


async def test_a_node_restarted_under_the_same_name_leaves_no_ghosts(own_redis, start_node, crowd):
    """A process killed and started again at once under its old node id removes what the old one held."""
    old = await start_node(own_redis, id="same", handler=HANDLER)
    await crowd.join(address(old, f"user-{i}", ["hall"]) for i in range(30))
    await agrees(own_redis, [(f"user-{i}", ["hall"]) for i in range(30)], 20)
    await old.kill()
    new = await start_node(own_redis, id="same", handler=HANDLER)
    await crowd.join([address(new, "user-0", ["hall"])])
    await agrees(own_redis, [("user-0", ["hall"])], 10)


async def test_grace_hides_a_reload_and_outlives_the_node_that_saw_it(own_redis, start_nodes, connect):
    """Within the grace a user may move to another node unnoticed; who does not return is announced once."""
    doomed, *others = await start_nodes(3, own_redis, handler=HANDLER, presence_grace=10, log_level="warning")
    watcher = await connect(address(others[1], "watcher", ["hall"]))
    await watcher.send("ping")
    await watcher.expect("pong")
    comes_back = await connect(address(doomed, "ada", ["hall"]))
    stays_away = await connect(address(doomed, "bob", ["hall"]))
    leaves = await connect(address(doomed, "eve", ["hall"]))
    for _ in range(3):
        await watcher.expect("online-update")
    await leaves.send("leave-room", {"room": "hall"})
    await watcher.expect("online-update")
    assert farewells(watcher) == {("hall", "eve"): 1}

    await comes_back.drop()
    await stays_away.drop()
    await agrees(own_redis, [("watcher", ["hall"]), ("eve", [])], 10)
    for key in ("gateway:leaving", "gateway:leaving:hall"):  # has an end, should no node be left to announce it
        assert await own_redis.command("PTTL", key) > 3_000_000
    await doomed.kill()
    back = await connect(address(others[0], "ada", ["hall"]))
    await eventually(lambda: ("hall", "bob") in farewells(watcher), deadline=40)
    await agrees(own_redis, [("watcher", ["hall"]), ("ada", ["hall"])], 40)

    assert farewells(watcher) == {("hall", "eve"): 1, ("hall", "bob"): 1}
    arrivals = [
        m["param"]["userID"] for m in watcher.received if m["cmd"] == "online-update" and m["param"]["connected"]
    ]
    assert sorted(arrivals) == ["ada", "bob", "eve"]
    assert back.closed is None


async def test_a_crowd_is_counted_and_costs_linear_traffic(own_redis, start_nodes, crowd, connect):
    """When thousands join one channel at once, members hear counts, once a second at most, the last one right."""
    nodes = await start_nodes(2, own_redis, handler=HANDLER, presence_max=100, log_level="warning")
    watcher = await connect(address(nodes[0], "watcher", ["hall"]))
    loop = asyncio.get_running_loop()
    began = loop.time()
    await crowd.join((address(nodes[i % 2], f"user-{i}", ["hall"]) for i in range(3000)), at_once=500)
    await eventually(lambda: _counts(watcher)[-1:] == [3001], deadline=30)
    seconds = loop.time() - began
    assert len(_counts(watcher)) <= seconds + 2
    named = sum(message["cmd"] == "online-update" for message in watcher.received)
    assert named <= 100
    assert crowd.messages <= 3000 * (named + len(_counts(watcher)))


def _counts(client: Client) -> list[int]:
    return [message["param"]["count"] for message in client.received if message["cmd"] == "online-count"]


async def test_a_redis_that_cannot_save_gets_all_that_it_missed(own_redis, start_nodes, crowd):
    """While it takes no writes (MISCONF) leases end, clients come and go; afterwards the sets are as they should be."""
    nodes = await start_nodes(2, own_redis, handler=HANDLER, log_level="error")
    before: Held = [(f"user-{i}", [f"room-{i % 5}"]) for i in range(50)]
    leaving: Held = [(f"guest-{i}", [f"room-{i % 5}"]) for i in range(50)]
    coming: Held = [(f"late-{i}", [f"room-{i % 7}"]) for i in range(50)]
    await crowd.join(address(nodes[i % 2], user, channels) for i, (user, channels) in enumerate(before))
    others = await crowd.join(address(nodes[i % 2], user, channels) for i, (user, channels) in enumerate(leaving))
    await agrees(own_redis, [*before, *leaving], 20)

    await own_redis.break_saving()
    await eventually(lambda: _are_gone(own_redis, *(f"gateway:node:{node.id}" for node in nodes)), deadline=30)
    for member in others:
        member.drop()
    await crowd.join(address(nodes[i % 2], user, channels) for i, (user, channels) in enumerate(coming))
    await own_redis.mend_saving()

    await agrees(own_redis, [*before, *coming], 40)


async def _are_gone(redis: RedisServer, *keys: str) -> bool:
    return not await redis.command("EXISTS", *keys)


async def test_quiet_connections_cost_redis_nothing(own_redis, start_nodes, crowd):
    """Three nodes send Redis as many commands with 1,500 quiet connections as with none."""
    nodes = await start_nodes(3, own_redis, handler=HANDLER, log_level="warning", heartbeat=2)
    await eventually(lambda: _looks_for_the_dead(own_redis), deadline=30)
    idle = await _commands_sent(own_redis, 8)
    await crowd.join(address(nodes[i % 3], f"user-{i}", [f"room-{i % 100}"]) for i in range(1500))
    await agrees(own_redis, [(f"user-{i}", [f"room-{i % 100}"]) for i in range(1500)], 30)
    busy = await _commands_sent(own_redis, 8)
    assert busy <= idle * 1.3


async def _looks_for_the_dead(redis: RedisServer) -> bool:
    """Tell whether all that a quiet node does has begun: it looks for dead ones once a lease's time is over."""
    async with redis.client() as client:
        return "cmdstat_exists" in await client.info("commandstats")


async def _commands_sent(redis: RedisServer, seconds: float) -> int:
    """Count the commands Redis carries out in a while: a rate, so here time is what is measured."""

    async def total() -> int:
        async with redis.client() as client:
            return int((await client.info("stats"))["total_commands_processed"])

    before = await total()
    await asyncio.sleep(seconds)
    return await total() - before
