"""Writing from a process that is no node: what arrives is what a node would have written."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import gateway
from gateway import (
    ConnectionNotFound,
    GatewayError,
    InvalidChannel,
    InvalidSettings,
    Publisher,
    SyncPublisher,
    Unavailable,
)
from tests.harness.client import Clients
from tests.harness.cluster import RedisCluster
from tests.harness.embedded import Embedded, Member, observing
from tests.harness.ports import HOST, free_port, release_port
from tests.harness.process import output_of
from tests.harness.redis import RedisServer
from tests.harness.sentinel import Sentinels
from tests.harness.wait import eventually

RULES = [{"match": "kept-*", "history": 10, "ttl": 60}]


class Awaited:
    """A `SyncPublisher` under the calls of a `Publisher`, each made by another thread."""

    def __init__(self, publisher: SyncPublisher) -> None:
        self._publisher = publisher

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._publisher, "close" if name == "aclose" else name)
        return lambda *arguments, **options: asyncio.to_thread(method, *arguments, **options)


KINDS: dict[str, Callable[..., Any]] = {
    "async": Publisher,
    "sync": lambda *arguments, **options: Awaited(SyncPublisher(*arguments, **options)),
}


@pytest.fixture(params=KINDS)
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """Makes publishers of both kinds; they are closed at the end."""
    made: list[Any] = []

    def make(*arguments: Any, **options: Any) -> Any:
        made.append(KINDS[request.param](*arguments, **options))
        return made[-1]

    yield make
    for publisher in made:
        await publisher.aclose()


@dataclass
class Pair:
    """Two nodes on one Redis, with clients: Ada at both, and somebody without a name."""

    url: str
    nodes: list[Embedded]
    ada: list[Member]
    nobody: Member

    async def received(self) -> dict[str, list[list[str]]]:
        """Return the commands that Ada's connections and nobody's have received, once all that is written is there."""
        members = [*self.ada, self.nobody]
        for node in self.nodes:
            await node.service.write_all("settled", node.service.node_id)
            for member in members:
                await member.client.expect("settled", param=node.service.node_id)
        cmds = [[m["cmd"] for m in member.client.received if m["cmd"] in "xyz"] for member in members]
        return {"ada": cmds[:2], "nobody": cmds[2:]}


@pytest.fixture(params=["unix", "sentinel", "cluster"])
def any_url(request: pytest.FixtureRequest) -> str:
    """Each form of address that leads to a Redis here."""
    if request.param == "unix":
        redis: RedisServer = request.getfixturevalue("redis")
        return redis.unix_url
    servers: Sentinels | RedisCluster = request.getfixturevalue(
        "sentinels" if request.param == "sentinel" else "small_cluster"
    )
    return servers.url


@pytest.fixture
async def start_pair(connect: Clients) -> AsyncIterator[Callable[[str], Awaitable[Pair]]]:
    """Starts two nodes: `await start_pair(redis.url)`."""
    started: list[Embedded] = []

    async def start(url: str) -> Pair:
        nodes = [Embedded(url, channels=RULES) for _ in range(2)]
        started.extend(nodes)
        await asyncio.gather(*(node.start() for node in nodes))
        ada = [await node.connect(connect, "lobby", user="ada") for node in nodes]
        return Pair(url, nodes, ada, await nodes[1].connect(connect, "lobby"))

    yield start
    await connect.close()
    for node in started:
        await node.stop()


@pytest.fixture
async def pair(start_pair: Callable[[str], Awaitable[Pair]], redis: RedisServer) -> Pair:
    """Two nodes on a Redis without more."""
    return await start_pair(redis.url)


async def write_all_ways(publisher: Any, pair: Pair) -> None:
    """Write x to the channel but one, y to the user, z to one connection, and x to everyone but one."""
    await publisher.write_channel("x", 1, "lobby", exclude=[pair.ada[1].id])
    await publisher.write_user("y", 2, "ada", sender="root")
    await publisher.write_connection("z", 3, pair.nobody.id)
    await publisher.write_all("x", 4, exclude=[pair.nobody.id])


class TestWriting:
    async def test_all_are_reached_as_by_a_node(self, pair: Pair, make: Callable[..., Any]) -> None:
        """A channel, a user, one connection, everyone; on whatever node they are."""
        await write_all_ways(make(pair.url), pair)
        assert await pair.received() == {"ada": [["x", "y", "x"], ["y", "x"]], "nobody": [["x", "z"]]}
        message = next(m for m in pair.ada[0].client.received if m["cmd"] == "y")
        assert message == {"channel": "", "cmd": "y", "param": 2, "from": "root"}

    async def test_every_form_of_url_will_do(self, any_url: str, start_pair: Callable[[str], Awaitable[Pair]]) -> None:
        """Those that a node can be given."""
        pair = await start_pair(any_url)
        async with Publisher(pair.url) as publisher:
            await write_all_ways(publisher, pair)
            assert (await publisher.write_channel("y", None, "kept-a")) is not None
        assert await pair.received() == {"ada": [["x", "y", "x"], ["y", "x"]], "nobody": [["x", "z"]]}

    async def test_a_connection_that_is_not_there_is_told(self, pair: Pair, make: Callable[..., Any]) -> None:
        """Whether its node is gone, does not know it, or was never one."""
        publisher = make(pair.url)
        for id in (f"{pair.nodes[0].service.node_id}~0123456789", "gone~0123456789", "nonsense"):
            with pytest.raises(ConnectionNotFound):
                await publisher.write_connection("x", None, id)

    async def test_a_prefix_is_a_cluster_of_its_own(self, pair: Pair, make: Callable[..., Any]) -> None:
        """Nobody under another one is reached."""
        await make(pair.url, prefix="other").write_all("x", None)
        assert await pair.received() == {"ada": [[], []], "nobody": [[]]}

    async def test_bad_names_are_refused(self, pair: Pair, make: Callable[..., Any]) -> None:
        """As a service refuses them."""
        publisher = make(pair.url)
        with pytest.raises(InvalidChannel):
            await publisher.write_channel("x", None, "a b")
        with pytest.raises(gateway.InvalidParam):
            await publisher.write_all("x", {1, 2})
        with pytest.raises(gateway.InvalidParam, match="names with \\$ are not"):
            await publisher.write_all("$left", None)

    async def test_calls_arrive_in_order(self, pair: Pair) -> None:
        """Those of one task, and those that were begun one after the other."""
        async with Publisher(pair.url) as publisher:
            calls = [publisher.write_channel("n", number, "lobby") for number in range(500)]
            await asyncio.gather(*calls)
        numbers = [(await pair.nobody.client.expect("n"))["param"] for _ in range(500)]
        assert numbers == list(range(500))

    async def test_many_threads_may_use_one(self, pair: Pair) -> None:
        """Nothing is lost, and each thread's messages are in order."""
        publisher = SyncPublisher(pair.url)

        def write(thread: int) -> None:
            for number in range(50):
                publisher.write_channel("n", [thread, number], "lobby")

        await asyncio.gather(*(asyncio.to_thread(write, thread) for thread in range(8)))
        publisher.close()
        found = [(await pair.nobody.client.expect("n"))["param"] for _ in range(400)]
        for thread in range(8):
            assert [number for one, number in found if one == thread] == list(range(50))

    async def test_taps_see_what_is_written(self, pair: Pair, make: Callable[..., Any]) -> None:
        """By a publisher that has just begun, too."""
        async with observing(pair.nodes[0].service, lambda cmd: pair.nodes[1].service.write_all(cmd, None)) as observer:
            await write_all_ways(make(pair.url), pair)
            await eventually(lambda: sorted(observer.cmds()) == ["x", "x", "y", "z"])


class TestHistory:
    async def test_messages_are_kept_as_the_nodes_rules_say(self, pair: Pair, make: Callable[..., Any]) -> None:
        """With their positions; in channels without a rule nothing is kept."""
        publisher = make(pair.url)
        first = await publisher.write_channel("x", 1, "kept-a")
        second = await publisher.write_channel("x", 2, "kept-a")
        assert (second.epoch, second.offset) == (first.epoch, first.offset + 1)
        assert await publisher.write_channel("x", 1, "lobby") is None
        page = await pair.nodes[0].service.history("kept-a")
        assert [message.position.offset for message in page.messages if message.position] == [1, 2]

    async def test_they_are_kept_while_no_node_runs(self, pair: Pair, connect: Clients) -> None:
        """The rules stay in Redis: a restart of all nodes loses nothing."""
        await connect.close()
        for node in pair.nodes:
            await node.stop()
        async with Publisher(pair.url) as publisher:
            assert await publisher.write_channel("x", 1, "kept-a") is not None

    async def test_rules_survive_a_redis_that_lost_its_data(
        self, start_pair: Callable[[str], Awaitable[Pair]], own_redis: RedisServer
    ) -> None:
        """The nodes write them again."""
        pair = await start_pair(own_redis.url)
        await own_redis.restart()
        await eventually(lambda: own_redis.command("EXISTS", "gateway:rules"), 20)
        async with Publisher(pair.url) as publisher:
            assert await publisher.write_channel("x", 1, "kept-a") is not None

    @pytest.mark.parametrize(
        "text", ["rubbish", "5", '[5, {"match": "a b"}, {"match": "kept-*", "history": 5, "new": 1}]']
    )
    async def test_rubbish_in_place_of_the_rules_harms_nobody(self, redis: RedisServer, text: str) -> None:
        """What can be read counts."""
        await redis.command("SET", "gateway:rules", text)
        async with Publisher(redis.url) as publisher:
            assert (await publisher.write_channel("x", 1, "kept-a") is not None) == ("kept" in text)


class TestLife:
    @pytest.mark.parametrize("kind", [Publisher, SyncPublisher])
    @pytest.mark.parametrize(
        ("url", "named"),
        [("memory://", "memory://"), ("http://x", "http://x"), ("", "redis_url")],
    )
    def test_a_url_that_cannot_be_one_is_told_at_once(self, kind: Callable[..., Any], url: str, named: str) -> None:
        """When it is made."""
        with pytest.raises(InvalidSettings, match=named):
            kind(url)

    def test_the_environment_is_not_about_it(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A producer may run where somebody else's variables begin with GATEWAY_."""
        monkeypatch.setenv("GATEWAY_PORT", "tcp://10.0.0.1:80")
        monkeypatch.setenv("GATEWAY_CONFIG", str(tmp_path / "none.toml"))
        SyncPublisher("redis://localhost")

    async def test_an_absent_redis_is_told_and_tried_again(
        self, own_redis: RedisServer, make: Callable[..., Any]
    ) -> None:
        """Without the password in the URL; the next call may find it there."""
        port = free_port()
        release_port(port)
        publisher = make(f"redis://ada:hunter2@{HOST}:{port}/0", publish_timeout=0.3)
        with pytest.raises(Unavailable, match=f"ada:.*@{HOST}:{port}/0 within 0.3 s") as error:
            await publisher.write_all("x", None)
        assert "hunter2" not in str(error.value)
        await own_redis.stop()
        publisher = make(own_redis.url, publish_timeout=0.3)
        with pytest.raises(Unavailable):
            await publisher.write_all("x", None)
        await own_redis.start()
        await eventually(lambda: _succeeds(publisher.write_all("x", None)), tolerating=(Unavailable,))

    async def test_a_wrong_password_is_told(
        self, start_redis: Callable[..., Awaitable[RedisServer]], make: Callable[..., Any]
    ) -> None:
        """At once."""
        server = await start_redis(requirepass="secret")
        with pytest.raises(Unavailable, match=r"^Redis at .* refuses: WRONGPASS"):
            await make(f"redis://:wrong@{HOST}:{server.port}/0", publish_timeout=60).write_all("x", None)

    async def test_a_write_waits_for_a_redis_that_comes_back(
        self, own_redis: RedisServer, start_pair: Callable[[str], Awaitable[Pair]], connect: Clients
    ) -> None:
        """In the order of the calls; a channel with history loses nothing of it."""
        pair = await start_pair(own_redis.url)
        member = await pair.nodes[0].connect(connect, "kept-a")
        async with Publisher(own_redis.url, publish_timeout=30) as publisher:
            await own_redis.stop()
            writing = [asyncio.ensure_future(publisher.write_channel("n", number, "kept-a")) for number in range(5)]
            await own_redis.start()
            await asyncio.gather(*writing)
        numbers = [(await member.client.expect("n", 20))["param"] for _ in range(5)]
        assert numbers == list(range(5))

    async def test_nothing_is_left_behind(self, redis: RedisServer, make: Callable[..., Any]) -> None:
        """No connection to Redis and no key; closing twice is harmless, writing afterwards is told."""
        publisher = make(redis.url)
        await publisher.write_all("x", None)
        assert "visitor-" in await redis.cli("CLIENT", "LIST")
        await publisher.aclose()
        await publisher.aclose()
        await eventually(lambda: _has_left(redis))
        assert await redis.command("KEYS", "*") == []
        with pytest.raises(GatewayError, match="closed"):
            await publisher.write_all("x", None)

    async def test_closing_ends_what_still_waits(self, own_redis: RedisServer) -> None:
        """No thread is left waiting for a Redis that is away."""
        publisher = SyncPublisher(own_redis.url, publish_timeout=3600)
        await asyncio.to_thread(publisher.write_all, "x", None)
        own_redis.freeze()
        writing = asyncio.ensure_future(asyncio.to_thread(publisher.write_all, "x", None))
        await eventually(lambda: _waits(publisher))
        await asyncio.to_thread(publisher.close)
        with pytest.raises(Unavailable):
            await writing

    async def test_one_that_was_used_before_a_fork_says_so(self, redis: RedisServer) -> None:
        """In the child; one that was not used yet works there, and the parent's goes on."""
        script = f"""
import os
from gateway import GatewayError, SyncPublisher
used, unused = SyncPublisher({redis.url!r}), SyncPublisher({redis.url!r})
used.write_all("x", None)
if os.fork() == 0:
    try:
        used.write_all("x", None)
    except GatewayError as error:
        print(error, flush=True)
    used.close()
    unused.write_all("x", None)
    unused.close()
    print("child done", flush=True)
    os._exit(0)
print("child ended with", os.wait()[1], flush=True)
used.write_all("x", None)
used.close()
print("parent done")
"""
        printed = await output_of([sys.executable, "-W", "ignore", "-c", script])
        assert "make one after the fork\nchild done\nchild ended with 0\nparent done" in printed


class TestLoops:
    async def test_one_of_a_module_serves_each_loop_in_turn(self, pair: Pair) -> None:
        """As `asyncio.run` makes them one after the other; what an ended one was connected with has gone with it."""
        script = f"""
import asyncio
from gateway import Publisher
publisher = Publisher({pair.url!r})
for number in range(3):
    asyncio.run(publisher.write_channel("n", number, "lobby"))
asyncio.run(publisher.aclose())
"""
        assert await output_of([sys.executable, "-W", "error", "-X", "dev", "-c", script]) == ""
        assert [(await pair.nobody.client.expect("n"))["param"] for _ in range(3)] == [0, 1, 2]

    async def test_a_second_loop_is_refused_and_nothing_sent(self, pair: Pair) -> None:
        """While the first one lives: its connection cannot be used from another thread."""
        async with Publisher(pair.url) as publisher:

            def elsewhere() -> str:
                try:
                    asyncio.run(publisher.write_channel("n", "elsewhere", "lobby"))
                except GatewayError as error:
                    return str(error)
                return ""

            assert "another event loop" in await asyncio.to_thread(elsewhere)
            await publisher.write_channel("n", "here", "lobby")
        assert (await pair.nobody.client.expect("n"))["param"] == "here"

    async def test_children_of_a_fork_are_not_taken_for_one(self, pair: Pair) -> None:
        """Each asks and is answered under a name of its own, although both came from one publisher."""
        script = f"""
import asyncio, os
from gateway import ConnectionNotFound, Publisher
publisher = Publisher({pair.url!r})
there = os.fork()
async def write():
    for number in range(200):
        if there:
            await publisher.write_connection("n", number, {pair.nobody.id!r})
        else:
            try:
                await publisher.write_connection("n", number, {pair.nobody.id + "0"!r})
            except ConnectionNotFound:
                continue
            raise AssertionError("an answer to the other child")
asyncio.run(write())
if there:
    assert os.wait()[1] == 0
    print("parent done")
"""
        assert "parent done" in await output_of([sys.executable, "-c", script])

    @pytest.mark.parametrize("call", [SyncPublisher.__enter__, lambda publisher: publisher.write_all("x", 1)])
    async def test_a_call_that_would_block_a_loop_is_refused(
        self, pair: Pair, call: Callable[[SyncPublisher], object]
    ) -> None:
        """And nothing is sent; it says what to call instead."""
        publisher = SyncPublisher(pair.url)
        with pytest.raises(GatewayError, match=r"gateway\.Publisher"):
            call(publisher)
        publisher.close()
        assert await pair.received() == {"ada": [[], []], "nobody": [[]]}

    async def test_threads_that_are_none_are_refused(self, redis: RedisServer) -> None:
        """Under gevent, where a loop in a thread would be that of the whole process; the process goes on."""
        script = f"""
from gevent import monkey
monkey.patch_all()
import asyncio
from gateway import GatewayError, SyncPublisher
try:
    SyncPublisher({redis.url!r}).write_channel("n", 1, "lobby")
except GatewayError as error:
    print(error)
asyncio.run(asyncio.sleep(0))
print("and on")
"""
        printed = await output_of([sys.executable, "-W", "ignore", "-c", script])
        assert printed.startswith("threads are patched here")
        assert printed.endswith("and on")

    async def test_who_only_publishes_loads_no_server(self) -> None:
        """Nor what draws pages and measures: a cron job begins often."""
        script = "import sys; from gateway import SyncPublisher; print(*sys.modules)"
        loaded = {name.partition(".")[0] for name in (await output_of([sys.executable, "-c", script])).split()}
        assert loaded.isdisjoint({"aiohttp", "aiohttp_jinja2", "jinja2", "jwt", "prometheus_client", "uvloop"})


def _waits(publisher: SyncPublisher) -> bool:
    assert publisher._thread is not None
    place = publisher._thread._publisher._place
    return place is not None and place.guest is not None and place.guest.backplane.counters.waiting > 0


async def _succeeds(call: Awaitable[object]) -> bool:
    await call
    return True


async def _has_left(redis: RedisServer) -> bool:
    return "visitor-" not in await redis.cli("CLIENT", "LIST")
