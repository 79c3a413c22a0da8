"""What a client may cost: short requests with long answers, joins and leaves that everybody is told of.

By counts of bytes and messages. The paces of these nodes give back so little that no test lives to see it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, cast

import pytest

from gateway.config import Settings
from gateway.connections.connection import ConnectionInfo
from gateway.protocol.message import Message
from gateway.server.demo.chat import DemoHandler
from gateway.server.demo.example import ExampleHandler
from tests.harness import http
from tests.harness.client import Client, Clients
from tests.harness.fakes import make_connection
from tests.harness.node import Node, Nodes, lasting
from tests.harness.wait import eventually

V1 = ["gateway.v1.json"]
BURST = 65_536
"""Bytes at once: never less than the largest message, however small the rate."""
CHANNELS = 5
MOVES = 2 * CHANNELS
KEY = "key-of-this-test"
KEPT = {"match": "kept*", "history": 5000}

StartNode = Callable[..., Awaitable[Node]]


@pytest.fixture(scope="module")
def _dear() -> Iterator[Nodes]:
    with lasting(Nodes(1, "memory://", handler="dear:Dear", byte_rate=1, abuse_limit=10, channels=[KEPT])) as nodes:
        yield nodes


@pytest.fixture
def dear(_dear: Nodes) -> Node:
    """A node that gives back one byte a second; the module's own."""
    _dear[0].process.assert_running()
    return _dear[0]


class TestBytes:
    @staticmethod
    def limited(client: Client) -> list[Any]:
        errors = [message["param"] for message in client.received if message["cmd"] == "$error"]
        assert {error["code"] for error in errors} <= {"rate-limited"}
        return errors

    @pytest.mark.parametrize(
        ("cmd", "param"),
        [("return", 20_000), ("tell", 20_000), ("$history", {"limit": 1000}), ("$history", None)],
        ids=str,
    )
    async def test_short_requests_get_so_many_bytes_and_no_more(
        self, dear: Node, connect: Clients, cmd: str, param: Any
    ) -> None:
        """All of one packet; the others are told how long to wait."""
        channel = f"kept-{cmd}-{bool(param)}"
        for _ in range(3):
            await (await connect(dear, channel, protocols=V1)).request("fill", [7, 2500])
        client = await connect(dear, channel, protocols=V1)
        await client.expect("$welcome")
        for number in range(8):
            await client.send(cmd, param, channel, id=number)
        await client.expect("$error", id=7)
        if cmd == "tell":  # whose answers go the way of messages
            for _ in [m for m in client.received if m["cmd"] == "$reply"]:
                await client.expect("told")
        answers = [len(json.dumps(m)) for m in client.received if m["cmd"] in ("$reply", "told")]
        assert BURST < sum(answers) <= BURST + max(answers) + 8 * 200
        assert all(error["retry_after"] > 0 for error in self.limited(client))

    async def test_what_is_sent_counts_and_the_largest_message_passes(self, dear: Node, connect: Clients) -> None:
        """Whole, and the next one does not."""
        client = await connect(dear, protocols=V1)
        largest = "x" * (BURST - len(json.dumps({"cmd": "return", "param": "", "id": "request-1000"})))
        assert (await client.request("nothing", largest))["cmd"] == "$reply"
        codes = [(await client.request("nothing", "x" * 1000))["cmd"] for _ in range(3)]
        assert codes[-1] == "$error"
        self.limited(client)

    async def test_what_a_message_costs_others_is_not_its_sender_s(self, dear: Node, connect: Clients) -> None:
        """Writing to a channel is charged by what was read."""
        client, member = await connect(dear, "hall", protocols=V1), await connect(dear, "hall")
        for _ in range(20):
            assert (await client.request("fill", [1, 20_000], "hall"))["cmd"] == "$reply"
        assert [m["cmd"] for m in await member.receive_many(20)] == ["n"] * 20

    async def test_who_comes_back_to_much_is_not_taken_for_an_abuser(self, dear: Node, connect: Clients) -> None:
        """Its joins wait for what the first ones brought; other messages that do not are counted."""
        writer = await connect(dear, "kept-much", protocols=V1)
        at = (await writer.request("$join", None, "kept-much"))["param"]
        await writer.request("fill", [100, 1000])
        client = await connect(dear, protocols=V1)
        answer = await client.request("$join", {"since": {"epoch": at["epoch"], "offset": 0}}, "kept-much")
        assert answer["param"]["recovered"] is True
        for number in range(40):
            assert (await client.request("$join", None, f"other-{number}"))["param"]["code"] == "rate-limited"
        for _ in range(11):
            await client.send("return", 1, id=1)
        await client.expect_close(4429)

    async def test_who_waits_is_served_again(self, start_node: StartNode, connect: Clients) -> None:
        """After the time that was named."""
        node = await start_node("memory://", handler="dear:Dear", byte_rate=200_000, abuse_limit=0)
        client = await connect(node, protocols=V1)
        while (answer := await client.request("return", 300_000))["cmd"] == "$reply":
            pass
        assert 0 < answer["param"]["retry_after"] < 5

        async def served() -> bool:
            return (await client.request("return", 1))["cmd"] == "$reply"

        await eventually(served)

    async def test_zero_is_no_limit(self, start_node: StartNode, connect: Clients) -> None:
        node = await start_node("memory://", handler="dear:Dear", byte_rate=0)
        client = await connect(node, protocols=V1)
        for _ in range(8):
            assert (await client.request("return", 1_000_000))["cmd"] == "$reply"


class TestHistoryReplies:
    async def test_a_reply_is_a_page_and_the_client_reads_on(self, start_node: StartNode, connect: Clients) -> None:
        """The newest that fit, or the first ones after a position; nothing is left out on the way to the end."""
        node = await start_node("memory://", handler="dear:Dear", channels=[KEPT])
        client = await connect(node, "kept", protocols=V1)
        await client.request("fill", [100, 10_000])
        newest = (await client.request("$history", {"limit": 1000}, "kept"))["param"]
        assert len(json.dumps(newest)) < 300_000
        found = [message["offset"] for message in newest["messages"]]
        assert found == list(range(101 - len(found), 101))
        read: list[int] = []
        while len(read) < 100:
            since = {"epoch": newest["epoch"], "offset": len(read)}
            page = (await client.request("$history", {"since": since}, "kept"))["param"]
            assert len(json.dumps(page)) < 300_000
            assert page["offset"] == 100
            read += [message["offset"] for message in page["messages"]]
        assert read == list(range(1, 101))

    async def test_one_message_is_a_page_whatever_its_size(self, start_node: StartNode, connect: Clients) -> None:
        """Else nobody could read on behind it."""
        node = await start_node("memory://", handler="dear:Dear", channels=[KEPT], byte_rate=0)
        client = await connect(node, "kept", protocols=V1)
        await client.request("fill", [3, 300_000])
        since = {"epoch": (await client.request("$history", {"limit": 0}, "kept"))["param"]["epoch"], "offset": 1}
        for param in ({}, {"since": since}):
            page = (await client.request("$history", param, "kept"))["param"]
            assert [message["offset"] for message in page["messages"]] == [2 if param else 3]


@pytest.fixture(scope="module")
def _slow() -> Iterator[Nodes]:
    settings = {"message_rate": 0.01, "message_burst": 1000, "max_channels_per_connection": CHANNELS}
    with lasting(Nodes(1, "memory://", api_key=KEY, abuse_limit=0, **settings)) as nodes:
        yield nodes


@pytest.fixture
def slow(_slow: Nodes) -> Node:
    """A node with the demo that gives back a message in a hundred seconds, a join in a thousand; the module's own."""
    _slow[0].process.assert_running()
    return _slow[0]


WAYS = {
    "the gateway's own": lambda channel: (("$join", None, channel), ("$leave", None, channel)),
    "the demo's": lambda channel: (("join-room", {"room": channel}, None), ("leave-room", {"room": channel}, None)),
}


class TestJoiningAndLeaving:
    @pytest.mark.parametrize("way", WAYS)
    async def test_so_many_are_announced_and_no_more(self, slow: Node, connect: Clients, way: str) -> None:
        """Whoever goes on is told to wait; members hear of no more than what was done."""
        watcher = await connect(slow, f"hall-{len(way)}")
        client = await connect(slow, protocols=V1)
        join, leave = WAYS[way](f"hall-{len(way)}")
        answers = []
        for _ in range(20):
            answers += [await client.request(*join), await client.request(*leave)]
        done = sum(answer["cmd"] == "$reply" for answer in answers)
        assert {a["param"]["code"] for a in answers if a["cmd"] == "$error"} == {"rate-limited"}
        assert all(a["param"]["retry_after"] > 0 for a in answers if a["cmd"] == "$error")
        assert done == MOVES + 1
        await client.close()
        told = await watcher.receive_many(done + done % 2)
        assert [message["param"]["connected"] for message in told] == [True, False] * (len(told) // 2)
        await watcher.expect_nothing_but()

    async def test_all_channels_may_be_changed_for_others_at_once(self, slow: Node, connect: Clients) -> None:
        """As a page does that is turned, or a client that comes back."""
        client = await connect(slow, protocols=V1)
        for cmd, names in (("$join", "abcde"), ("$leave", "abcde")):
            for name in names:
                assert (await client.request(cmd, None, f"page-{name}"))["cmd"] == "$reply"

    async def test_what_the_server_does_is_not_damped(self, slow: Node, connect: Clients) -> None:
        """By the API, however often."""
        client = await connect(slow, protocols=V1)
        id = (await client.expect("$welcome"))["param"]["connection"]
        for _ in range(MOVES):
            for method in ("PUT", "DELETE"):
                url = slow.url(f"/api/connections/{id}/channels/moved")
                answer = await http.request(method, url, headers={"Authorization": f"Bearer {KEY}"})
                assert answer.status in (200, 204), answer
        assert (await client.request("$join", None, "after-that"))["cmd"] == "$reply"


async def test_a_flood_of_hellos_looks_people_up_once() -> None:
    """The demo tells everyone's name to whoever comes: one look for all who come at the same time."""
    looks = []

    class People:
        settings = Settings()

        async def write_channel(self, *arguments: Any, **how: Any) -> None:
            """Nobody is here to be told."""

        async def get_connections_by_channel(self, channel: str) -> AsyncIterator[ConnectionInfo]:
            looks.append(channel)
            yield ConnectionInfo("n~1", "n", "ada", "Ada", (channel,), 0, "")

    connection, _ = make_connection("n~1")
    connection.channels, connection.message = ("hall",), Message("hall", "hello", None)
    handler = ExampleHandler(DemoHandler())
    hellos = (handler.on(cast("Any", People()), connection, "hello", None) for _ in range(100))
    assert await asyncio.gather(*hellos) == [{"people": {"ada": "Ada"}}] * 100
    assert looks == ["hall"]
