"""The client in Python: what it sends and shows is what was meant, and how long it waits is as long as was said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest
from aiohttp import web

from gateway.client import Message, connect
from gateway.client.retry import Backoff
from gateway.client.times import LONGEST, limit
from gateway.errors import Forbidden, GatewayError, NotConnected
from tests.harness.scripted import Scripted
from tests.harness.wait import eventually

PAGE = "<!doctype html>\n<title>502 Bad Gateway</title>"


class Colour(Enum):
    """As applications have them."""

    RED = "red"


@dataclass
class Point:
    """As applications have them."""

    x: float
    colour: Colour = Colour.RED


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with Scripted().running() as server:
        yield server


async def test_half_a_surrogate_pair_becomes_u_fffd(server: Scripted) -> None:
    """In texts, keys, the command and the channel, by `send` and `request`; a whole pair is what it stands for."""
    async with connect(server.url) as client:
        await client.send("x\ud83d", {"a\udc00": ["nice \ud83d", "\ud83d\ude00", "\ud83d\ud83d!"]}, channel="y\ud800")
        await client.request("x", "\udfff")
    assert server.asked[0] == {
        "cmd": "x\ufffd",
        "channel": "y\ufffd",
        "param": {"a\ufffd": ["nice \ufffd", "\U0001f600", "\ufffd\ufffd!"]},
    }
    assert server.asked[1]["param"] == "\ufffd"


HOLDING_ITSELF: dict[str, Any] = {}
HOLDING_ITSELF["me"] = [HOLDING_ITSELF]


@pytest.mark.parametrize(
    ("param", "place", "what"),
    [
        ({"b": b"abc"}, "param.b", "bytes"),
        ([0, {"b": bytearray(1)}], "param.1.b", "bytearray"),
        (memoryview(b"a"), "param", "memoryview"),
        ({"tags": {"a"}}, "param.tags", "set"),
        (float("nan"), "param", "nan"),
        ([1, float("-inf")], "param.1", "-inf"),
        (Point(float("inf")), "param.x", "inf"),
        ({"n": 2**64}, "param.n", str(2**64)),
        ({1: "one"}, "param", "key"),
        ({"call": print}, "param.call", "builtin_function_or_method"),
        (1j, "param", "complex"),
        (HOLDING_ITSELF, "param.me.0", "within itself"),
    ],
)
async def test_what_json_cannot_carry_is_refused_by_its_place(
    server: Scripted, param: object, place: str, what: str
) -> None:
    """At once, connected or not, and nothing is sent."""
    client = connect(server.url)
    for call in (client.send, client.request):
        with pytest.raises(TypeError) as refused:
            await call("x", param)
        assert str(refused.value).startswith(place)
        assert what in str(refused.value)


async def test_what_json_carries_is_sent(server: Scripted) -> None:
    """Dates, enumerations and dataclasses as people mean them."""
    async with connect(server.url) as client:
        await client.request("x", {"at": datetime(2026, 1, 2, tzinfo=UTC), "point": Point(0.5), "t": (None, True)})
    assert server.asked[0]["param"] == {
        "at": "2026-01-02T00:00:00+00:00",
        "point": {"x": 0.5, "colour": "red"},
        "t": [None, True],
    }


@pytest.mark.parametrize("seconds", [0, float("inf"), 25 * 86_400, 30 * 86_400, 1e12])
async def test_a_time_may_be_as_long_as_one_likes(server: Scripted, seconds: float) -> None:
    """0 and infinity are no limit: the answer comes when it comes."""
    answered = asyncio.Event()

    async def wait(socket: web.WebSocketResponse) -> None:
        await answered.wait()

    server.steps = [wait]
    async with connect(server.url, timeout=seconds, max_delay=seconds) as client:
        asking = [asyncio.create_task(client.request("x")), asyncio.create_task(client.request("y", timeout=seconds))]
        await eventually(lambda: client.stats().pending == 2)
        assert not any(one.done() for one in asking)
        answered.set()
        assert await asyncio.gather(*asking) == [{}, {}]


@pytest.mark.parametrize("seconds", [-1, float("nan")])
async def test_what_is_no_time_is_refused_by_its_name(server: Scripted, seconds: float) -> None:
    """Where it is given."""
    for name in ("timeout", "first_delay", "max_delay"):
        with pytest.raises(ValueError, match=name):
            connect(server.url, **{name: seconds})  # type: ignore[arg-type]
    async with connect(server.url) as client:
        with pytest.raises(ValueError, match="timeout"):
            await client.request("x", timeout=seconds)


def test_no_limit_lets_the_pauses_grow_and_no_first_pause_does_not_spin() -> None:
    """A ceiling that is none, and a beginning at once."""
    backoff = Backoff(0, limit("max_delay", 0) or LONGEST, lambda: 0.5)
    assert [backoff.next() for _ in range(4)] == [0, 0.25, 0.5, 1]


@pytest.mark.parametrize("token", [PAGE, "e30.e30.s\n", "two words", "x" * 20_000, b"bytes"])
async def test_what_cannot_be_a_token_is_said_without_quoting_it(server: Scripted, token: Any) -> None:
    """A fixed one at once, one from a function after five; nothing is asked of the server."""
    asked: list[object] = []

    def source() -> Any:
        asked.append(token)
        return token

    for given in (token, source):
        with pytest.raises(NotConnected, match=r"expected a token, got a (str|bytes) that") as refused:
            await connect(server.url, token=given, first_delay=0.01)
        assert repr(token) not in str(refused.value)
    assert len(asked) == 5
    assert server.tokens == []


async def test_a_function_that_comes_to_its_senses_is_forgiven(server: Scripted) -> None:
    """As a server that was restarted."""
    answers = [PAGE] * 4 + ["good"]
    async with connect(server.url, token=lambda: answers.pop(0), first_delay=0.01):
        assert server.tokens == ["Bearer good"]


def _taking_out(reason: str) -> Callable[[web.WebSocketResponse], Any]:
    async def take_out(socket: web.WebSocketResponse) -> None:
        await socket.send_json({"channel": "lobby", "cmd": "$left", "param": {"reason": reason}})

    return take_out


def _joins(server: Scripted) -> int:
    return [one["cmd"] for one in server.asked].count("$join")


@pytest.mark.parametrize("reason", ["forbidden", "removed"])
async def test_a_channel_that_the_server_takes_us_out_of_is_told_and_not_joined_again(
    server: Scripted, reason: str
) -> None:
    """To readers of any command in it; who wants in asks anew, and is in for good."""
    async with connect(server.url, channels=["lobby"], first_delay=0.01) as client:
        said = client.messages("lobby", "said")
        server.steps = [_taking_out(reason)]
        await client.request("go")
        assert await anext(said) == Message("lobby", "$left", {"reason": reason})

        server.steps = [lambda socket: socket.close()]
        await client.send("go")
        await eventually(lambda: client.stats().connects == 2)
        assert _joins(server) == 1
        await client.join("lobby")
        server.steps = [lambda socket: socket.close()]
        await client.send("go")
        await eventually(lambda: client.stats().connects == 3)
        assert _joins(server) == 3


async def test_being_taken_out_counts_in_the_order_of_what_came(server: Scripted) -> None:
    """Before the answer to a join it is about an earlier one; right behind the answer it is about this one."""

    async def answer_and_take_out(socket: web.WebSocketResponse) -> None:
        await socket.send_json({"cmd": "$reply", "id": server.asked[-1]["id"], "param": {}})
        await _taking_out("forbidden")(socket)

    async with connect(server.url) as client:
        left = client.messages("lobby", "$left")
        server.steps = [_taking_out("forbidden")]
        await client.join("lobby")
        await client.leave("lobby")
        server.steps = [answer_and_take_out]
        try:
            await client.join("lobby")
        except GatewayError as error:  # who is told of the answer at once was in for a moment
            assert isinstance(error, Forbidden)
        assert (await anext(left)).param == {"reason": "forbidden"}
        joined = _joins(server)
        server.steps = [lambda socket: socket.close()]
        await client.send("go")
        await eventually(lambda: client.stats().connects == 2)
        assert _joins(server) == joined


async def test_the_clock_of_the_wall_may_be_set(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out is as long as it is."""

    async def never(socket: web.WebSocketResponse) -> None:
        await asyncio.Event().wait()

    server.steps = [never]
    async with connect(server.url) as client:
        asking = asyncio.create_task(client.request("x", timeout=0.2))
        await eventually(lambda: client.stats().pending == 1)
        monkeypatch.setattr(time, "time", lambda: 0.0)
        with pytest.raises(GatewayError, match="no answer"):
            await asyncio.wait_for(asking, 5)
