"""The Redis backplane over Sentinel: every redial finds the master, and an old one is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from gateway.config.redis_url import RedisAddress
from gateway.redis.link import RedisRefused
from gateway.redis.sentinel import SentinelDialer
from tests.harness.client import Clients
from tests.harness.http import get
from tests.harness.node import Node, Nodes
from tests.harness.numbered import load
from tests.harness.sentinel import Sentinels
from tests.harness.wait import eventually

pytestmark = pytest.mark.redis

CHANNELS = ["lobby", "kitchen"]

StartNodes = Callable[..., Awaitable[Nodes]]


class TestFailover:
    async def test_a_planned_one_loses_at_the_gap_only(self, sentinels: Sentinels) -> None:
        """SENTINEL FAILOVER: the old master lives on as a replica, and is left."""
        async with load(sentinels.url, sentinels.url, CHANNELS) as flowing:
            await sentinels.failover()
            await flowing.flows(10)
            await eventually(lambda: not flowing.listener.trouble)
        flowing.lost()
        assert flowing.gaps >= 1

    async def test_a_killed_master_is_replaced(self, sentinels: Sentinels) -> None:
        """What was published before the new master was there waits, and arrives."""
        async with load(sentinels.url, sentinels.url, CHANNELS) as flowing:
            await sentinels.kill_master()
            await flowing.flows(10)
        assert flowing.lost() < 100
        assert sum(map(len, flowing.failed.values())) < 100
        assert flowing.gaps == 1

    async def test_a_frozen_master_is_left(self, sentinels: Sentinels) -> None:
        """The connections to it stay open and say nothing; what was sent over them last may be lost."""
        async with load(sentinels.url, sentinels.url, CHANNELS) as flowing:
            old = await sentinels.master()
            old.freeze()
            await sentinels.replaced(old)
            await flowing.flows(10)
            old.thaw()
            await sentinels.settled()
            await flowing.flows(10)
        flowing.lost()
        assert sum(map(len, flowing.failed.values())) < sum(flowing.sent.values()) / 2


class TestDialing:
    async def test_dead_sentinels_are_passed_over(self, sentinels: Sentinels) -> None:
        """One that answers is enough."""
        for sentinel in sentinels.sentinels[:2]:
            await sentinel.kill(keep_data=True)
        link = await SentinelDialer(RedisAddress.parse(sentinels.url), "test").dial()
        assert link.address == f"127.0.0.1:{(await sentinels.sentinels[2].command('SENTINEL', 'MASTERS'))[0]['port']}"
        link.abort()

    async def test_a_service_that_nobody_knows_is_named(self, sentinels: Sentinels) -> None:
        """The error says what the sentinels were asked for."""
        address = RedisAddress.parse(sentinels.url.replace("/gateway/", "/other/"))
        with pytest.raises(RedisRefused, match="knows no master 'other'"):
            await SentinelDialer(address, "test").dial()


class TestNodes:
    async def test_clients_of_two_nodes_talk_through_a_failover(
        self, sentinels: Sentinels, start_nodes: StartNodes, connect: Clients
    ) -> None:
        """Whole nodes, presence included: sockets stay open, and messages cross again."""
        one, other = await start_nodes(2, sentinels)
        ada, bob = await connect(one, "lobby"), await connect(other, "lobby")
        await sentinels.kill_master()

        async def talks() -> bool:
            await ada.send("chat", {"text": "hello"}, "lobby")
            return bool(await bob.expect("chat", 1))

        await eventually(talks, 20, what="a message crosses")
        await eventually(partial(_is_well, one), 20)
        assert ada.closed is bob.closed is None


async def _is_well(node: Node) -> bool:
    return (await get(node.url("/readyz"))).json == {"status": "ok", "reasons": []}
