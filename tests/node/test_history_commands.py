"""`$join` with a position, `$history`, offsets, and the binary protocol, as clients of real nodes see them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gateway.config import Rule
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope
from tests.harness.client import Clients
from tests.harness.feed import JSON, MSGPACK, RULES, Feed, assert_contiguous, join, numbered, params, saw, settled
from tests.harness.node import Nodes
from tests.harness.numbered import running
from tests.harness.redis import RedisServer

pytestmark = pytest.mark.redis

WRONG: list[tuple[str, Any, str, str]] = [
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
]


@pytest.fixture
async def feed(redis: RedisServer) -> AsyncIterator[Feed]:
    async with running(redis.url) as backplane:
        yield Feed(backplane)


@pytest.fixture
async def nodes(start_nodes: Callable[..., Awaitable[Nodes]], redis: RedisServer) -> Nodes:
    return await start_nodes(2, redis, channels=RULES)


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

    async def test_what_cannot_be_recovered_is_not(self, nodes: Nodes, connect: Clients) -> None:
        """Beyond the end, of another epoch, trimmed: nothing is written, live messages follow."""
        for channel, since in (("kept-1", {"offset": 9}), ("kept-2", {"epoch": "other"}), ("short", {"offset": 0})):
            client = await connect(nodes[0], protocols=[JSON])
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

    async def test_wrong_requests_are_refused(self, nodes: Nodes, connect: Clients) -> None:
        """With a code, and the name of the field where there is one."""
        client = await connect(nodes[0], "kept", "hidden", protocols=[JSON])
        for cmd, param, channel, code in WRONG:
            answer = await client.request(cmd, param, channel)
            assert (answer["cmd"], answer["param"]["code"]) == ("$error", code), (cmd, param)
            assert ("field" in answer["param"]) == (code == "invalid-param"), (cmd, param)

    async def test_what_a_person_injects_is_not_kept(self, nodes: Nodes, connect: Clients, feed: Feed) -> None:
        """It reaches the members between messages that are."""
        client = await connect(nodes[0], "kept", protocols=[JSON])
        await client.expect("$welcome")
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
        for client in (binary, text):
            assert (await client.receive())["cmd"] == "$welcome"
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
