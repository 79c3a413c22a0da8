"""What a handler may rely on, and what its clients may, whatever the handler does."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway import (
    BadMessage,
    Connection,
    ConnectionNotFound,
    Forbidden,
    GatewayError,
    Handler,
    InvalidChannel,
    InvalidParam,
    Message,
    RateLimited,
    Service,
    TooManyChannels,
    Unauthorized,
    Unavailable,
    UnknownCommand,
)
from tests.harness.embedded import EmbeddedCluster
from tests.harness.wait import eventually

StartCluster = Callable[..., Awaitable[EmbeddedCluster]]


class Recorder(Handler):
    """Notes what it is told; `wait` is answered when `release` is set, `raise` with the error set."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.release = asyncio.Event()
        self.error: BaseException = Exception()
        self.open_error: BaseException | None = None
        self.close_error: BaseException | None = None

    async def on_open(self, service: Service, connection: Connection) -> None:
        self.log.append(("open", connection.channels))
        if self.open_error:
            raise self.open_error

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        match cmd:
            case "wait":
                self.log.append(("begin", param))
                await self.release.wait()
                self.log.append(("end", param))
            case "raise":
                raise self.error
            case "message":
                self.log.append((connection.message, connection.channel))
            case _:
                self.log.append((cmd, param))
        await service.write_connection("done", param, connection.id)
        return {"param": param}

    async def on_close(self, service: Service, connection: Connection) -> None:
        self.log.append(("close", connection.id))
        if self.close_error:
            raise self.close_error


@pytest.fixture
def handler() -> Recorder:
    return Recorder()


@pytest.fixture
async def cluster(start_cluster: StartCluster, handler: Recorder) -> EmbeddedCluster:
    """Two nodes with the recording handler."""
    return await start_cluster(handler=handler, message_rate=0)


class TestOrder:
    async def test_commands_of_one_connection_are_handled_one_at_a_time(
        self, cluster: EmbeddedCluster, handler: Recorder
    ) -> None:
        """The next one begins when the one before has ended, in the order sent."""
        one = await cluster.connect(cluster.a, "lobby")
        await one.client.send("wait", 0)
        for number in range(1, 100):
            await one.client.send("x", number)
        await eventually(lambda: ("begin", 0) in handler.log)
        assert handler.log == [("open", ("lobby",)), ("begin", 0)]
        handler.release.set()
        for number in range(100):
            await one.client.expect("done", param=number)
        assert handler.log[2:] == [("end", 0), *(("x", number) for number in range(1, 100))]

    async def test_different_connections_do_not_wait_for_each_other(
        self, cluster: EmbeddedCluster, handler: Recorder
    ) -> None:
        """Whoever has a slow command is slow alone."""
        slow, quick = await cluster.connect(cluster.a, "lobby"), await cluster.connect(cluster.a, "lobby")
        await slow.client.send("wait", 0)
        await eventually(lambda: ("begin", 0) in handler.log)
        await quick.client.send("x", 1)
        await quick.client.expect("done", param=1)
        assert ("end", 0) not in handler.log

    async def test_a_client_far_ahead_of_its_handler_loses_nothing(
        self, cluster: EmbeddedCluster, handler: Recorder
    ) -> None:
        """Thousands of commands wait, in order, and not all of them in the node's memory."""
        one = await cluster.connect(cluster.a, "lobby")
        await one.client.send("wait", 0)
        sending = asyncio.ensure_future(self._send_many(one.client.send, 3000))
        await eventually(lambda: ("begin", 0) in handler.log)
        handler.release.set()
        await sending
        numbers = [message["param"] for message in await one.client.receive_many(3001)]
        assert numbers == list(range(3001))

    async def _send_many(self, send: Callable[..., Awaitable[None]], count: int) -> None:
        for number in range(1, count + 1):
            await send("x", number)


class TestMessageInHand:
    async def test_a_handler_sees_the_message_in_hand(self, cluster: EmbeddedCluster, handler: Recorder) -> None:
        """All of it but the sender, who is the connection; `connection.channel` is the first one joined."""
        one = await cluster.connect(cluster.a, "lobby")
        await cluster.a.service.join(one.id, "side")
        await one.client.send("message", {"n": 1}, "side", id="r1", **{"from": "root"})
        await one.client.expect("done")
        assert handler.log[1:] == [(Message("side", "message", {"n": 1}, id="r1"), "lobby")]

    async def test_a_message_without_a_channel_is_about_the_first_one(
        self, cluster: EmbeddedCluster, handler: Recorder
    ) -> None:
        """Which is none for a connection that is in none."""
        member, nobody = await cluster.connect(cluster.a, "lobby"), await cluster.connect(cluster.a)
        await member.client.send("message")
        await member.client.expect("done")
        await nobody.client.send("message")
        await nobody.client.expect("done")
        assert handler.log[2:] == [(Message("lobby", "message"), "lobby"), (Message("", "message"), "")]

    async def test_a_channel_need_not_be_joined_to_be_named(self, cluster: EmbeddedCluster, handler: Recorder) -> None:
        """The handler decides what that means."""
        one = await cluster.connect(cluster.a, "lobby")
        await one.client.send("message", None, "elsewhere")
        await one.client.expect("done")
        assert handler.log[1:] == [(Message("elsewhere", "message"), "lobby")]

    async def test_there_is_no_message_in_hand_between_commands(
        self, cluster: EmbeddedCluster, handler: Recorder
    ) -> None:
        """`on_close` has none either."""
        seen: list[Message | None] = []

        class Looker(Recorder):
            async def on_open(self, service: Service, connection: Connection) -> None:
                seen.append(connection.message)

            async def on_close(self, service: Service, connection: Connection) -> None:
                seen.append(connection.message)

        cluster.a.handler = Looker()
        one = await cluster.connect(cluster.a, "lobby")
        await one.client.send("x")
        await one.client.expect("done")
        await one.client.close()
        await eventually(lambda: len(seen) == 2)
        assert seen == [None, None]


CATASTROPHES = [
    Exception("secret"),
    KeyError("secret"),
    TimeoutError("secret"),
    RecursionError("secret"),
    SystemExit("secret"),
    SystemExit(0),
    asyncio.CancelledError("secret"),
    BaseException("secret"),
    GeneratorExit("secret"),
    KeyboardInterrupt("secret"),
    StopIteration("secret"),
    StopAsyncIteration("secret"),
    BaseExceptionGroup("secret", [SystemExit()]),
    Forbidden("secret", field=object()),
    Forbidden("secret", code="x"),
    Forbidden("secret", text="x"),
]


class TestErrors:
    @pytest.mark.parametrize("error", CATASTROPHES, ids=repr)
    async def test_whatever_a_handler_raises_is_internal_to_its_client(
        self, cluster: EmbeddedCluster, handler: Recorder, error: BaseException
    ) -> None:
        """The client learns no details, and stays; nobody else notices anything."""
        one, other = await cluster.connect(cluster.a, "lobby"), await cluster.connect(cluster.a, "lobby")
        handler.error = error
        await one.client.send("raise", id="r1")
        answer = await one.client.expect("$error")
        assert (answer["id"], answer["param"]["code"]) == ("r1", "internal")
        assert "secret" not in str(answer)
        for member in (one, other):
            await member.client.send("x", 1)
            await member.client.expect("done", param=1)
        assert (await cluster.a.service.status()).counters.handler_errors == 1

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (BadMessage("no"), {"code": "bad-message"}),
            (UnknownCommand("no"), {"code": "unknown-command"}),
            (InvalidParam("no", field="text"), {"code": "invalid-param", "field": "text"}),
            (Unauthorized("no"), {"code": "unauthorized"}),
            (Forbidden("no"), {"code": "forbidden"}),
            (InvalidChannel("no"), {"code": "invalid-channel"}),
            (TooManyChannels("no"), {"code": "too-many-channels"}),
            (RateLimited("no", retry_after=2.5), {"code": "rate-limited", "retry_after": 2.5}),
            (Unavailable("no", retry_after=3), {"code": "unavailable", "retry_after": 3}),
            (ConnectionNotFound("no"), {"code": "invalid-param"}),
            (GatewayError("no"), {"code": "internal"}),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
    )
    async def test_an_error_of_the_gateway_is_told_with_its_code(
        self, cluster: EmbeddedCluster, handler: Recorder, error: GatewayError, expected: dict[str, Any]
    ) -> None:
        """A handler refuses with the contract's own words."""
        one = await cluster.connect(cluster.a, "lobby")
        handler.error = error
        await one.client.send("raise", None, "side", id=7)
        answer = await one.client.expect("$error", id=7)
        assert answer["param"] == expected | {"message": "no"}

    @pytest.mark.parametrize(("limit", "size"), [(1 << 20, 900_000), (1 << 20, 1_100_000), (60, 3000), (0, 1_100_000)])
    async def test_an_answer_larger_than_a_client_may_leave_unread_is_internal(
        self, start_cluster: Callable[..., Awaitable[EmbeddedCluster]], caplog: Any, limit: int, size: int
    ) -> None:
        """It would end the connection, unless it is read at once. The gateway's own answers have their own bounds."""

        class Returner(Handler):
            async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
                return "x" * size

        cluster = await start_cluster(outbox_bytes=limit)
        cluster.a.handler = Returner()
        one = await cluster.connect(cluster.a, "lobby", protocols=["gateway.v1.json"])
        answer = await one.client.request("all", channel="lobby")
        if limit and size > limit:
            assert (answer["cmd"], answer["channel"], answer["param"]["code"]) == ("$error", "lobby", "internal")
            assert f"at most {limit} are sent" in answer["param"]["message"]
            assert f"an answer is too large: connection={one.id} cmd='all' bytes=" in caplog.text
            assert (await cluster.a.service.status()).counters.handler_errors == 1
        else:
            assert answer["param"] == "x" * size
        assert (await one.client.request("$presence", channel="lobby"))["cmd"] == "$reply"

    @pytest.mark.parametrize(
        "result", [{1, 2}, object(), "\ud800", 2**64, math.nan], ids=lambda result: type(result).__name__
    )
    async def test_an_answer_that_json_cannot_say_is_internal(self, cluster: EmbeddedCluster, result: Any) -> None:
        """That is the handler's mistake, not the client's."""

        class Returner(Handler):
            async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
                return result

        cluster.a.handler = Returner()
        one = await cluster.connect(cluster.a, "lobby", protocols=["gateway.v1.json"])
        assert (await one.client.request("x"))["param"]["code"] == "internal"

    async def test_what_a_handler_returns_is_said_to_who_asked_for_it(self, cluster: EmbeddedCluster) -> None:
        """With a subprotocol and an `id`; the original's clients get nothing they do not know."""
        asking = await cluster.connect(cluster.a, "lobby", protocols=["gateway.v1.json"])
        plain = await cluster.connect(cluster.a, "lobby")
        answer = await asking.client.request("x", {"n": 1})
        assert (answer["cmd"], answer["param"]) == ("$reply", {"param": {"n": 1}})
        await asking.client.send("x", 2)
        await plain.client.send("x", 3, id="r1")
        await plain.client.expect("done")
        await plain.client.expect_nothing_but("online-update")
        await asking.client.expect("done", param=2)
        await asking.client.expect_nothing_but("done", "$welcome", "online-update")


class TestLife:
    async def test_opening_is_told_once_the_channels_are_joined_and_before_any_command(
        self, cluster: EmbeddedCluster, handler: Recorder
    ) -> None:
        """Even before a command that came with the handshake."""
        one = await cluster.connect(cluster.a, "lobby")
        await one.client.send("x", 1)
        await one.client.expect("done")
        assert handler.log == [("open", ("lobby",)), ("x", 1)]

    @pytest.mark.parametrize("end", ["close", "drop", "disconnect"])
    async def test_closing_is_told_once_however_it_came(
        self, cluster: EmbeddedCluster, handler: Recorder, end: str
    ) -> None:
        """By the client, by a broken network, by an operator."""
        one = await cluster.connect(cluster.a, "lobby")
        match end:
            case "close":
                await one.client.close()
            case "drop":
                await one.client.drop()
            case "disconnect":
                await cluster.b.service.disconnect(one.id)
        await eventually(lambda: ("close", one.id) in handler.log)
        await eventually(lambda: one.id in cluster.a.responses)
        other = await cluster.connect(cluster.a)
        await other.client.send("x")
        await other.client.expect("done")
        assert handler.log.count(("close", one.id)) == 1

    async def test_closing_is_told_after_the_command_in_hand(self, cluster: EmbeddedCluster, handler: Recorder) -> None:
        """A command that has begun is carried out; those that waited behind it are not."""
        one = await cluster.connect(cluster.a, "lobby")
        await one.client.send("wait", 0)
        await one.client.send("x", 1)
        await eventually(lambda: ("begin", 0) in handler.log)
        await one.client.close()
        await eventually(lambda: one.id in cluster.a.responses)
        assert handler.log[-1] == ("begin", 0)
        handler.release.set()
        await eventually(lambda: ("close", one.id) in handler.log)
        assert handler.log[1:] == [("begin", 0), ("end", 0), ("close", one.id)]

    @pytest.mark.parametrize("error", [Exception("secret"), SystemExit("secret"), asyncio.CancelledError()], ids=repr)
    async def test_errors_when_opening_and_closing_harm_nobody(
        self, cluster: EmbeddedCluster, handler: Recorder, error: BaseException
    ) -> None:
        """The client is let in, or goes, all the same."""
        handler.open_error = handler.close_error = error
        one, other = await cluster.connect(cluster.a, "lobby"), await cluster.connect(cluster.a, "lobby")
        assert (await one.client.expect("$error"))["param"]["code"] == "internal"
        await one.client.send("x", 1)
        await one.client.expect("done")
        await one.client.close()
        await eventually(lambda: ("close", one.id) in handler.log)
        await other.client.send("x", 1)
        await other.client.expect("done")
        assert ("open", ("lobby",)) in handler.log
