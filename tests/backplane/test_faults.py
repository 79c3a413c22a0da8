"""The Redis backplane when Redis, or the way there, fails: nothing doubled, nothing out of order, no loss untold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial

import pytest

from gateway.backplane import Backplane, Target
from gateway.config import Rule
from gateway.errors import GatewayError, Unavailable
from gateway.protocol.envelope import Envelope
from tests.harness.http import get
from tests.harness.node import Node
from tests.harness.numbered import Load, load, running
from tests.harness.proxy import Proxy
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

pytestmark = pytest.mark.redis

LOBBY = Target("channel", "lobby")
BOTH = ["lobby", "kitchen"]

StartRedis = Callable[..., Awaitable[RedisServer]]
StartNode = Callable[..., Awaitable[Node]]
StartProxy = Callable[[RedisServer | int], Proxy]


def url_of(proxy: Proxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}/0"


class HalfOpen:
    """A way to Redis on which open connections can die without a word while new ones work."""

    def __init__(self, server: RedisServer) -> None:
        self.proxies = [Proxy(server.port)]
        self.proxies[0].start()
        self.url = url_of(self.proxies[0])

    def die(self, *directions: str) -> Proxy:
        """Silence these directions of what is open; return the proxy that serves what comes."""
        first = self.proxies[0]
        for direction in directions:
            getattr(first, direction).black_hole()
        first.refuse()
        self.proxies.append(Proxy(first.target_port, port=first.port))
        self.proxies[-1].start()
        return self.proxies[-1]


HalfOpens = Callable[[], HalfOpen]


@pytest.fixture
def half_open(redis: RedisServer) -> Iterator[HalfOpens]:
    """Makes such ways."""
    ways: list[HalfOpen] = []

    def make() -> HalfOpen:
        ways.append(HalfOpen(redis))
        return ways[-1]

    yield make
    for way in ways:
        for proxy in reversed(way.proxies):
            proxy.close()


class TestSubscription:
    """The listener's way to Redis fails; the publisher's is well."""

    async def test_a_dead_connection_is_noticed_and_replaced(self, redis: RedisServer, half_open: HalfOpens) -> None:
        """Connections that are silent in one direction or both are given up within 10 s, and the loss is told."""

        async def die(*directions: str) -> None:
            way = half_open()
            async with load(redis.url, way.url, ["-".join(directions)]) as flowing:
                fresh = way.die(*directions)
                await eventually(lambda: flowing.listener.counters.reconnects == 2, 10, what="both links made anew")
                await flowing.flows(5)
                assert fresh.connections >= 2
            flowing.lost()
            assert flowing.gaps == 1

        # At the same time, each on a way of its own: waiting is most of it.
        await asyncio.gather(die("to_client"), die("to_server"), die("to_client", "to_server"))

    async def test_a_silence_that_ends_loses_nothing(self, redis: RedisServer, start_proxy: StartProxy) -> None:
        """While no fresh connection gets through either, the old ones are kept, and bring everything late."""

        async def fall_silent(direction: str) -> None:
            proxy = start_proxy(redis)
            async with load(redis.url, url_of(proxy), [direction]) as flowing:
                getattr(proxy, direction).black_hole()
                await eventually(lambda: flowing.listener.trouble, what="the silence is noticed")
                assert not flowing.listener.deaf
                proxy.heal()
                await flowing.flows(5)
                await eventually(lambda: not flowing.listener.trouble, what="all is well")
            assert (flowing.lost(), flowing.gaps) == (0, 0)

        await asyncio.gather(fall_silent("to_client"), fall_silent("to_server"))

    async def test_a_reset_is_told_as_a_gap(self, redis: RedisServer, start_proxy: StartProxy) -> None:
        """RST on both links: back at once, and what was missed lies at the gap."""
        proxy = start_proxy(redis)
        async with load(redis.url, url_of(proxy), BOTH) as flowing:
            proxy.reset()
            await eventually(lambda: flowing.gaps == 1, 5)
            await flowing.flows(5)
        flowing.lost()

    async def test_a_killed_subscription_is_told_as_a_gap(self, redis: RedisServer) -> None:
        """CLIENT KILL, three times."""
        async with load(redis.url, redis.url, BOTH) as flowing:
            while flowing.gaps < 3:
                before = flowing.gaps
                await redis.command("CLIENT", "KILL", "TYPE", "pubsub")
                await eventually(partial(_has_gaps, flowing, before + 1))
                await flowing.flows(5)
        flowing.lost()

    async def test_an_overflow_of_the_output_buffer_is_told_as_a_gap(
        self, start_redis: StartRedis, start_proxy: StartProxy
    ) -> None:
        """Redis drops a subscriber that takes too little; the listener knows that it has missed something."""
        redis = await start_redis(client_output_buffer_limit="pubsub 256kb 0 0")
        proxy = start_proxy(redis)
        async with load(redis.url, url_of(proxy), BOTH) as flowing:
            await flowing.listener.subscribe([Target("channel", "noise")])
            proxy.to_client.black_hole()
            async with redis.client() as by_hand:
                while await by_hand.publish("gateway:channel:noise", "x" * 500_000):
                    pass
            proxy.heal()
            await flowing.flows(10)
        flowing.lost()
        assert flowing.gaps == 1

    async def test_what_is_not_read_does_not_grow_without_bound(self, redis: RedisServer) -> None:
        """A node that does not read its arrivals stops reading Redis; it loses nothing, and is not called deaf."""
        async with running(redis.url) as publisher, running(redis.url) as listener:
            await listener.subscribe([LOBBY])
            sent = 24
            for _ in range(sent):
                await publisher.publish(LOBBY, b"x" * (1 << 20))
            taken: list[int] = []
            async for batch in listener.batches():
                taken.append(sum(arrival.target == LOBBY for arrival in batch))
                if sum(taken) == sent:
                    break
            assert max(taken) <= 17
            assert not listener.deaf


class TestPublishing:
    """The publisher's way to Redis fails; the listener's is well."""

    async def test_a_dead_connection_is_noticed_and_replaced(self, redis: RedisServer, half_open: HalfOpens) -> None:
        """What was under way fails, what waited goes out; later ones do not overtake it."""
        way = half_open()
        async with load(way.url, redis.url, BOTH) as flowing:
            way.die("to_client", "to_server")
            await flowing.flows(15)
        failed = sum(map(len, flowing.failed.values()))
        assert (flowing.lost(), flowing.gaps) == (0, 0)
        assert 0 < failed < sum(flowing.sent.values()) / 2

    async def test_a_reset_fails_what_was_under_way_and_nothing_else(
        self, redis: RedisServer, start_proxy: StartProxy
    ) -> None:
        """Whether those were carried out is not known, so they are not sent again."""
        proxy = start_proxy(redis)
        async with load(url_of(proxy), redis.url, BOTH) as flowing:
            while (before := flowing.publisher.counters.reconnects) < 6:
                proxy.reset()
                await eventually(partial(_reconnected, flowing, before + 2))
                await flowing.flows(5)
        assert (flowing.lost(), flowing.gaps) == (0, 0)
        assert sum(map(len, flowing.failed.values())) < 10


class TestRedis:
    """Redis itself fails."""

    async def test_a_frozen_redis_loses_nothing(self, redis: RedisServer) -> None:
        """What was published during the freeze arrives late; nobody is called deaf, no connection is given up."""
        async with load(redis.url, redis.url, BOTH) as flowing:
            redis.freeze()
            await eventually(lambda: flowing.publisher.trouble and flowing.listener.trouble, 5)
            redis.thaw()
            await flowing.flows(5)
            assert not flowing.listener.deaf
        assert (flowing.lost(), flowing.gaps, flowing.listener.counters.reconnects) == (0, 0, 0)
        assert not any(flowing.failed.values())

    async def test_a_restart_loses_at_the_gap_only(self, start_redis: StartRedis) -> None:
        """What was published while Redis was down waits for the subscribers to be back, and arrives."""
        redis = await start_redis()
        async with load(redis.url, redis.url, BOTH) as flowing:
            await redis.stop()
            before = dict(flowing.sent)
            await eventually(lambda: all(flowing.sent[t] > n + 50 for t, n in before.items()), what="a longer queue")
            await redis.start()
            await flowing.flows(5)
            assert flowing.publisher.counters.waiting < 50
        assert flowing.lost() < 10
        assert sum(map(len, flowing.failed.values())) < 10
        assert flowing.gaps == 1

    async def test_an_outage_of_no_length_loses_at_the_gap_only(self, redis: RedisServer) -> None:
        """All links break at once while Redis is well: what is published waits for the subscribers, not only ours."""
        async with load(redis.url, redis.url, BOTH) as flowing:
            for outages in range(1, 6):
                await redis.command("CLIENT", "KILL", "SKIPME", "yes")
                await eventually(partial(_has_gaps, flowing, outages))
                await flowing.flows(5)
        assert flowing.lost() < 10
        assert sum(map(len, flowing.failed.values())) < 50

    async def test_everything_is_published_within_its_time_or_fails(self, start_redis: StartRedis) -> None:
        """Past its timeout a publication fails, and is not sent later."""
        redis = await start_redis()
        async with running(redis.url, publish_timeout=0.3) as publisher, running(redis.url) as listener:
            await listener.subscribe([LOBBY])
            await redis.stop()
            with pytest.raises(Unavailable, match=r"within 0\.3 s"):
                await publisher.publish(LOBBY, b"too late")
            await redis.start()
            await eventually(lambda: not listener.trouble)
            await eventually(lambda: _published(publisher, b"in time"))
            batches = listener.batches()
            arrived = [arrival.data for arrival in await anext(batches) if arrival.target == LOBBY]
            while b"in time" not in arrived:
                arrived += [arrival.data for arrival in await anext(batches) if arrival.target == LOBBY]
            assert b"too late" not in arrived

    async def test_the_queue_is_bounded(self, start_redis: StartRedis) -> None:
        """Beyond its bounds, in messages and in bytes, a publication fails at once."""
        redis = await start_redis()
        async with running(redis.url, publish_queue=3, publish_queue_bytes=1000) as publisher:
            await redis.stop()
            waiting = [asyncio.create_task(publisher.publish(LOBBY, b"x" * 400)) for _ in range(2)]
            await eventually(lambda: publisher.counters.waiting == 2)
            with pytest.raises(Unavailable, match="800 bytes wait"):
                await publisher.publish(LOBBY, b"x" * 400)
            waiting.append(asyncio.create_task(publisher.publish(LOBBY, b"")))
            await eventually(lambda: publisher.counters.waiting == 3)
            with pytest.raises(Unavailable, match="3 messages wait"):
                await publisher.publish(LOBBY, b"")
            await redis.start()
            assert await asyncio.gather(*waiting) == [0, 0, 0]
            assert (publisher.counters.waiting, publisher.counters.waiting_bytes) == (0, 0)


def _has_gaps(flowing: Load, gaps: int) -> bool:
    return flowing.gaps == gaps


def _reconnected(flowing: Load, times: int) -> bool:
    return flowing.publisher.counters.reconnects == times


async def _reaches(publisher: Backplane, listeners: int) -> bool:
    return await publisher.publish(LOBBY, b"") == listeners


async def _published(publisher: Backplane, data: bytes) -> bool:
    try:
        return bool(await publisher.publish(LOBBY, data))
    except Unavailable:
        return False


class TestRefusals:
    """What Redis refuses has a name, in the log once and in `trouble` while it lasts, and is tried again."""

    @pytest.fixture
    async def own_redis(self, start_redis: StartRedis) -> RedisServer:
        return await start_redis(busy_reply_threshold=50)

    @pytest.fixture
    async def backplane(self, own_redis: RedisServer) -> AsyncIterator[Backplane]:
        async with running(own_redis.url) as backplane:
            await backplane.subscribe([LOBBY])
            yield backplane

    async def named(self, backplane: Backplane, words: str) -> None:
        await eventually(
            lambda: any(words in line for line in backplane.trouble), what=f"{words} in {backplane.trouble}"
        )

    async def healed(self, backplane: Backplane, caplog: pytest.LogCaptureFixture, words: str) -> None:
        """Wait until all is well; the log names the cause once for each link and command that met it."""
        await eventually(lambda: not backplane.trouble, what="no trouble")
        assert await backplane.publish(LOBBY, b"hello") == 1
        named = [record.getMessage() for record in caplog.records if words in record.getMessage()]
        assert named
        assert len(named) == len(set(named)) <= 4

    async def test_a_replica(
        self, own_redis: RedisServer, redis: RedisServer, backplane: Backplane, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A master that is made a replica while the connection stays open is left, and taken again as a master."""
        await own_redis.command("REPLICAOF", "127.0.0.1", redis.port)
        await self.named(backplane, "READONLY")
        await own_redis.command("REPLICAOF", "NO", "ONE")
        await self.healed(backplane, caplog, "read-only replica")

    async def test_a_full_redis(
        self, own_redis: RedisServer, backplane: Backplane, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Over maxmemory histories wait, while plain messages go on."""
        message, rule = Envelope(b'{"cmd":"x"}'), Rule(match="kept", history=9)
        await backplane.append("kept", message, rule)
        await own_redis.command("CONFIG", "SET", "maxmemory", 1)
        append = asyncio.create_task(backplane.append("kept", message, rule))
        await self.named(backplane, "OOM")
        await own_redis.command("CONFIG", "SET", "maxmemory", 0)
        assert (await append).offset == 2
        await self.healed(backplane, caplog, "out of memory")

    async def test_a_full_disk(
        self, own_redis: RedisServer, backplane: Backplane, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Where Redis cannot save it takes no histories, and no PING; plain messages go on, for newcomers too."""
        message, rule = Envelope(b'{"cmd":"x"}'), Rule(match="kept", history=9)
        await backplane.append("kept", message, rule)
        await own_redis.break_saving()
        append = asyncio.create_task(backplane.append("kept", message, rule))
        await self.named(backplane, "MISCONF")
        await own_redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        async with running(own_redis.url) as newcomer:
            await eventually(partial(_reaches, newcomer, 1), what="the subscription is back")
        assert not append.done()
        await own_redis.mend_saving()
        assert (await append).offset == 2
        await self.healed(backplane, caplog, "cannot write to its disk")

    async def test_large_data_are_loaded(
        self, own_redis: RedisServer, backplane: Backplane, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A Redis that is up and still loads is waited for, and what was published meanwhile arrives."""
        await own_redis.command("DEBUG", "POPULATE", 3000)
        # A millisecond for each key, between which it answers.
        own_redis.configure(key_load_delay=1000, loading_process_events_interval_bytes=1024)
        await own_redis.stop(keep_data=True)
        own_redis.process.start()
        await self.named(backplane, "LOADING")
        publication = asyncio.create_task(backplane.publish(LOBBY, b"meanwhile"))
        await own_redis.ready(30)
        await publication
        await self.healed(backplane, caplog, "loading its data")

    async def test_a_new_password(
        self, own_redis: RedisServer, backplane: Backplane, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Links that are open live on; those that come are refused until the password fits."""
        async with own_redis.client() as by_hand:
            await by_hand.config_set("requirepass", "secret")
            await by_hand.execute_command("CLIENT", "KILL", "SKIPME", "yes")
            await self.named(backplane, "NOAUTH")
            await by_hand.config_set("requirepass", "")
        await self.healed(backplane, caplog, "wants a password")

    async def test_publishing_is_forbidden(
        self, own_redis: RedisServer, backplane: Backplane, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Who may not publish is told at once, and each time."""
        await own_redis.command("ACL", "SETUSER", "default", "-publish")
        for _ in range(3):
            with pytest.raises(Unavailable, match="NOPERM"):
                await backplane.publish(LOBBY, b"")
        await self.named(backplane, "NOPERM")
        assert not backplane.deaf
        await own_redis.command("ACL", "SETUSER", "default", "+publish")
        await backplane.publish(LOBBY, b"")
        await self.healed(backplane, caplog, "(ACL)")

    async def test_subscribing_is_forbidden(
        self, own_redis: RedisServer, backplane: Backplane, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A node that may not subscribe is deaf and says so; it hears again as soon as it may."""
        await own_redis.command("ACL", "SETUSER", "default", "-subscribe")
        await own_redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        await self.named(backplane, "NOPERM")
        await eventually(lambda: backplane.deaf)
        await own_redis.command("ACL", "SETUSER", "default", "+subscribe")
        await eventually(lambda: not backplane.deaf)
        await self.healed(backplane, caplog, "(ACL)")
        assert backplane.counters.deaf_seconds > 3

    async def test_one_forbidden_topic_does_not_keep_the_others_out(
        self, own_redis: RedisServer, backplane: Backplane
    ) -> None:
        """Only what the rules forbid is not heard."""
        rules = ("resetchannels", "&gateway:channel:open-*", "&gateway:beat:*")
        await own_redis.command("ACL", "SETUSER", "default", *rules)
        targets = [Target("channel", f"open-{n}") for n in range(50)]
        closed = Target("channel", "closed")
        asking = asyncio.create_task(backplane.subscribe([*targets[:25], closed, *targets[25:]]))
        await backplane.subscribe(targets)
        await self.named(backplane, "NOPERM")
        assert not asking.done()
        await own_redis.command("ACL", "SETUSER", "default", "allchannels")
        await asking

    async def test_a_busy_redis(
        self, own_redis: RedisServer, backplane: Backplane, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What a running script keeps out waits, and goes out in order."""
        script = asyncio.create_task(own_redis.command("EVAL", "while true do end", 0))
        await self.named(backplane, "BUSY")
        waiting = [asyncio.create_task(backplane.publish(LOBBY, b"%d" % n)) for n in range(20)]
        await own_redis.command("SCRIPT", "KILL")
        await asyncio.gather(script, return_exceptions=True)
        assert await asyncio.gather(*waiting) == [1] * 20
        arrived = [arrival.data for arrival in await anext(backplane.batches()) if arrival.target == LOBBY]
        assert arrived == [b"%d" % n for n in range(len(arrived))]
        await self.healed(backplane, caplog, "busy with a script")

    async def test_a_wrong_password_at_the_start_is_said_at_once(self, start_redis: StartRedis) -> None:
        """Waiting would not help."""
        redis = await start_redis(requirepass="right")
        with pytest.raises(GatewayError, match="WRONGPASS"):
            async with running(redis.url.replace("right", "wrong")):
                pytest.fail("must not be ready")


class TestReadiness:
    """What `/readyz` answers."""

    async def test_an_outage_is_degraded_and_not_unready(self, start_redis: StartRedis, start_node: StartNode) -> None:
        """Every node has it: taking all of them out of rotation would help nobody."""
        redis = await start_redis()
        node = await start_node(redis)
        assert (await get(node.url("/readyz"))).json == {"status": "ok", "reasons": []}
        redis.freeze()
        await eventually(lambda: has_status(node, "degraded", 200), 5)
        assert any("Redis does not answer" in line for line in (await get(node.url("/readyz"))).json["reasons"])
        redis.thaw()
        await eventually(lambda: has_status(node, "ok", 200), 5)

    async def test_a_deaf_node_is_unready(self, start_redis: StartRedis, start_node: StartNode) -> None:
        """Redis answers it, and yet it does not hear itself."""
        redis = await start_redis()
        node = await start_node(redis)
        await redis.command("ACL", "SETUSER", "default", "-subscribe")
        await redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        await eventually(lambda: has_status(node, "deaf", 503), 10)
        await redis.command("ACL", "SETUSER", "default", "+subscribe")
        await eventually(lambda: has_status(node, "ok", 200), 10)


async def has_status(node: Node, status: str, code: int) -> bool:
    answer = await get(node.url("/readyz"))
    return (answer.json["status"], answer.status) == (status, code)
