"""The Redis backplane over a cluster: sharded topics, and slots that move while messages flow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from redis.crc import key_slot

from gateway.backplane import Backplane, Target
from gateway.backplane.cluster import ClusterBackplane
from gateway.config import Rule
from gateway.protocol.envelope import Envelope
from tests.harness.client import Clients
from tests.harness.cluster import RedisCluster
from tests.harness.http import get
from tests.harness.node import Node, Nodes
from tests.harness.numbered import load, running
from tests.harness.wait import eventually

pytestmark = pytest.mark.redis

StartNodes = Callable[..., Awaitable[Nodes]]

CHANNELS = [f"channel-{n}" for n in range(8)]


def topic(channel: str) -> str:
    return f"gateway:channel:{{{channel}}}"


async def arrivals(backplane: Backplane, *targets: Target) -> dict[Target, bytes]:
    """Wait until something has arrived at each of these; return what."""
    found: dict[Target, bytes] = {}
    async with asyncio.timeout(10):
        async for batch in backplane.batches():
            found |= {target: data for target, data in batch if target in targets}
            if len(found) == len(targets):
                break
    return found


class TestTopics:
    async def test_by_hand_sharded_publishing_reaches_a_channel(self, small_cluster: RedisCluster) -> None:
        """`SPUBLISH gateway:channel:{lobby}` is what an operator types."""
        async with running(small_cluster.url) as backplane:
            lobby = Target("channel", "lobby")
            await backplane.subscribe([lobby])
            assert await small_cluster.publish(topic("lobby"), "chat") == 1
            assert (await arrivals(backplane, lobby))[lobby].startswith(b"{")

    async def test_every_kind_of_target_is_heard(self, small_cluster: RedisCluster) -> None:
        """Topics of all slots: the wishes are split by slot, and by shard."""
        targets = [Target("all"), Target("direct"), Target("tap"), Target("nodes"), Target("node", "n")]
        targets += [Target(kind, f"name-{n}") for kind in ("channel", "user") for n in range(200)]
        async with running(small_cluster.url) as one, running(small_cluster.url) as other:
            await other.subscribe(targets)
            assert await asyncio.gather(*(one.publish(target, b"x") for target in targets)) == [1] * len(targets)
            assert set(await arrivals(other, *targets)) == set(targets)

    async def test_a_shard_is_named_for_every_key(self, small_cluster: RedisCluster) -> None:
        """Presence asks the topology where its keys are."""
        async with running(small_cluster.url) as backplane:
            assert isinstance(backplane, ClusterBackplane)
            for key in ("gateway:members:{a}", "gateway:online:{a}", "gateway:nodes", "b", "c"):
                port = (await small_cluster.master_of(key)).port
                assert backplane.topology.shard_of(key) == f"127.0.0.1:{port}"
            link = await backplane.topology.dialer(backplane.topology.shard_of("b")).dial()
            assert await link.call("SET", "b", 1) == b"OK"
            link.abort()


class TestMovingSlots:
    async def test_a_moved_slot_is_followed(self, small_cluster: RedisCluster) -> None:
        """Publications refused by MOVED go to the new master, before later ones; only its channels have a gap."""
        async with load(small_cluster.url, small_cluster.url, CHANNELS) as flowing:
            for _ in range(3):
                await small_cluster.move_slot(topic(CHANNELS[0]))
                await flowing.flows(5)
        flowing.lost()
        told = {target.name for target, numbers in flowing.received.items() if None in numbers}
        assert told == {CHANNELS[0]}
        assert not any(flowing.failed.values())

    async def test_histories_are_written_while_their_slot_moves(self, small_cluster: RedisCluster) -> None:
        """A stream that is already at the new master is appended to there (ASK), once and in order."""
        rule = Rule(match="*", history=1000)
        async with running(small_cluster.url) as backplane:
            numbers: list[int] = []

            async def append() -> None:
                numbers.append((await backplane.append("kept", Envelope(b'{"cmd":"x"}'), rule)).offset)

            await append()
            moving = asyncio.create_task(small_cluster.move_slot(topic("kept")))
            while not moving.done():
                await asyncio.gather(*(append() for _ in range(20)))
            await append()
            assert numbers == list(range(1, len(numbers) + 1))
            assert (await backplane.read("kept", limit=1)).offset == len(numbers)

    async def test_a_new_history_waits_for_its_slot_to_arrive(self, small_cluster: RedisCluster) -> None:
        """Redis runs no script on keys that are neither here nor there (ASK, then TRYAGAIN): it is tried again."""
        slot = key_slot(topic("fresh").encode())
        source = await small_cluster.master_of(slot)
        target = next(master for master in await small_cluster.masters() if master is not source)
        source_id, target_id = [await master.command("CLUSTER", "MYID") for master in (source, target)]
        async with running(small_cluster.url) as backplane:
            await target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
            await source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
            message, rule = Envelope(b'{"cmd":"x"}'), Rule(match="*", history=9)
            appends = [asyncio.create_task(backplane.append("fresh", message, rule)) for _ in "abc"]
            await eventually(lambda: any("TRYAGAIN" in line for line in backplane.trouble))
            await small_cluster.move_slot(slot, target)
            assert [position.offset for position in await asyncio.gather(*appends)] == [1, 2, 3]
            await eventually(lambda: not backplane.trouble)


class TestFailover:
    async def test_a_planned_one_is_followed(self, cluster: RedisCluster) -> None:
        """CLUSTER FAILOVER: gaps in the channels of this shard alone."""
        async with load(cluster.url, cluster.url, CHANNELS) as flowing:
            shard = await cluster.master_of(topic(CHANNELS[0]))
            of_shard = {name for name in CHANNELS if await cluster.master_of(topic(name)) is shard}
            await cluster.failover(topic(CHANNELS[0]))
            await eventually(lambda: flowing.gaps)
            await flowing.flows(10)
        flowing.lost()
        told = {target.name for target, numbers in flowing.received.items() if None in numbers}
        assert told == of_shard != set(CHANNELS)

    async def test_a_killed_master_is_replaced(self, cluster: RedisCluster) -> None:
        """Its channels go on at the successor, within 10 s; the others never stop."""
        async with load(cluster.url, cluster.url, CHANNELS) as flowing:
            await cluster.kill_master(topic(CHANNELS[0]))
            await flowing.flows(10)
            await eventually(lambda: not flowing.listener.trouble)
        flowing.lost()
        assert sum(map(len, flowing.failed.values())) < 100

    async def test_a_node_that_starts_meanwhile_is_ready_with_the_successor(self, cluster: RedisCluster) -> None:
        """The others still name the dead master when it asks them."""
        await (await cluster.master_of(topic(CHANNELS[0]))).kill()
        async with running(cluster.url) as backplane:
            targets = [Target("channel", channel) for channel in CHANNELS]
            await backplane.subscribe(targets)
            for target in targets:
                assert await backplane.publish(target, b"hello") == 1

    async def test_a_frozen_master_is_left(self, cluster: RedisCluster) -> None:
        """The connections to it stay open and say nothing; the cluster names a successor."""
        async with load(cluster.url, cluster.url, CHANNELS) as flowing:
            old = await cluster.master_of(topic(CHANNELS[0]))
            old.freeze()
            await cluster.replaced(old, topic(CHANNELS[0]))
            await flowing.flows(10)
            old.thaw()
            await cluster.settled()
            await flowing.flows(10)
        flowing.lost()

    async def test_a_shard_that_restarts_is_waited_for(self, small_cluster: RedisCluster) -> None:
        """Without a replica its channels wait until it is back, and the others go on."""
        async with load(small_cluster.url, small_cluster.url, CHANNELS) as flowing:
            master = await small_cluster.master_of(topic(CHANNELS[0]))
            await master.stop()
            await eventually(lambda: flowing.listener.trouble)
            await master.start()
            await small_cluster.settled()
            await flowing.flows(10)
            await eventually(lambda: not flowing.listener.trouble)
        flowing.lost()


class TestConnections:
    async def test_a_killed_subscription_concerns_one_shard(self, small_cluster: RedisCluster) -> None:
        """CLIENT KILL on one master: only its channels have a gap."""
        async with load(small_cluster.url, small_cluster.url, CHANNELS) as flowing:
            shard = await small_cluster.master_of(topic(CHANNELS[0]))
            of_shard = {name for name in CHANNELS if await small_cluster.master_of(topic(name)) is shard}
            await shard.command("CLIENT", "KILL", "TYPE", "pubsub")
            await eventually(lambda: flowing.gaps == 1)
            await flowing.flows(5)
        flowing.lost()
        told = {target.name for target, numbers in flowing.received.items() if None in numbers}
        assert told == of_shard

    async def test_every_shard_has_a_beat(self, small_cluster: RedisCluster) -> None:
        """A shard whose subscription is refused makes the node deaf."""
        async with running(small_cluster.url) as backplane:
            shard = small_cluster.servers[1]
            await shard.command("ACL", "SETUSER", "default", "-ssubscribe")
            await shard.command("CLIENT", "KILL", "TYPE", "pubsub")
            await eventually(lambda: backplane.deaf)
            assert any("NOPERM" in line for line in backplane.trouble)
            await shard.command("ACL", "SETUSER", "default", "+ssubscribe")
            await eventually(lambda: not backplane.deaf and not backplane.trouble)


class TestNodes:
    async def test_clients_of_two_nodes_talk_through_a_failover(
        self, cluster: RedisCluster, start_nodes: StartNodes, connect: Clients
    ) -> None:
        """Whole nodes, presence included: sockets stay open, and messages cross again."""
        one, other = await start_nodes(2, cluster)
        ada, bob = await connect(one, "lobby"), await connect(other, "lobby")
        await cluster.kill_master(topic("lobby"))

        async def talks() -> bool:
            await ada.send("chat", {"text": "hello"}, "lobby")
            return bool(await bob.expect("chat", 1))

        await eventually(talks, 20, what="a message crosses")
        await eventually(partial(_is_well, one), 20)
        assert ada.closed is bob.closed is None


async def _is_well(node: Node) -> bool:
    return (await get(node.url("/readyz"))).json == {"status": "ok", "reasons": []}
