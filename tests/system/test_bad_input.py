"""Whatever one client sends, it gets its documented answer, and others go on receiving everything in order.

While each of these tests runs, messages follow one another through Redis to a listener on each of two nodes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.harness.client import Clients
from tests.harness.node import Node, Nodes
from tests.harness.redis import RedisServer, injection
from tests.harness.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, Wire, Wires, frame

_numbers = itertools.count(1)


@asynccontextmanager
async def undisturbed(redis: RedisServer, nodes: Nodes | list[Node], connect: Clients) -> AsyncIterator[None]:
    """Let messages flow to a listener on each node; at the end they must have come, all and in order."""
    channel = f"undisturbed-{next(_numbers)}"
    listeners = [await connect(node, channel) for node in nodes]
    for listener in listeners:
        await listener.send("ping", channel=channel)
        await listener.expect("pong", channel=channel)
    done, sent = asyncio.Event(), 0

    async def talk() -> None:
        nonlocal sent
        async with redis.client() as client:
            while not done.is_set() or sent < 3:
                assert await client.publish(f"gateway:channel:{channel}", injection("tick", sent)) == len(listeners)
                for listener in listeners:
                    await listener.expect("tick", param=sent, deadline=20)
                sent += 1

    talking = asyncio.create_task(talk())
    try:
        yield
    finally:
        done.set()
        await talking
    for listener in listeners:
        ticks = [message["param"] for message in listener.received if message["cmd"] == "tick"]
        assert (ticks, listener.closed) == (list(range(sent)), None)


@pytest.fixture
async def peace(nodes: Nodes, connect: Clients) -> AsyncIterator[None]:
    """Others are not disturbed by what the test does to the module's two nodes."""
    assert isinstance(nodes.redis, RedisServer)
    async with undisturbed(nodes.redis, nodes, connect):
        yield


async def said(client: Wire) -> dict[str, Any]:
    """Return the next message to a client, past the pings that may come at any time."""
    while (found := await client.read_frame()).opcode == PING:
        pass
    answer: dict[str, Any] = found.json
    return answer


def message(**fields: object) -> bytes:
    return frame(json.dumps({"cmd": "chat", "param": {"text": "x"}} | fields))


REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (frame(b""), "bad-message"),
    "words": (frame("hello"), "bad-message"),
    "half an object": (frame('{"cmd": "ping"'), "bad-message"),
    "two objects": (frame('{"cmd": "ping"}{"cmd": "ping"}'), "bad-message"),
    "null": (frame("null"), "bad-message"),
    "a number": (frame("1e400"), "bad-message"),
    "an array": (frame('[{"cmd": "ping"}]'), "bad-message"),
    "no command": (frame('{"channel": "lobby"}'), "bad-message"),
    "a null command": (message(cmd=None), "bad-message"),
    "a command that is an object": (message(cmd={}), "bad-message"),
    "an empty command": (message(cmd=""), "bad-message"),
    "a command of 129 characters": (message(cmd="x" * 129), "bad-message"),
    "a command of the gateway": (message(cmd="$presence", channel="lobby"), "unknown-command"),
    "a reply": (message(cmd="$reply"), "unknown-command"),
    "a null channel": (message(channel=None), "bad-message"),
    "a channel that is an array": (message(channel=["lobby"]), "bad-message"),
    "a channel with a space": (message(channel="a b"), "invalid-channel"),
    "a channel with a newline": (message(channel="a\n"), "invalid-channel"),
    "a channel with Unicode's white space": (message(channel="a\u2003b"), "invalid-channel"),
    "a channel with a C1 control": (message(channel="a\u009fb"), "invalid-channel"),
    "a channel with a hash tag": (message(channel="{lobby}"), "invalid-channel"),
    "a channel of 201 bytes": (message(channel="é" * 100 + "x"), "invalid-channel"),
    "an id that is an array": (message(id=[1]), "bad-message"),
    "an id that is true": (message(id=True), "bad-message"),
    "NaN": (frame('{"cmd": "chat", "param": NaN}'), "bad-message"),
    "infinity": (frame('{"cmd": "chat", "param": -Infinity}'), "bad-message"),
    "an integer beyond 64 bits": (frame('{"cmd": "chat", "param": {"n": [18446744073709551616]}}'), "bad-message"),
    "a control character": (frame('{"cmd": "chat", "param": {"text": "\x01"}}'), "bad-message"),
    "a byte order mark": (frame('\ufeff{"cmd": "ping"}'), "bad-message"),
    "a binary frame": (frame('{"cmd": "ping"}', BINARY), "bad-message"),
    "a binary frame of bytes": (frame(b"\xff\x00" * 100, BINARY), "bad-message"),
    "30,000 nested brackets": (frame(b'{"cmd":"chat","param":' + b"[" * 30_000 + b"]" * 30_000 + b"}"), "bad-message"),
    "30,000 nested objects": (frame(b'{"cmd":"chat","param":' + b'{"a":' * 10_000), "bad-message"),
}


@pytest.mark.parametrize(("sent", "code"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("peace")
async def test_a_bad_message_is_answered_and_its_connection_lives(
    nodes: Nodes, wire: Wires, sent: bytes, code: str
) -> None:
    """One `$error` with its code, and the next command is carried out."""
    client = await wire(nodes[0])
    await client.write(sent)
    answer = await said(client)
    assert (answer["cmd"], answer["param"]["code"]) == ("$error", code)
    assert answer["param"]["message"].isprintable()
    await client.send('{"cmd": "ping"}')
    assert (await said(client))["cmd"] == "pong"


@pytest.mark.usefixtures("peace")
async def test_half_a_character_harms_nobody(nodes: Nodes, connect: Clients) -> None:
    """However often it comes: a request with one is answered, and the others read that there was something."""
    client = await connect(nodes[0], "halves", protocols=["gateway.v1.json"])
    for number in range(120):
        await client.send_raw(f'{{"cmd":"chat","id":{number},"channel":"halves","param":{{"text":"ok \\ud83d"}}}}')
        assert (await client.expect("chat"))["param"]["text"] == "ok \ufffd"
        assert (await client.expect("$reply"))["id"] == number
    assert client.closed is None


WITH_ID: list[dict[str, object]] = [
    {"cmd": 1},
    {"cmd": "x", "channel": 1},
    {"cmd": "x", "channel": "a b"},
    {"cmd": "$x"},
    {"cmd": "x"},
    {"cmd": "chat"},
]


UNREADABLE = {
    "a number beyond doubles": "1e999",
    "an integer of 5,000 digits": "9" * 5000,
    "2,000 levels": "[" * 2000 + "]" * 2000,
    "a string that looks like the end": r'["\\\"},\"id\":3", "\\\\", 1e999]',
    "no JSON": "NaN",
}


@pytest.mark.parametrize("id", [1, -1, 2**64 - 1, "r1", "", "ü" * 100, '"}{\\', "\U0001f600"], ids=repr)
@pytest.mark.parametrize("param", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("shape", ['{{"cmd":"chat","id" : {id} ,"param":{param}}}', '{{"param":{param}, "id":{id}}}'])
@pytest.mark.usefixtures("peace")
async def test_what_cannot_be_read_is_answered_with_the_id_of_its_request(
    nodes: Nodes, wire: Wires, shape: str, param: str, id: str | int
) -> None:
    """Its sender waits for an answer, and JSON allows most of it."""
    client = await wire(nodes[0])
    await client.send(shape.format(id=json.dumps(id), param=param))
    answer = await said(client)
    assert (answer["param"]["code"], answer["id"]) == ("bad-message", id)


@pytest.mark.usefixtures("peace")
async def test_an_id_behind_thousands_of_strings_is_not_looked_for(nodes: Nodes, wire: Wires) -> None:
    """Looking must not cost a node more than sending costs a client; ahead of them it is found."""
    client, objects = await wire(nodes[0]), '{"id":3,"a":' * 2000 + "1" + "}" * 2000
    for shape, id in (('{"id":"r1","cmd":"chat","param":%s}', "r1"), ('{"cmd":"chat","param":%s,"id":"r1"}', None)):
        await client.send(shape % objects)
        answer = await said(client)
        assert (answer["param"]["code"], answer.get("id")) == ("bad-message", id)


@pytest.mark.parametrize("id", [1, -1, 2**53, "r1", "", "ü" * 100], ids=repr)
@pytest.mark.parametrize("fields", WITH_ID, ids=json.dumps)
async def test_an_error_has_the_id_of_its_request(
    nodes: Nodes, wire: Wires, fields: dict[str, object], id: str | int
) -> None:
    """Whatever is wrong with it, so that a client can tell its requests apart."""
    client = await wire(nodes[0])
    await client.send(json.dumps(fields | {"id": id}))
    answer = await said(client)
    assert (answer["cmd"], answer["id"]) == ("$error", id)


async def test_100_000_brackets_are_a_bad_message_where_they_are_allowed(
    redis: RedisServer, start_nodes: Callable[..., Awaitable[Nodes]], connect: Clients, wire: Wires
) -> None:
    """A large limit is no way to the end of the stack: of JSON, or of msgpack from those who speak that."""
    nodes = await start_nodes(2, redis, max_message_bytes=4_000_000)
    async with undisturbed(redis, nodes, connect):
        client = await wire(nodes[0], "bad")
        for body in (b"[" * 100_000 + b"]" * 100_000, b"[" * 3_000_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000):
            await client.send(b'{"cmd":"chat","param":' + body + b"}")
            assert (await said(client))["param"]["code"] == "bad-message"
        binary = await connect(nodes[0], "bad", protocols=["gateway.v1.msgpack"])
        for data in (b"\x91" * 100_000 + b"\xc0", b"\x82\xa3cmd\xa4chat\xa5param" + b"\x91" * 100_000 + b"\xc0"):
            await binary.send_raw(data)
            assert (await binary.expect("$error"))["param"]["code"] == "bad-message"


ENDED: dict[str, tuple[bytes, int]] = {
    "text that is not UTF-8": (frame(b'{"cmd": "\xff"}'), 1007),
    "a surrogate in UTF-8": (frame(b'{"cmd": "\xed\xa0\x80"}'), 1007),
    "a close reason that is not UTF-8": (frame(b"\x03\xe8\xff", CLOSE), 1007),
    "a frame not masked": (frame('{"cmd": "ping"}', mask=None), 1002),
    "a reserved bit": (frame('{"cmd": "ping"}', rsv=4), 1002),
    "a reserved opcode": (frame(b"", 0x5), 1002),
    "a continuation of nothing": (frame(b"", CONTINUATION), 1002),
    "a message inside a message": (frame(b"a", fin=False) + frame(b"b"), 1002),
    "a ping of 126 bytes": (frame(b"x" * 126, PING), 1002),
    "a pong in two": (frame(b"", PONG, fin=False), 1002),
    "a close code of nobody": (frame((1005).to_bytes(2, "big"), CLOSE), 1002),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1002),
    "a message of 65,537 bytes": (frame(b"x" * 65_537), 1009),
    "a message of 2 to the 40th bytes": (frame(b"", length=1 << 40), 1009),
    "fragments of 65,537 bytes": (frame(b"x" * 65_536, fin=False) + frame(b"x", CONTINUATION), 1009),
}


@pytest.mark.parametrize(("sent", "code"), ENDED.values(), ids=ENDED)
@pytest.mark.usefixtures("peace")
async def test_a_broken_frame_ends_its_connection(nodes: Nodes, wire: Wires, sent: bytes, code: int) -> None:
    """The client reads why."""
    client = await wire(nodes[0], "bad")
    await client.write(sent)
    assert (await client.read_close()).close_code == code


@pytest.mark.usefixtures("peace")
async def test_a_client_that_broke_the_rules_is_not_waited_for(nodes: Nodes, wire: Wires) -> None:
    """The TCP connection ends soon though the client never answers the close frame."""
    client = await wire(nodes[0], "bad")
    await client.send("x", mask=None)
    assert (await client.read_close()).close_code == 1002
    assert await client.read_end(deadline=20) == b""


@pytest.mark.usefixtures("peace")
async def test_who_is_still_sending_too_much_reads_why(nodes: Nodes, wire: Wires) -> None:
    """1009 arrives though the client sends on, as a browser does that was told to send a large file."""
    client = await wire(nodes[0], "bad")
    sending = asyncio.ensure_future(client.write(frame(b"x" * 20_000_000)))
    assert (await client.read_close()).close_code == 1009
    sending.cancel()
    await asyncio.wait([sending])


@pytest.mark.usefixtures("peace")
async def test_a_client_that_breaks_off_anywhere_is_gone(nodes: Nodes, wire: Wires) -> None:
    """In the handshake, in a frame, in a message: by FIN, by RST, by silence."""
    ends: list[Callable[[Wire], None]] = [Wire.reset, Wire.finish, Wire.close]
    for number, end in enumerate(ends * 4):
        client = await wire.open(nodes[0], "bad")
        request = client.upgrade() + frame(b'{"cmd":', fin=False) + frame(b"x" * 1000)
        await client.write(request[: len(request) * (number + 1) // 13])
        end(client)


@pytest.mark.usefixtures("peace")
async def test_noise_is_survived(nodes: Nodes, wire: Wires) -> None:
    """Random bytes after a handshake, and instead of one."""
    noise = random.Random(5)
    for number in range(60):
        client = await (wire(nodes[0], "bad") if number % 2 else wire.open(nodes[0]))
        await client.write(noise.randbytes(noise.randrange(1, 2000)))
        client.close()


async def test_a_client_that_goes_on_being_wrong_is_ended_alone(
    redis: RedisServer, start_nodes: Callable[..., Awaitable[Nodes]], connect: Clients
) -> None:
    """After `abuse_limit` refusals within a minute the next one is the last: 1008. What was right does not count."""
    nodes = await start_nodes(2, redis, abuse_limit=10)
    async with undisturbed(redis, nodes, connect):
        offender, neighbour = await connect(nodes[0], "bad"), await connect(nodes[0], "bad")
        for turn in range(10):
            await offender.send("nonsense")
            await offender.send("ping")
            await neighbour.send("nonsense" if turn else "ping")
        await offender.send_raw("garbage")
        await offender.expect_close(1008)
        assert [message["cmd"] for message in offender.received].count("$error") == 11
        await neighbour.send("ping", id="last")
        await neighbour.expect_nothing_but("pong", "$error", "online-update")
        assert neighbour.closed is None


async def test_the_default_allows_a_hundred_mistakes_a_minute(nodes: Nodes, connect: Clients) -> None:
    """The hundred and first ends the connection."""
    offender = await connect(nodes[0])
    for _ in range(100):
        await offender.send("nonsense")
    assert len(await offender.receive_many(100)) == 100
    assert offender.closed is None
    await offender.send("nonsense")
    await offender.expect_close(1008)
