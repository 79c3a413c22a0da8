"""Watching the traffic of the whole cluster, from any node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway import InvalidParam, Message
from tests.harness.embedded import Embedded, EmbeddedCluster, observing
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually


@pytest.fixture
async def cluster(cluster: EmbeddedCluster) -> EmbeddedCluster:
    """Two nodes with a member of the lobby on each."""
    for node in (cluster.a, cluster.b):
        await cluster.connect(node, "lobby", user="ada")
    return cluster


def writers(cluster: EmbeddedCluster, channel: str = "trial") -> list[Callable[[str], Awaitable[object]]]:
    """Give a way to write to a channel by each node."""

    def writer(node: Embedded) -> Callable[[str], Awaitable[object]]:
        return lambda cmd: node.service.write_channel(cmd, None, channel)

    return [writer(node) for node in cluster.nodes]


async def test_everything_written_is_shown_once(cluster: EmbeddedCluster) -> None:
    """By whichever node, to whatever, with its sender; what was written before the tap is not."""
    await cluster.a.service.write_channel("early", 0, "lobby")
    async with observing(cluster.a.service, *writers(cluster)) as observer:
        await cluster.b.service.write_channel("x", {"n": 1}, "lobby", sender="bob")
        await cluster.b.service.write_user("y", 2, "ada")
        await cluster.a.service.write_all("z", 3)
        await cluster.a.service.write_all("last", None)
        await cluster.b.service.write_all("last", None)
        await eventually(lambda: observer.cmds().count("last") == 2)
    shown = [message for message in observer.messages if message.cmd in ("early", "x", "y", "z")]
    assert sorted(shown, key=lambda message: message.cmd) == [
        Message("lobby", "x", {"n": 1}, sender="bob"),
        Message("", "y", 2),
        Message("", "z", 3),
    ]


async def test_a_channel_that_cannot_be_said_is_refused(cluster: EmbeddedCluster) -> None:
    """Its observer alone learns that; the node goes on, and shows the others what they want to see."""
    service = cluster.a.service
    with pytest.raises(InvalidParam, match="surrogates not allowed"):
        await anext(service.tap("\ud800"))
    async with observing(service, *writers(cluster)) as observer:
        await service.write_channel("x", 1, "lobby")
        await eventually(lambda: "x" in observer.cmds())
    assert not service.crashed.is_set()


async def test_a_message_to_one_connection_is_shown(cluster: EmbeddedCluster) -> None:
    """Whether this node holds it or the other one."""
    member = await cluster.connect(cluster.a, "lobby")
    async with observing(cluster.b.service, *writers(cluster)) as observer:
        for number, node in enumerate(cluster.nodes):
            await node.service.write_connection("direct", number, member.id)
            await member.client.expect("direct", param=number)
        await eventually(lambda: observer.cmds().count("direct") == len(cluster.nodes))


async def test_one_channel_can_be_watched(cluster: EmbeddedCluster) -> None:
    """Nothing else is shown."""
    async with observing(cluster.a.service, *writers(cluster, "lobby"), channel="lobby") as observer:
        for node in cluster.nodes:
            await node.service.write_channel("other", None, "side")
            await node.service.write_all("other", None)
            await node.service.write_channel("last", None, "lobby")
        await eventually(lambda: observer.cmds().count("last") == len(cluster.nodes))
    assert set(observer.cmds()) == {"last"}
    assert {message.channel for message in observer.messages} == {"lobby"}


async def test_what_one_node_writes_is_shown_in_order(cluster: EmbeddedCluster) -> None:
    """As its members see it."""
    async with observing(cluster.a.service, *writers(cluster)) as observer:
        await asyncio.gather(*(cluster.b.service.write_channel("x", number, "lobby") for number in range(300)))
        await eventually(lambda: observer.cmds().count("x") == 300)
    assert [message.param for message in observer.messages if message.cmd == "x"] == list(range(300))


async def test_several_observers_see_the_same(cluster: EmbeddedCluster) -> None:
    """On one node and on two; each once."""
    async with (
        observing(cluster.a.service, *writers(cluster)) as one,
        observing(cluster.a.service, *writers(cluster)) as two,
        observing(cluster.b.service, *writers(cluster)) as three,
    ):
        await cluster.a.service.write_channel("x", None, "lobby")
        await cluster.a.service.write_channel("last", None, "lobby")
        for observer in (one, two, three):
            await observer.sees("last")
            assert observer.cmds() == ["x", "last"]


async def test_an_observer_that_ends_is_forgotten(cluster: EmbeddedCluster) -> None:
    """The status counts observers while they are there."""
    async with observing(cluster.a.service, *writers(cluster)):
        assert (await cluster.a.service.status()).taps == 1

    async def forgotten() -> bool:
        return (await cluster.a.service.status()).taps == 0

    await eventually(forgotten)


async def test_a_slow_observer_slows_nobody(cluster: EmbeddedCluster) -> None:
    """It misses messages; members get them all."""
    member = await cluster.connect(cluster.b, "side")
    tap: AsyncIterator[Message] = cluster.a.service.tap("side")
    first = asyncio.ensure_future(anext(tap))

    async def shown() -> bool:
        await cluster.a.service.write_channel("is-it-on", None, "side")
        return first.done()

    await eventually(shown)
    for number in range(3000):
        await cluster.a.service.write_channel("x", number, "side")
    numbers = [(await member.client.expect("x"))["param"] for _ in range(3000)]
    assert numbers == list(range(3000))
    shown_later = await anext(tap)
    assert shown_later.channel == "side"


class TestInjections:
    """Only Redis can be written to by hand."""

    @pytest.fixture
    def backplane_url(self, redis_url: str) -> str:
        return redis_url

    @pytest.mark.parametrize("topic", ["channel:lobby", "user:ada", "all"])
    async def test_an_injection_is_shown_once_though_two_nodes_deliver_it(
        self, cluster: EmbeddedCluster, redis: RedisServer, topic: str
    ) -> None:
        """And one that is published again is shown again."""
        async with observing(cluster.a.service, *writers(cluster)) as observer:
            for number in range(5):
                await redis.publish(f"gateway:{topic}", "x", number)
                await redis.publish(f"gateway:{topic}", "same", from_="bob")
            await redis.publish("gateway:all", "last")
            await observer.sees("last")
        shown = [message for message in observer.messages if message.cmd in ("x", "same")]
        assert sorted(message.param for message in shown if message.cmd == "x") == list(range(5))
        channel = "lobby" if topic == "channel:lobby" else ""
        assert [message for message in shown if message.cmd == "same"] == [Message(channel, "same", None, "bob")] * 5
