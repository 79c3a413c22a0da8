"""History of real nodes under load: clients that come and go, and every kind of outage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest

from gateway.config import Rule
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope
from tests.harness.client import Client, Clients, Message
from tests.harness.feed import (
    JSON,
    MSGPACK,
    RULES,
    Feed,
    assert_contiguous,
    assert_told,
    flows,
    join,
    more,
    numbered,
    params,
    saw,
    settled,
)
from tests.harness.node import Node, Nodes
from tests.harness.numbered import running
from tests.harness.proxy import Proxy
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

pytestmark = pytest.mark.redis

StartNodes = Callable[..., Awaitable[Nodes]]


@pytest.fixture
async def feed(redis: RedisServer) -> AsyncIterator[Feed]:
    async with running(redis.url) as backplane:
        yield Feed(backplane)


@pytest.fixture
async def nodes(start_nodes: StartNodes, redis: RedisServer) -> Nodes:
    return await start_nodes(2, redis, channels=RULES)


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
                    await flows(clients[0], feed, "kept")
                    await fault(proxy, own_redis)
                    for channel in ("kept", "loose"):
                        await flows(clients[0], feed, channel)
            for client in clients:
                await saw(client, feed.sent)
                await saw(client, feed.sent, "loose")
        for client in clients:
            assert_contiguous(params(client.received), feed.sent)
            assert not [m for m in client.received if m["cmd"] == "$gap" and m["channel"] == "kept"]
        for client in clients[:2]:
            assert_told(client.received)
        assert "$gap" not in [message["cmd"] for message in clients[2].received]

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

    @pytest.mark.parametrize("seconds", [0, 1], ids=["at once", "a second later"])
    async def test_what_is_accepted_by_an_emptied_redis_reaches_everybody(
        self, start_nodes: StartNodes, own_redis: RedisServer, connect: Clients, seconds: float
    ) -> None:
        """Under load, before the nodes have come back as well: behind one `$gap`, in order and once, on all nodes."""
        nodes = await start_nodes(2, own_redis, channels=RULES)
        clients = [await connect(node, protocols=[JSON]) for node in nodes for _ in range(2)]
        epochs = {(await join(client))["epoch"] for client in clients}
        async with running(own_redis.url) as backplane:
            await Feed(backplane).one()
        for client in clients:
            await saw(client, 1)
        for turn in range(1, 3):
            await own_redis.kill()
            await asyncio.sleep(seconds)  # how long it is away: nodes look less and less often
            await own_redis.start()
            async with running(own_redis.url) as backplane:  # a stranger, who waits for nobody
                feed = Feed(backplane)
                feed.sent = turn * 10_000
                async with feed.flowing():
                    await flows(clients[0], feed)
                    await flows(clients[-1], feed)
            accepted = list(range(turn * 10_000 + 1, feed.sent + 1))
            for client in clients:
                await saw(client, feed.sent)
                gaps = [m for m in client.received if m["cmd"] == "$gap" and m["channel"] == "kept"]
                assert len(gaps) == turn
                behind = numbered(client.received[client.received.index(gaps[-1]) :])
                assert [m["param"] for m in behind] == accepted
                assert [m["offset"] for m in behind] == list(range(1, len(accepted) + 1))
                assert gaps[-1]["param"]["epoch"] not in epochs
            epochs |= {
                m["param"]["epoch"] for m in clients[0].received if m["cmd"] == "$gap" and m["channel"] == "kept"
            }

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

    async def test_a_redis_that_came_back_from_a_backup_is_told(
        self, start_nodes: StartNodes, own_redis: RedisServer, connect: Clients
    ) -> None:
        """The offsets of the lost messages are given out again: a new epoch, and nothing passes for another."""
        nodes = await start_nodes(2, own_redis, channels=RULES)
        clients = [await connect(node, protocols=[JSON]) for node in nodes]
        epoch, _ = [(await join(client))["epoch"] for client in clients]
        async with running(own_redis.url) as backplane:
            feed = Feed(backplane)
            for number in range(1, 7):
                await feed.one()
                if number == 3:
                    await own_redis.command("SAVE")
            for client in clients:
                await saw(client, 6)
            await own_redis.kill(keep_data=True)
            await own_redis.start()
            for _ in range(4):
                await feed.one()
            for client in clients:
                await saw(client, 10)
        for client in clients:
            assert params(client.received) == [*range(1, 11)]
            gap = await client.expect("$gap", channel="kept")
            assert gap["param"]["epoch"] != epoch
            assert client.received.index(gap) < client.received.index(numbered(client.received)[6])
        late = await connect(nodes[0], protocols=[JSON])
        assert not (await join(late, since={"epoch": epoch, "offset": 6}))["recovered"]
