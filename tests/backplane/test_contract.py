"""What every backplane promises: one suite over all of them. A new one passes it unchanged.

What happens when Redis is away is in test_faults.py.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from gateway.backplane import ALL, DIRECT, NODES, TAP, Backplane, Target, open_backplane
from gateway.config import Settings
from gateway.errors import Unavailable
from gateway.redis.links import open_links
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

LOBBY, SIDE = Target("channel", "lobby"), Target("channel", "side")


_numbers = itertools.count(1)


@asynccontextmanager
async def running(url: str, **settings: Any) -> AsyncIterator[Backplane]:
    """Run the backplane of one node for the length of a `with`; fail if it ended with an error."""
    found = Settings(redis_url=url, node_id=f"node-{next(_numbers)}", **settings)
    backplane = open_backplane(found, open_links(found))
    task = asyncio.create_task(backplane.run())
    try:
        async with asyncio.timeout(20):
            await backplane.ready()
        yield backplane
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()


class Ear:
    """Reads a backplane without pause, and keeps what arrived at each target, in order."""

    def __init__(self, backplane: Backplane) -> None:
        self.heard: dict[Target, list[bytes]] = defaultdict(list)
        self.sizes: list[int] = []
        self._backplane = backplane
        self._task = asyncio.create_task(self._listen())

    async def hears(self, target: Target, *expected: bytes, deadline: float = 20) -> None:
        """Wait until all of these have arrived at a target."""
        await eventually(
            lambda: set(expected) <= set(self.heard[target]), deadline, what=f"{expected[-3:]} at {target}"
        )

    async def close(self) -> None:
        """Read no more; fail if reading has failed."""
        self._task.cancel()
        await asyncio.wait([self._task])
        assert self._task.cancelled(), self._task.exception()

    async def _listen(self) -> None:
        async for batch in self._backplane.batches():
            self.sizes.append(len(batch))
            for target, data in batch:
                self.heard[target].append(data)


class Cluster:
    """The backplanes of two nodes, with an ear at each; those of a node that is alone are the same one."""

    def __init__(self, one: Backplane, two: Backplane) -> None:
        self.one = one
        self.two = two
        self.ear = Ear(one)
        self.other_ear = self.ear if one is two else Ear(two)

    async def close(self) -> None:
        """End both ears."""
        await self.ear.close()
        await self.other_ear.close()


@pytest.fixture(params=["memory", "redis", "sentinel", "redis cluster"])
def backplane_url(request: pytest.FixtureRequest) -> str:
    """The address of each backplane there is."""
    match request.param:
        case "memory":
            return "memory://"
        case "redis":
            return str(request.getfixturevalue("redis_url"))
        case "sentinel":
            return str(request.getfixturevalue("sentinels").url)
        case _:
            return str(request.getfixturevalue("small_cluster").url)


@pytest.fixture
async def cluster(backplane_url: str) -> AsyncIterator[Cluster]:
    """Two nodes' backplanes."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(running(backplane_url))
        is_alone = backplane_url.startswith("memory:")
        two = one if is_alone else await stack.enter_async_context(running(backplane_url))
        cluster = Cluster(one, two)
        stack.push_async_callback(cluster.close)
        yield cluster


async def silent(backplane: Backplane, target: Target) -> None:
    """Wait until nobody is subscribed to a target."""

    async def unheard() -> bool:
        return await backplane.publish(target, b"anybody?") == 0

    await eventually(unheard, what=f"nobody at {target}")


class TestDelivery:
    @pytest.mark.parametrize(
        "target",
        [LOBBY, Target("channel", "größe/1:a%"), Target("user", "ada"), Target("node", "n-1"), ALL, DIRECT, NODES, TAP],
        ids=str,
    )
    async def test_a_publication_reaches_every_subscriber(self, cluster: Cluster, target: Target) -> None:
        """The publisher itself too; the publisher is told how many nodes it reached."""
        await cluster.one.subscribe([target])
        await cluster.two.subscribe([target])
        assert await cluster.one.publish(target, b"x") == (1 if cluster.one is cluster.two else 2)
        await cluster.ear.hears(target, b"x")
        await cluster.other_ear.hears(target, b"x")

    async def test_a_publication_reaches_its_own_target_only(self, cluster: Cluster) -> None:
        """Names of different kinds, and names that begin alike, are different targets."""
        targets = [LOBBY, SIDE, Target("user", "lobby"), Target("channel", "lobby2"), Target("channel", "l"), ALL]
        await cluster.one.subscribe(targets)
        for target in targets:
            await cluster.two.publish(target, str(target).encode())
        for target in targets:
            await cluster.ear.hears(target, str(target).encode())
            assert cluster.ear.heard[target] == [str(target).encode()]

    async def test_what_nobody_wants_reaches_nobody(self, cluster: Cluster) -> None:
        """The publisher is told 0."""
        await cluster.one.subscribe([LOBBY])
        assert await cluster.two.publish(SIDE, b"x") == 0
        assert await cluster.two.publish(LOBBY, b"y") == 1
        await cluster.ear.hears(LOBBY, b"y")
        assert cluster.ear.heard[SIDE] == []

    @pytest.mark.parametrize("data", [b"", b"\x00\xff\r\n$3\r\n", b"x" * 1_000_000], ids=["empty", "binary", "large"])
    async def test_any_bytes_arrive_as_they_were(self, cluster: Cluster, data: bytes) -> None:
        """Nothing is read into them."""
        await cluster.one.subscribe([LOBBY])
        await cluster.two.publish(LOBBY, data)
        await cluster.ear.hears(LOBBY, data)

    async def test_a_publisher_s_order_is_kept(self, cluster: Cluster) -> None:
        """The order of the calls, though nobody waits for one publication before the next."""
        await cluster.one.subscribe([LOBBY])
        sent = [b"%d" % number for number in range(2000)]
        await asyncio.gather(*(cluster.two.publish(LOBBY, data) for data in sent))
        await cluster.ear.hears(LOBBY, sent[-1])
        assert cluster.ear.heard[LOBBY] == sent

    async def test_all_nodes_see_one_order(self, cluster: Cluster) -> None:
        """Of two publishers at the same time: each in order, and the mixture is the same everywhere."""
        await cluster.one.subscribe([LOBBY])
        await cluster.two.subscribe([LOBBY])

        async def publish(backplane: Backplane, name: bytes) -> list[bytes]:
            sent = [b"%s-%d" % (name, number) for number in range(500)]
            for data in sent:
                await backplane.publish(LOBBY, data)
            return sent

        both = await asyncio.gather(publish(cluster.one, b"one"), publish(cluster.two, b"two"))
        for ear in (cluster.ear, cluster.other_ear):
            await ear.hears(LOBBY, both[0][-1], both[1][-1])
            for sent in both:
                assert [data for data in ear.heard[LOBBY] if data in set(sent)] == sent
        assert cluster.ear.heard[LOBBY] == cluster.other_ear.heard[LOBBY]

    async def test_what_arrives_together_is_read_together(self, cluster: Cluster) -> None:
        """A reader that is behind gets batches, none of them empty."""
        await cluster.one.subscribe([LOBBY])
        await asyncio.gather(*(cluster.two.publish(LOBBY, b"%d" % number) for number in range(1000)))
        await cluster.ear.hears(LOBBY, b"999")
        assert min(cluster.ear.sizes) > 0
        assert len(cluster.ear.sizes) < sum(cluster.ear.sizes)


class TestSubscribing:
    async def test_nothing_is_missed_once_subscribe_returns(self, cluster: Cluster) -> None:
        """Whoever publishes next reaches the subscriber, target after target."""
        for number in range(200):
            target = Target("channel", f"room-{number}")
            await cluster.one.subscribe([target])
            assert await cluster.two.publish(target, b"x") == 1
        for number in range(200):
            await cluster.ear.hears(Target("channel", f"room-{number}"), b"x")

    async def test_subscribing_twice_is_free(self, cluster: Cluster) -> None:
        """Everything still arrives once."""
        for _ in range(5):
            await cluster.one.subscribe([LOBBY, SIDE])
        await asyncio.gather(*(cluster.one.subscribe([LOBBY]) for _ in range(50)))
        assert await cluster.two.publish(LOBBY, b"x") == 1
        await cluster.two.publish(LOBBY, b"last")
        await cluster.ear.hears(LOBBY, b"last")
        assert cluster.ear.heard[LOBBY] == [b"x", b"last"]

    async def test_subscribing_to_nothing_returns(self, cluster: Cluster) -> None:
        """No target is no wait."""
        await cluster.one.subscribe([])
        cluster.one.unsubscribe([])

    async def test_unsubscribing_ends_what_arrives(self, cluster: Cluster) -> None:
        """Some time soon nobody is reached; other targets and other nodes are not affected."""
        await cluster.one.subscribe([LOBBY, SIDE])
        cluster.one.unsubscribe([LOBBY])
        await silent(cluster.two, LOBBY)
        assert await cluster.two.publish(SIDE, b"x") == 1
        await cluster.ear.hears(SIDE, b"x")

    async def test_unsubscribing_what_was_never_wanted_is_harmless(self, cluster: Cluster) -> None:
        """Twice is once, too."""
        await cluster.one.subscribe([SIDE])
        cluster.one.unsubscribe([LOBBY])
        cluster.one.unsubscribe([LOBBY, LOBBY])
        assert await cluster.two.publish(LOBBY, b"x") == 0
        assert await cluster.two.publish(SIDE, b"x") == 1

    async def test_whoever_comes_right_back_misses_nothing(self, cluster: Cluster) -> None:
        """The old unsubscription never takes the new subscription away, however long one waits for it."""
        for number in range(100):
            await cluster.one.subscribe([LOBBY])
            await cluster.two.publish(LOBBY, b"%d" % number)
            await cluster.ear.hears(LOBBY, b"%d" % number)
            cluster.one.unsubscribe([LOBBY])
        await cluster.one.subscribe([LOBBY, SIDE])
        cluster.one.unsubscribe([SIDE])
        await silent(cluster.two, SIDE)
        assert await cluster.two.publish(LOBBY, b"last") == 1
        await cluster.ear.hears(LOBBY, b"last")

    async def test_a_target_can_be_wanted_again_after_it_has_gone(self, cluster: Cluster) -> None:
        """Again and again."""
        for number in range(2):
            await cluster.one.subscribe([LOBBY])
            assert await cluster.two.publish(LOBBY, b"%d" % number) == 1
            await cluster.ear.hears(LOBBY, b"%d" % number)
            cluster.one.unsubscribe([LOBBY])
            await silent(cluster.two, LOBBY)

    async def test_thousands_of_targets_at_once(self, cluster: Cluster) -> None:
        """In one call, and in thousands of calls at the same time."""
        targets = [Target("channel", f"room-{number}") for number in range(3000)]
        await cluster.one.subscribe(targets[:1500])
        await asyncio.gather(*(cluster.one.subscribe([target]) for target in targets[1500:]))
        reached = await asyncio.gather(*(cluster.two.publish(target, b"x") for target in targets))
        assert set(reached) == {1}
        await eventually(lambda: all(cluster.ear.heard[target] == [b"x"] for target in targets))

    async def test_churn_loses_nothing(self, cluster: Cluster) -> None:
        """Hundreds of targets come and go, around the moment when the server is told: who is subscribed hears."""
        chance = random.Random(1)

        async def come_and_go(target: Target) -> None:
            for turn in range(3):
                await cluster.one.subscribe([target])
                publisher = chance.choice([cluster.one, cluster.two])
                assert await publisher.publish(target, b"%d" % turn) == 1, (target, turn)
                await cluster.ear.hears(target, b"%d" % turn)
                cluster.one.unsubscribe([target])
                # Emptied targets linger about a second: some come back before, some after, some just then.
                await asyncio.sleep(chance.choice([0, 0, 0.01, chance.uniform(0.9, 1.2)]))

        targets = [Target("channel", f"room-{number}") for number in range(150)]
        await asyncio.gather(*(come_and_go(target) for target in targets))
        assert all(cluster.ear.heard[target] == [b"%d" % turn for turn in range(3)] for target in targets)


class TestBounds:
    """Only a server can be slow to take what is published; its bounds keep a node alive."""

    async def test_past_the_number_of_messages_that_may_wait_publishing_fails_at_once(
        self, own_redis: RedisServer
    ) -> None:
        """Those that waited arrive, in order, when Redis goes on; those refused never do."""
        async with running(own_redis.url, publish_queue=5, publish_timeout=60) as backplane:
            ear = Ear(backplane)
            await backplane.subscribe([LOBBY])
            own_redis.freeze()
            waiting = [asyncio.ensure_future(backplane.publish(LOBBY, b"%d" % number)) for number in range(5)]
            await asyncio.sleep(0)
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await backplane.publish(LOBBY, b"refused")
            own_redis.thaw()
            assert await asyncio.gather(*waiting) == [1] * 5
            await backplane.publish(LOBBY, b"last")
            await ear.hears(LOBBY, b"last")
            assert ear.heard[LOBBY] == [b"0", b"1", b"2", b"3", b"4", b"last"]
            await ear.close()

    async def test_past_the_bytes_that_may_wait_publishing_fails_at_once(self, own_redis: RedisServer) -> None:
        """A few large messages fill the queue like many small ones."""
        async with running(own_redis.url, publish_queue_bytes=1000, publish_timeout=60) as backplane:
            own_redis.freeze()
            waiting = asyncio.ensure_future(backplane.publish(LOBBY, b"x" * 900))
            await asyncio.sleep(0)
            with pytest.raises(Unavailable):
                await backplane.publish(LOBBY, b"x" * 101)
            small = asyncio.ensure_future(backplane.publish(LOBBY, b"x" * 50))
            own_redis.thaw()
            assert [await waiting, await small] == [0, 0]
            assert await backplane.publish(LOBBY, b"x" * 101) == 0

    async def test_what_redis_does_not_take_in_time_fails_and_is_not_sent_later(self, own_redis: RedisServer) -> None:
        """Its caller was told; others that waited less long are sent when Redis is back."""
        async with running(own_redis.url, publish_timeout=1.5) as backplane:
            ear = Ear(backplane)
            await backplane.subscribe([LOBBY])
            await own_redis.stop()
            with pytest.raises(Unavailable):
                await backplane.publish(LOBBY, b"too late")
            await own_redis.start()

            async def heard_again() -> bool:
                return await backplane.publish(LOBBY, b"back") == 1

            await eventually(heard_again, 20, tolerating=(Unavailable,))
            await ear.hears(LOBBY, b"back")
            assert b"too late" not in ear.heard[LOBBY]
            await ear.close()
