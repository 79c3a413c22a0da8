"""Presence on a Redis Cluster of which one master loses its data: everybody writes again, and nobody is announced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import ClassVar, cast

import pytest

from gateway.backplane import Target
from gateway.errors import Unavailable
from gateway.presence.lease import Lease
from gateway.presence.marks import Marks
from gateway.presence.redis import RedisPresence
from gateway.redis.keys import Keys
from gateway.redis.store import Store
from tests.harness.cluster import ClusterServer, RedisCluster
from tests.harness.presence import PresenceNode
from tests.harness.sets import agrees
from tests.harness.wait import eventually

PERIOD = "gateway.presence.lease.PERIOD"
QUICK = 0.1
"""Seconds between renewals where a test waits for many."""


@dataclass
class Pair:
    """Two nodes whose leases are on different masters, with a member each in a channel on every master."""

    cluster: RedisCluster
    masters: list[ClusterServer]
    channels: list[str]
    nodes: list[PresenceNode]
    held: list[tuple[str, list[str]]]
    registrations: list[str] = field(default_factory=list)
    """Node ids, in order."""
    looks: int = 0
    """How often one of them has looked at the marks."""

    async def agrees(self) -> None:
        """Wait until the sets are right, for less than an audit would take to find out."""
        await agrees(self.cluster, self.held, 15)

    async def announced(self) -> list[object]:
        return [await node.announced(channel) for node in self.nodes for channel in self.channels]

    async def is_quiet(self) -> None:
        """Wait until the nodes have looked at the marks for a while without registering anew."""
        looks, known = self.looks, len(self.registrations)

        def looked_again() -> bool:
            nonlocal looks, known
            if known != len(self.registrations):
                looks, known = self.looks, len(self.registrations)
            return self.looks - looks > 20

        await eventually(looked_again, 20)


def lease_of(node: PresenceNode) -> Lease:
    return cast(RedisPresence, node.presence).lease


async def name_at(cluster: RedisCluster, master: ClusterServer, kind: str) -> str:
    """Find a name whose keys are on a master."""
    for number in range(1000):
        if await cluster.master_of(f"{{{kind}-{number}}}") is master:
            return f"{kind}-{number}"
    raise AssertionError(f"no name is at {master!r}")


@asynccontextmanager
async def a_pair(cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    """Start the two, neither of which has its lease beside the set of nodes."""
    beside = await cluster.master_of("gateway:nodes")
    masters = [*(master for master in await cluster.masters() if master is not beside), beside]
    channels = [await name_at(cluster, master, "room") for master in masters]
    one, two = [PresenceNode(cluster.url, id=await name_at(cluster, master, "node")) for master in masters[:2]]
    pair = Pair(cluster, masters, channels, [one, two], [("ada", channels), ("bob", channels)])
    for node in pair.nodes:
        watch(pair, node, monkeypatch)
    async with one.running(), two.running():
        for node, (user, joined) in zip(pair.nodes, pair.held, strict=True):
            await node.backplane.subscribe([Target("channel", channel) for channel in joined])
            await node.somebody(user, *joined)
        await pair.agrees()
        yield pair


def watch(pair: Pair, node: PresenceNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count what a node does."""
    lease = lease_of(node)
    register, are_lost = lease._register, lease._marks.are_lost

    async def registering() -> None:
        pair.registrations.append(node.settings.node_id)
        await register()

    async def looking() -> bool:
        pair.looks += 1
        return await are_lost()

    monkeypatch.setattr(lease, "_register", registering)
    monkeypatch.setattr(lease._marks, "are_lost", looking)


@pytest.fixture
async def pair(small_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    """Two nodes on three masters."""
    async with a_pair(small_cluster, monkeypatch) as pair:
        yield pair


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_one_flushed_master_is_refilled_in_silence(pair: Pair, number: int) -> None:
    """Whether it has the lease of one node, of the other, or of none: both write again."""
    before, pair.registrations[:] = await pair.announced(), []
    await pair.masters[number].command("FLUSHALL")
    await pair.agrees()
    await eventually(lambda: len(set(pair.registrations)) == 2, 10)
    assert len(pair.registrations) <= 4
    assert await pair.announced() == before


@pytest.mark.parametrize("is_saved", [False, True], ids=["empty", "older"])
async def test_a_master_that_restarts_with_less_is_refilled_in_silence(pair: Pair, is_saved: bool) -> None:
    """At the same address, empty or with data of a while ago."""
    master = pair.masters[2]
    if is_saved:
        await master.command("SAVE")
        await pair.nodes[0].somebody("eve", pair.channels[2])
        pair.held.append(("eve", pair.channels[2:]))
        await pair.agrees()
    before = await pair.announced()
    await master.kill(keep_data=is_saved)
    await master.start()
    await pair.agrees()
    assert await pair.announced() == before


async def test_masters_flushed_one_after_the_other_are_refilled(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that registers in between writes again what the later ones lose, even while it writes."""
    monkeypatch.setattr(PERIOD, QUICK)
    lease, before = lease_of(pair.nodes[0]), await pair.announced()
    write_all, others = lease._write_all, pair.masters[1:]

    async def lose_more(*, silent: bool) -> None:
        await write_all(silent=silent)
        while others:
            await others.pop().command("FLUSHALL")

    monkeypatch.setattr(lease, "_write_all", lose_more)
    await pair.masters[0].command("FLUSHALL")
    await eventually(lambda: not others, 10)
    await pair.agrees()
    assert await pair.announced() == before
    await pair.is_quiet()
    assert len(pair.registrations) <= 2 + 2 * 3


async def test_a_node_whose_lease_a_master_lost_is_not_dead(
    small_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one finds no lease, and that the master is not the one it knew; a lease that is gone alone is noticed."""
    monkeypatch.setattr(PERIOD, 600)  # it is the other one who looks first
    async with a_pair(small_cluster, monkeypatch) as pair:
        one, two = pair.nodes
        reaper, lost = cast(RedisPresence, one.presence).reaper, two.settings.node_id
        async with small_cluster.client() as client:
            await pair.masters[1].command("FLUSHALL")
            await reaper.reap_dead(one.settings.node_id)
            assert not await client.exists(f"gateway:reaped:{{{lost}}}")
            assert await client.sismember("gateway:nodes", lost)

            await lease_of(one).register()
            await reaper.reap_dead(one.settings.node_id)
            assert not await client.sismember("gateway:nodes", lost)


async def test_slots_that_move_cost_a_few_registrations(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks move with their slots, and then another key is the mark: nobody writes again for ever."""
    monkeypatch.setattr(PERIOD, QUICK)
    before, pair.registrations[:] = await pair.announced(), []
    store = cast(RedisPresence, pair.nodes[0].presence)._store
    for tag in tuple(store.tags):
        await pair.cluster.move_slot(f"{{{tag}}}")
    await pair.cluster.move_slot(f"{{{pair.channels[0]}}}")
    await pair.is_quiet()
    assert len(pair.registrations) <= 2 * 2 * 4
    await pair.agrees()
    assert await pair.announced() == before


async def test_failovers_cost_a_few_registrations(cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replica has the mark, as it has the rest: masters that change places make nobody write again for ever."""
    monkeypatch.setattr(PERIOD, QUICK)
    async with a_pair(cluster, monkeypatch) as pair:
        before, pair.registrations[:] = await pair.announced(), []
        await cluster.failover(f"{{{pair.channels[0]}}}")
        await cluster.kill_master(f"{{{pair.channels[1]}}}")
        await pair.agrees()
        await pair.is_quiet()
        assert len(pair.registrations) <= 2 * 2 * 2
        assert await pair.announced() == before


async def test_a_mark_that_a_hand_has_spoiled_is_made_anew(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another type, or much too long: nobody writes again for ever."""
    monkeypatch.setattr(PERIOD, QUICK)
    one, two, _ = cast(RedisPresence, pair.nodes[0].presence)._store.tags
    async with pair.cluster.client() as client:
        await client.set(f"gateway:mark:{{{one}}}", "x" * 1_000_000)
        await client.delete(f"gateway:mark:{{{two}}}")
        await client.hset(f"gateway:mark:{{{two}}}", "a", "b")

        async def is_mended() -> bool:
            return await client.type(f"gateway:mark:{{{two}}}") == "string"

        await eventually(is_mended, 10)
        await pair.is_quiet()
        assert 0 < await client.ttl(f"gateway:mark:{{{one}}}") <= 3600


class OneMaster:
    """A store of which nothing is asked but a mark; while it is slow, nothing is answered in time."""

    whole = False
    tags: ClassVar[list[str]] = ["1"]

    def __init__(self) -> None:
        self.mark = b"before"
        self.is_slow = False

    def server(self, key: str) -> str:
        return "master"

    async def ask(self, key: str, command: object) -> bytes:
        if self.is_slow:
            raise Unavailable("the cluster does not answer")
        return self.mark


async def test_a_master_that_was_slow_has_lost_nothing() -> None:
    """Else one that is slow because of all that is written would be written everything again and again."""
    store = OneMaster()
    marks = Marks(cast(Store, store), Keys("gateway", cluster=True))
    await marks.remember()
    store.is_slow = True
    await marks.remember()
    assert not await marks.are_lost()
    store.is_slow = False
    assert not await marks.are_lost()
    store.mark = b"after"
    assert await marks.are_lost()
