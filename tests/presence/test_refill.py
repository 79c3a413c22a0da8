"""A node that writes everything it holds: however much that is, it stays in its place meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.errors import Unavailable
from gateway.presence import lease, reaper
from gateway.presence.listing import SECONDS
from gateway.presence.redis import RedisPresence
from gateway.presence.registry import described
from gateway.redis import pipeline
from gateway.redis.keys import Keys
from gateway.redis.records import Record, Rejections
from gateway.redis.store import Store
from tests.harness.presence import PresenceNode, Somebody
from tests.harness.redis import RedisServer
from tests.harness.sets import Held, agrees
from tests.harness.wait import eventually

HELD: Held = [(f"user-{number % 90}", ["hall", f"room-{number % 7}"]) for number in range(100)]
AT_ONCE = 10


@pytest.fixture
async def node(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PresenceNode]:
    """A node that holds HELD, ten times what it writes at once and twice what may wait, and has begun to run."""
    monkeypatch.setattr(lease, "AT_ONCE", AT_ONCE)
    monkeypatch.setattr(pipeline, "MOST_WAITING", len(HELD) // 2)
    node = PresenceNode(redis_url)
    for user, channels in HELD:
        somebody = Somebody(node, user, "")
        for channel in channels:
            node.hub.join(somebody.connection, channel)
    async with node.running():
        yield node


async def test_a_node_may_hold_more_than_may_wait_for_redis(redis: RedisServer, node: PresenceNode) -> None:
    """It writes its connections some at a time, and drops none."""
    await agrees(redis, HELD, 10)


async def test_the_lease_does_not_run_out_while_a_node_is_written(redis: RedisServer, node: PresenceNode) -> None:
    """It is renewed each time that some connections are written, and so is the claim on the node."""
    await redis.command("CONFIG", "RESETSTAT")
    await redis.command("FLUSHALL")
    assert isinstance(node.presence, RedisPresence)
    await agrees(redis, HELD, 10)

    async def renewals() -> bool:
        async with redis.client() as client:
            return int((await client.info("commandstats"))["cmdstat_expire"]["calls"]) > len(HELD) // AT_ONCE

    await eventually(renewals)
    assert 0 < await redis.command("TTL", f"gateway:node:{node.settings.node_id}") <= SECONDS


async def test_nobody_is_dead_to_a_node_whose_own_lease_is_gone(redis: RedisServer, node: PresenceNode) -> None:
    """Redis has lost its data then; a node with a lease cleans up."""
    ghost = "ghost~1"
    await redis.command("SADD", "gateway:node:ghost:connections", ghost)
    await redis.command("SADD", "gateway:nodes", "ghost")
    presence = node.presence
    assert isinstance(presence, RedisPresence)
    await presence.reaper.reap_dead("without-a-lease")
    assert await redis.command("SMEMBERS", "gateway:node:ghost:connections") == {ghost}
    await presence.reaper.reap_dead(node.settings.node_id)
    assert await redis.command("SMEMBERS", "gateway:nodes") == {node.settings.node_id}
    assert not await redis.command("EXISTS", "gateway:node:ghost:connections")


async def test_what_a_node_holds_that_comes_back_is_not_removed(
    redis: RedisServer, node: PresenceNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was frozen while it cleaned up after it goes on no further: a tenth is gone, the rest is not."""
    presence, dead = node.presence, [f"ghost~{number}" for number in range(10)]
    await redis.command("SADD", "gateway:node:ghost:connections", *dead)
    await redis.command("SADD", "gateway:nodes", "ghost")

    async def found_late(store: Store, keys: Keys, id: str, rejections: Rejections) -> Record:
        await redis.command("HSET", "gateway:node:ghost", "incarnation", "another")
        return await described(store, keys, id, rejections)

    monkeypatch.setattr(reaper, "AT_ONCE", 1)
    monkeypatch.setattr(reaper, "described", found_late)
    assert isinstance(presence, RedisPresence)
    with pytest.raises(Unavailable, match="node ghost has come back"):
        await presence.reaper.reap_dead(node.settings.node_id)
    assert await redis.command("SCARD", "gateway:node:ghost:connections") == len(dead) - 1
    assert await redis.command("SISMEMBER", "gateway:nodes", "ghost")
    assert not await redis.command("EXISTS", "gateway:claim:ghost")


async def test_writing_everything_again_changes_nothing(redis: RedisServer, node: PresenceNode) -> None:
    """A user with two tabs is online until both have left, however often they were written."""
    assert isinstance(node.presence, RedisPresence)
    await redis.command("FLUSHALL")
    for _ in range(3):
        await node.presence.lease.register()
    await agrees(redis, HELD, 10)
    first, second = (connection for connection in node.hub if connection.user == "user-0")
    await node.presence.leave(first.info(), "hall")
    assert await redis.command("SISMEMBER", "gateway:online:hall", "user-0")
    await node.presence.leave(second.info(), "hall")
    assert not await redis.command("SISMEMBER", "gateway:online:hall", "user-0")
