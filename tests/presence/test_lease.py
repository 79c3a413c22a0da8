"""A node's own place in the cluster: what its lease survives, and that it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from gateway.errors import Unavailable
from gateway.presence.lease import Lease
from gateway.presence.redis import RedisPresence
from tests.harness.presence import PresenceNode
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually


@pytest.fixture
async def node(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PresenceNode]:
    """A node that renews its lease many times a second."""
    monkeypatch.setattr("gateway.presence.lease.PERIOD", 0.05)
    async with PresenceNode(redis_url, id="lone").running() as node:
        yield node


def _lease(node: PresenceNode) -> Lease:
    return cast(RedisPresence, node.presence).lease


async def test_scripts_that_redis_has_forgotten_are_given_again(redis: RedisServer, node: PresenceNode) -> None:
    """SCRIPT FLUSH by hand: nobody comes or goes, and the lease is renewed all the same."""
    await redis.command("SCRIPT", "FLUSH")
    await redis.command("EXPIRE", "gateway:node:lone", 5)

    async def is_renewed() -> bool:
        return await redis.command("TTL", "gateway:node:lone") > 5

    await eventually(is_renewed)


async def test_a_node_that_has_ended_does_not_come_back(redis: RedisServer, node: PresenceNode) -> None:
    """Its application may live on for a while."""
    await node.presence.close()
    _lease(node).register_again()
    await asyncio.sleep(0.3)
    assert await redis.command("SMEMBERS", "gateway:nodes") == set()
    assert not await redis.command("EXISTS", "gateway:node:lone")


async def test_a_return_that_fails_half_way_is_announced_by_the_next(
    redis: RedisServer, node: PresenceNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others were told that its users had left."""
    silences: list[bool] = []
    lease = _lease(node)
    write_all = lease._write_all

    async def fail_once(*, silent: bool) -> None:
        silences.append(silent)
        if len(silences) == 1:
            raise Unavailable("the link broke")
        await write_all(silent=silent)

    monkeypatch.setattr(lease, "_write_all", fail_once)
    await redis.command("SET", "gateway:reaped:lone", 1)
    lease.register_again()
    await eventually(lambda: len(silences) == 2)
    assert silences == [False, False]

    async def is_forgotten() -> bool:
        return not await redis.command("EXISTS", "gateway:reaped:lone")

    await eventually(is_forgotten)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_data_lost_in_mid_registration_are_written_again(
    redis: RedisServer, node: PresenceNode, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Between the lease and the connections, or behind them: the lease is lost with the rest, which is noticed."""
    ada, lease = await node.somebody("ada", "hall"), _lease(node)
    write_all, lost = lease._write_all, list[str]()

    async def lose(moment: str) -> None:
        if moment == when and not lost:
            lost.append(moment)
            await redis.command("FLUSHALL")

    async def lose_in_between(*, silent: bool) -> None:
        await lose("before")
        await write_all(silent=silent)
        await lose("after")

    monkeypatch.setattr(lease, "_write_all", lose_in_between)
    lease.register_again()
    keys = ("gateway:node:lone", f"gateway:connection:{ada.id}", "gateway:members:hall", "gateway:online:hall")

    async def is_written() -> bool:
        return bool(lost) and await redis.command("EXISTS", *keys) == len(keys)

    await eventually(is_written)


async def test_who_writes_everything_again_takes_nobody_for_dead(
    redis: RedisServer, node: PresenceNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes: others lost their leases with it, and are about to find out."""
    lease, written = _lease(node), asyncio.Event()

    async def write_slowly(*, silent: bool) -> None:
        await written.wait()

    monkeypatch.setattr(lease, "_write_all", write_slowly)
    monkeypatch.setattr("gateway.presence.redis.LOOK", 0.1)
    lease.steady_since -= 60
    await redis.command("FLUSHALL")
    await eventually(lambda: lease.registering)
    await redis.command("SADD", "gateway:nodes", "other")
    await asyncio.sleep(1.5)  # a look that was due in a second, and some more
    assert await redis.command("SISMEMBER", "gateway:nodes", "other")
    written.set()
