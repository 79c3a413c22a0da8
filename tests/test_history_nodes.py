"""History on real nodes: joins that resume, seams under load, outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from gateway import codec
from gateway.backplane import Backplane, Target
from gateway.codec import Envelope
from gateway.config import Rule
from gateway.errors import Unavailable
from tests.harness.client import Client, Clients, Message
from tests.harness.node import Node, Nodes
from tests.harness.proxy import Proxy
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually
from tests.numbered import running

pytestmark = pytest.mark.redis

JSON, MSGPACK = "gateway.v1.json", "gateway.v1.msgpack"
RULES: list[dict[str, Any]] = [
    {"match": "kept*", "history": 20_000, "ttl": 60},
    {"match": "short", "history": 3, "ttl": 60},
    {"match": "hidden", "presence": False},
]
KEPT = Rule.model_validate(RULES[0])
PAUSE = 0.002

StartNodes = Callable[..., Awaitable[Nodes]]


class Feed:
    """Publishes number after number to `kept` and to `loose`, without waiting for one before the next."""

    def __init__(self, backplane: Backplane) -> None:
        self._backplane = backplane
        self._under_way: set[asyncio.Task[None]] = set()
        self.sent = 0

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[Feed]:
        """Publish for the length of a `with`; return when the last one is answered."""
        publishing = asyncio.create_task(self._publish_on())
        try:
            yield self
        finally:
            publishing.cancel()
            with suppress(asyncio.CancelledError):
                await publishing
            await asyncio.gather(*self._under_way)

    async def one(self) -> int:
        """Publish the next number, alone."""
        self.sent += 1
        await self._publish(self.sent)
        return self.sent

    async def _publish_on(self) -> None:
        while True:
            for _ in range(2):
                self.sent += 1
                task = asyncio.create_task(self._publish(self.sent))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            await asyncio.sleep(PAUSE)

    async def _publish(self, number: int) -> None:
        kept, loose = (Envelope(codec.encode("n", number, channel)) for channel in ("kept", "loose"))
        with suppress(Unavailable):  # `loose` alone: what becomes of one on a broken link is not known
            await self._backplane.publish(Target("channel", "loose"), codec.pack(loose))
        await self._backplane.append("kept", kept, KEPT)


@pytest.fixture
async def feed(redis: RedisServer) -> AsyncIterator[Feed]:
    async with running(redis.url) as backplane:
        yield Feed(backplane)


@pytest.fixture
async def nodes(start_nodes: StartNodes, redis: RedisServer) -> Nodes:
    return await start_nodes(2, redis, channels=RULES)


async def join(client: Client, channel: str = "kept", since: dict[str, Any] | None = None) -> dict[str, Any]:
    """Join and return the answer."""
    answer = await client.request("$join", since and {"since": since}, channel, deadline=20)
    assert answer["cmd"] == "$reply", answer
    return dict(answer["param"])


def numbered(messages: Iterable[Message], channel: str = "kept") -> list[Message]:
    return [message for message in messages if message["cmd"] == "n" and message["channel"] == channel]


def params(messages: Iterable[Message], channel: str = "kept") -> list[int]:
    return [message["param"] for message in numbered(messages, channel)]


def assert_contiguous(found: list[int], last: int | None = None) -> None:
    assert found
    assert found == list(range(found[0], found[0] + len(found)))
    assert last is None or found[-1] == last


async def saw(client: Client, number: int, channel: str = "kept", deadline: float = 20) -> None:
    await eventually(lambda: number in params(client.received[-500:], channel), deadline, what=f"{number} in {channel}")


async def more(client: Client, messages: int) -> None:
    before = len(client.received)
    await eventually(lambda: len(client.received) > before + messages)


async def settled(redis: RedisServer, channel: str, members: int) -> None:
    """Wait until so many have joined a channel that they named when they connected."""

    async def joined() -> bool:
        return await redis.command("SCARD", f"gateway:members:{channel}") == members

    await eventually(joined)


class TestCommands:
    async def test_offsets_are_for_v1_clients_of_channels_with_history(
        self, nodes: Nodes, connect: Clients, feed: Feed
    ) -> None:
        """Plain clients get the original's messages."""
        clients = [await connect(nodes[0], "kept", "loose", protocols=names) for names in ((), (JSON,), (MSGPACK,))]
        plain, v1, binary = clients
        await settled(nodes.redis, "loose", 3)
        await feed.one()
        message = {"channel": "kept", "cmd": "n", "param": 1}
        assert await plain.expect("n", channel="kept") == message
        assert await v1.expect("n", channel="kept") == message | {"offset": 1}
        assert await binary.expect("n", channel="kept") == message | {"offset": 1}
        for client in clients:
            assert "offset" not in await client.expect("n", channel="loose")

    async def test_a_join_is_answered_with_the_position(self, nodes: Nodes, connect: Clients, feed: Feed) -> None:
        """The same on every node, before the first message and after it; null where nothing is kept."""
        one, other = [await connect(node, protocols=[JSON]) for node in nodes]
        empty = await join(one)
        assert (empty["offset"], empty["recovered"]) == (0, False)
        await feed.one()
        await one.expect("n")
        assert await join(other) == {"epoch": empty["epoch"], "offset": 1, "recovered": False}
        assert await join(one) == {"epoch": empty["epoch"], "offset": 1, "recovered": False}
        nowhere = {"epoch": None, "offset": None, "recovered": False}
        assert await join(one, "loose") == nowhere
        assert await join(one, "hidden", {"epoch": "x", "offset": 1}) == nowhere

    async def test_a_client_that_resumes_gets_what_it_missed_first(
        self, nodes: Nodes, connect: Clients, feed: Feed
    ) -> None:
        """On any node; then live."""
        position = await join(await connect(nodes[0], protocols=[JSON]))
        for _ in range(5):
            await feed.one()
        since = {"epoch": position["epoch"], "offset": 2}
        for node, protocol in ((nodes[0], JSON), (nodes[1], JSON), (nodes[1], MSGPACK)):
            client = await connect(node, protocols=[protocol])
            end = feed.sent
            assert await join(client, since=since) == {"epoch": since["epoch"], "offset": end, "recovered": True}
            assert [(m["param"], m["offset"]) for m in numbered(client.received)] == [(n, n) for n in range(3, end + 1)]
            assert client.received[-1]["cmd"] == "$reply"
            last = await feed.one()
            await saw(client, last)
            assert_contiguous(params(client.received), last)

    @pytest.mark.parametrize("since", [{"offset": 9}, {"epoch": "other"}, {"channel": "short", "offset": 0}])
    async def test_what_cannot_be_recovered_is_not(
        self, nodes: Nodes, connect: Clients, feed: Feed, since: dict[str, Any]
    ) -> None:
        """Beyond the end, of another epoch, trimmed: nothing is written, live messages follow."""
        client = await connect(nodes[0], protocols=[JSON])
        channel = since.pop("channel", "kept")
        rule = Rule.model_validate(RULES[1] if channel == "short" else RULES[0])
        async with running(nodes.redis.url) as backplane:
            for number in range(1, 5):
                await backplane.append(channel, Envelope(codec.encode("n", number, channel)), rule)
            position = await backplane.append(channel, Envelope(codec.encode("n", 5, channel)), rule)
            answer = await join(client, channel, {"epoch": position.epoch, "offset": 5} | since)
            assert answer == {"epoch": position.epoch, "offset": 5, "recovered": False}
            await backplane.append(channel, Envelope(codec.encode("n", 6, channel)), rule)
        await saw(client, 6, channel)
        assert params(client.received, channel) == [6]

    async def test_history_is_read_by_members(self, nodes: Nodes, connect: Clients, feed: Feed) -> None:
        """The newest, or the first after a position; oldest first, as they were written."""
        client = await connect(nodes[0], "kept", "hidden", protocols=[JSON])
        for _ in range(5):
            await feed.one()
        whole = (await client.request("$history", None, "kept"))["param"]
        assert whole["offset"] == 5
        assert whole["messages"][0] == {"channel": "kept", "cmd": "n", "param": 1, "offset": 1}
        assert [message["param"] for message in whole["messages"]] == [1, 2, 3, 4, 5]
        since = {"epoch": whole["epoch"], "offset": 1}
        for param, expected in (({"limit": 2}, [4, 5]), ({"since": since, "limit": 2}, [2, 3]), ({"limit": 0}, [])):
            found = (await client.request("$history", param, "kept"))["param"]
            assert [message["param"] for message in found["messages"]] == expected

    @pytest.mark.parametrize(
        ("cmd", "param", "channel", "code"),
        [
            ("$history", None, "loose", "forbidden"),
            ("$history", None, "hidden", "forbidden"),
            ("$presence", None, "hidden", "forbidden"),
            ("$history", {"limit": -1}, "kept", "invalid-param"),
            ("$history", {"limit": True}, "kept", "invalid-param"),
            ("$history", {"since": 5}, "kept", "invalid-param"),
            ("$history", [], "kept", "invalid-param"),
            ("$join", {"since": {"epoch": 1, "offset": 1}}, "kept", "invalid-param"),
            ("$join", {"since": {"epoch": "e", "offset": "1"}}, "kept", "invalid-param"),
            ("$join", {"since": {"epoch": "e", "offset": -1}}, "kept", "invalid-param"),
            ("$join", "since", "kept", "invalid-param"),
        ],
    )
    async def test_wrong_requests_are_refused(
        self, nodes: Nodes, connect: Clients, cmd: str, param: Any, channel: str, code: str
    ) -> None:
        """With a code, and the name of the field where there is one."""
        client = await connect(nodes[0], "kept", "hidden", protocols=[JSON])
        answer = await client.request(cmd, param, channel)
        assert (answer["cmd"], answer["param"]["code"]) == ("$error", code)
        assert ("field" in answer["param"]) == (code == "invalid-param")

    async def test_what_a_person_injects_is_not_kept(self, nodes: Nodes, connect: Clients, feed: Feed) -> None:
        """It reaches the members between messages that are."""
        client = await connect(nodes[0], "kept", protocols=[JSON])
        await feed.one()
        await nodes.redis.publish("gateway:channel:kept", "by-hand")
        assert "offset" not in await client.expect("by-hand")
        await feed.one()
        await saw(client, 2)
        whole = (await client.request("$history", None, "kept"))["param"]
        assert [message["cmd"] for message in whole["messages"]] == ["n", "n"]

    async def test_binary_clients_speak_msgpack_both_ways(self, nodes: Nodes, connect: Clients) -> None:
        """Requests, replies, errors; frames of the other kind are refused on both."""
        binary = await connect(nodes[0], "loose", protocols=[MSGPACK])
        text = await connect(nodes[1], "loose", protocols=[JSON])
        assert (await binary.receive())["cmd"] == "$welcome"
        await binary.send("chat", {"text": "grüße"}, "loose")
        for client in (binary, text):
            assert (await client.expect("chat"))["param"]["text"] == "grüße"
        assert (await binary.request("nothing"))["param"]["code"] == "unknown-command"
        await binary.send_raw('{"cmd": "chat", "param": {"text": "x"}}')
        await text.send_raw(b"\x81\xa3cmd\xa4chat")
        for client in (binary, text):
            assert (await client.expect("$error"))["param"]["code"] == "bad-message"
        await binary.send_raw(b"\xc1")
        assert (await binary.expect("$error"))["param"]["code"] == "bad-message"


class Wanderer:
    """A client that comes and goes between nodes, and resumes each time."""

    def __init__(self, connect: Clients, nodes: Iterable[Node], protocol: str) -> None:
        self._connect = connect
        self._nodes = list(nodes)
        self._protocol = protocol
        self._position: dict[str, Any] | None = None
        self.messages: list[Message] = []

    async def wander(self, times: int) -> None:
        for turn in range(times):
            client = await self._come(self._nodes[turn % len(self._nodes)])
            await more(client, 20)
            await client.drop()
            self._leave(client)

    async def stay(self, last: int) -> None:
        """Come once more, and stay until this number has come."""
        client = await self._come(self._nodes[0])
        if not self.messages or self.messages[-1]["param"] != last:
            await saw(client, last)
        self._leave(client)

    async def _come(self, node: Node) -> Client:
        client = await self._connect(node, protocols=[self._protocol])
        answer = await join(client, since=self._position)
        assert answer["recovered"] is (self._position is not None)
        self._position = {"epoch": answer["epoch"], "offset": answer["offset"]}
        return client

    def _leave(self, client: Client) -> None:
        found = numbered(client.received)
        self.messages += found
        if found:
            assert self._position is not None
            self._position["offset"] = found[-1]["offset"]


async def test_a_seam_loses_and_doubles_nothing(nodes: Nodes, connect: Clients, feed: Feed) -> None:
    """Under load clients leave and resume, here and there: each sees every message once, in order."""
    wanderers = [Wanderer(connect, nodes[::step], protocol) for step in (1, -1) for protocol in (JSON, JSON, MSGPACK)]
    async with feed.flowing():
        await asyncio.gather(*(wanderer.wander(12) for wanderer in wanderers))
    await asyncio.gather(*(wanderer.stay(feed.sent) for wanderer in wanderers))
    for wanderer in wanderers:
        assert_contiguous([message["param"] for message in wanderer.messages], feed.sent)
        assert_contiguous([message["offset"] for message in wanderer.messages])


async def reset(proxy: Proxy, redis: RedisServer) -> None:
    proxy.reset()


async def kill(proxy: Proxy, redis: RedisServer) -> None:
    await redis.command("CLIENT", "KILL", "TYPE", "pubsub")


async def silence(proxy: Proxy, redis: RedisServer) -> None:
    """Let the node hear nothing until it has dialled anew, as a dead route does."""
    accepted = proxy.accepted
    proxy.to_client.black_hole()
    await eventually(lambda: proxy.accepted > accepted, 20, what="the node dials anew")
    proxy.heal()


async def restart(proxy: Proxy, redis: RedisServer) -> None:
    await redis.restart(keep_data=True)


class TestOutages:
    @pytest.mark.parametrize("fault", [reset, kill, silence, restart], ids=lambda fault: fault.__name__)
    async def test_history_loses_and_doubles_nothing(
        self,
        start_nodes: StartNodes,
        own_redis: RedisServer,
        start_proxy: Callable[[RedisServer], Proxy],
        connect: Clients,
        fault: Callable[[Proxy, RedisServer], Awaitable[None]],
    ) -> None:
        """Members get what the node has missed, in order; of other channels the loss is told."""
        proxy = start_proxy(own_redis)
        node = (await start_nodes(1, f"redis://127.0.0.1:{proxy.port}/0", channels=RULES))[0]
        clients = [await connect(node, "kept", "loose", protocols=names) for names in ((JSON,), (MSGPACK,), ())]
        await settled(own_redis, "loose", 3)
        async with running(own_redis.url) as backplane:
            feed = Feed(backplane)
            async with feed.flowing():
                for _ in range(2):
                    await self._flows(clients[0], feed, "kept")
                    await fault(proxy, own_redis)
                    for channel in ("kept", "loose"):
                        await self._flows(clients[0], feed, channel)
            for client in clients:
                await saw(client, feed.sent)
                await saw(client, feed.sent, "loose")
        for client in clients:
            assert_contiguous(params(client.received), feed.sent)
            assert not [m for m in client.received if m["cmd"] == "$gap" and m["channel"] == "kept"]
        for client in clients[:2]:
            assert_told(client.received)
        assert "$gap" not in [message["cmd"] for message in clients[2].received]

    async def _flows(self, client: Client, feed: Feed, channel: str) -> None:
        before = feed.sent
        await eventually(lambda: params(client.received[-500:], channel)[-1:] > [before], 20, what=f"{channel} flows")

    async def test_a_redis_that_lost_its_data_is_told(self, nodes: Nodes, connect: Clients, feed: Feed) -> None:
        """New epoch, `$gap` with the position of the last message; what comes after it is delivered."""
        clients = [await connect(node, protocols=[JSON]) for node in nodes]
        old, _ = [(await join(client))["epoch"] for client in clients]
        for _ in range(3):
            await feed.one()
        for client in clients:
            await saw(client, 3)
        await nodes.redis.command("FLUSHALL")
        for _ in range(3):
            await feed.one()
        for client in clients:
            await saw(client, 6)
            told = await client.expect("$gap", channel="kept")
            assert told["param"]["since"] == {"epoch": old, "offset": 3}
            assert told["param"]["epoch"] not in (old, None)
            assert [m["offset"] for m in numbered(client.received)] == [1, 2, 3, 1, 2, 3]
            assert params(client.received) == [1, 2, 3, 4, 5, 6]
            assert len([m for m in client.received if m["cmd"] == "$gap"]) == 1

    async def test_an_outage_that_history_cannot_cover_is_told(
        self,
        start_nodes: StartNodes,
        own_redis: RedisServer,
        start_proxy: Callable[[RedisServer], Proxy],
        connect: Clients,
    ) -> None:
        """`$gap` with the last position, then what is left."""
        proxy = start_proxy(own_redis)
        node = (await start_nodes(1, f"redis://127.0.0.1:{proxy.port}/0", channels=RULES))[0]
        client = await connect(node, protocols=[JSON])
        rule = Rule.model_validate(RULES[1])
        async with running(own_redis.url) as backplane:

            async def write(number: int) -> None:
                await backplane.append("short", Envelope(codec.encode("n", number, "short")), rule)

            epoch = (await join(client, "short"))["epoch"]
            await write(1)
            await saw(client, 1, "short")
            proxy.cut()
            for number in range(2, 8):
                await write(number)
            proxy.heal()
            await saw(client, 7, "short")
        assert params(client.received, "short") == [1, 5, 6, 7]
        gap = await client.expect("$gap", channel="short")
        assert gap["param"] == {"epoch": epoch, "since": {"epoch": epoch, "offset": 1}}
        assert client.received.index(gap) < client.received.index(numbered(client.received, "short")[1])


def assert_told(received: list[Message]) -> None:
    """Fail if a number of `loose` is missing, doubled or out of order, unless a `$gap` stands where it is missing."""
    last, told = 0, True
    for message in received:
        if message["channel"] != "loose" or message["cmd"] not in ("n", "$gap"):
            continue
        if message["cmd"] == "$gap":
            told = True
            assert message["param"] == {}
            continue
        number = message["param"]
        assert number > last
        assert told or number == last + 1, f"{last} is followed by {number}, and nobody told"
        last, told = number, False
