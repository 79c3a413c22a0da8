"""A handshake that comes first goes the short way, any later one through aiohttp: nobody can tell the difference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from gateway.access.request_heads import HEAD_BYTES
from gateway.config import Settings
from gateway.server.running import Standalone, running_node
from tests.handlers.curious import Curious
from tests.harness.fuzzing import Fuzzer
from tests.harness.wait import eventually
from tests.harness.wire import Wire, Wires, frame

ANOTHER = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

MEANINGFUL = {
    "content-type",
    "location",
    "retry-after",
    "sec-websocket-version",
    "set-cookie",
    "upgrade",
    "www-authenticate",
}

every_way = pytest.mark.parametrize("before", [b"", ANOTHER], ids=["short", "aiohttp"])


@pytest.fixture
async def node() -> AsyncIterator[Standalone]:
    """A node of this process, with a handler that is told what to do."""
    Curious.begin()
    async with running_node(
        Settings(port=0, handler="tests.handlers.curious:Curious", trusted_proxies="127.0.0.2")
    ) as node:
        yield node


async def opened(wire: Wires, node: Standalone, path: str, before: bytes) -> Wire:
    """Open a connection over which something else was asked first, or nothing."""
    client = await wire.open(node.address.replace("http", "ws", 1) + path)
    if before:
        await client.write(before)
        head = await client.read_head()
        await client.read_exactly(int(head.headers["content-length"]))
    return client


async def answer_to(client: Wire, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of what is said to a request."""
    await client.write(request)
    head = await client.read_head()
    body = await client.read_exactly(int(head.headers.get("content-length", 0)))
    told = {name: value for name, value in head.headers.items() if name in MEANINGFUL}
    return head.status, told, body


@every_way
async def test_a_handshake_is_answered(node: Standalone, wire: Wires, before: bytes) -> None:
    """With the same headers, and what the handler saw of the request is all there."""
    client = await opened(wire, node, "/connect?ch=lobby", before)
    headers = {"Cookie": "a=b", "X-A": "c", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    await client.write(client.upgrade(headers=headers, protocols=["gateway.v1.json"]))
    head = await client.read_head()
    assert head.status == 101
    assert head.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
    assert head.headers["sec-websocket-protocol"] == "gateway.v1.json"
    welcome = (await client.read_frame()).json
    assert welcome["param"]["user"] == "42"
    connections = [connection async for connection in node.service.get_connections()]
    assert [connection.name for connection in connections] == [repr(("GET", "/connect", "b", "c", "", "127.0.0.1"))]


def head(*headers: str, request: str = "GET /connect HTTP/1.1") -> bytes:
    """Write down a handshake; headers of a name that it has already take its place."""
    usual = ["Host: x", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"{KEY}AA=="]
    names = {header.partition(":")[0].lower() for header in headers}
    kept = [line for line in usual if line.partition(":")[0].lower() not in names]
    return "\r\n".join([request, *kept, *headers, "", ""]).encode()


KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"
LISTS = {
    "connection in two lines": head("Connection: keep-alive", "Connection: Upgrade"),
    "connection in one": head("Connection: keep-alive, Upgrade"),
    "several upgrades": head("Upgrade: h2c, websocket"),
    "several upgrades in two lines": head("Upgrade: h2c", "Upgrade: websocket"),
    "another one last": head("Upgrade: WebSocket , h2c", "Connection: close, upgrade"),
    "protocols in two lines": head("Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: gateway.v1.json"),
    "extensions in two lines": head("Sec-WebSocket-Extensions: x", "Sec-WebSocket-Extensions: permessage-deflate"),
    "much": head("Cookie: " + "x" * 20_000, "X: " + "y" * 10_000),
    "a long line": head(request="GET /connect?ch=lobby&x=" + "x" * 20_000 + " HTTP/1.1"),
}


@every_way
@pytest.mark.parametrize("request_head", LISTS.values(), ids=LISTS)
async def test_headers_that_are_lists_may_stand_in_many_lines(
    node: Standalone, wire: Wires, before: bytes, request_head: bytes
) -> None:
    """And a frame that came in the same packet is handled, whatever else was offered."""
    client = await opened(wire, node, "/connect", before)
    await client.write(request_head + frame('{"cmd": "ping"}'))
    answer = await client.read_head()
    assert answer.status == 101
    assert answer.headers.get("sec-websocket-protocol") == ("gateway.v1.json" if b"v1.json" in request_head else None)
    while (await client.read_frame()).json["cmd"] != "pong":
        pass


REFUSED = {
    "a key twice": (head(f"{KEY}AA==", f"{KEY}AA=="), 400),
    "a version twice": (head("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13"), 426),
    "another version beside it": (head("Sec-WebSocket-Version: 8", "Sec-WebSocket-Version: 13"), 426),
    "no websocket in the list": (head("Upgrade: h2c", "Upgrade: websocket/13"), 426),
    "HTTP/1.0": (head(request="GET /connect HTTP/1.0"), 426),
    "HEAD": (head(request="HEAD /connect HTTP/1.1"), 405),
    "POST": (head(request="POST /connect HTTP/1.1"), 405),
    "too long a line": (head("Cookie: " + "x" * HEAD_BYTES), 431),
    "too many lines": (head(*["X: " + "x" * 1000] * 40), 431),
    "too long a request": (head(request="GET /connect?" + "x" * HEAD_BYTES + " HTTP/1.1"), 431),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    "no header": (head("X\x00: y"), 400),
}


@pytest.mark.parametrize(("request_head", "status"), REFUSED.values(), ids=REFUSED)
async def test_what_is_no_handshake_is_refused_alike(
    node: Standalone, wire: Wires, caplog: pytest.LogCaptureFixture, request_head: bytes, status: int
) -> None:
    """Counted each time, and without a trace of it in the log."""
    caplog.set_level("INFO")
    refusals = node.service.counters.refusals
    for before in (b"", ANOTHER):
        counted = refusals[status]
        client = await opened(wire, node, "/connect", before)
        await client.write(request_head)
        assert (await client.read_head()).status == status
        if "POST" not in str(request_head):  # which has no handler, and so is no handshake
            assert refusals[status] == counted + 1
    assert not [record for record in caplog.records if record.exc_info]
    assert "xxx" not in caplog.text


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/connect", {"Upgrade": ""}, 426),
        ("/connect", {"Connection": "close"}, 426),
        ("/connect", {"Sec-WebSocket-Version": "12"}, 426),
        ("/connect", {"Sec-WebSocket-Key": "short"}, 400),
        ("/connect", {"Origin": "http://evil.example"}, 403),
        ("/connect", {"Sec-WebSocket-Protocol": "gateway.token.x"}, 400),
        ("/connect", {"Expect": "a miracle"}, 417),
        ("/connect?ch=%00", {}, 400),
        ("/connect?" + "&".join(f"ch={i}" for i in range(129)), {}, 400),
        ("/connect?do=refuse", {}, 401),
        ("/connect?do=redirect", {}, 302),
        ("/connect?do=fail", {}, 500),
        ("/connect?do=exit", {}, 500),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_wrong_is_said_in_the_same_words(
    node: Standalone, wire: Wires, path: str, headers: dict[str, str], status: int
) -> None:
    """Status, body and the headers that mean something; and the node goes on."""
    answers = []
    for before in (b"", ANOTHER):
        client = await opened(wire, node, path, before)
        answers.append(await answer_to(client, client.upgrade(headers=headers)))
    short, long = answers
    assert short[0] == long[0] == status
    if status != 500:  # aiohttp has its own page for those
        assert short == long
    assert b"Traceback" not in short[2]
    await wire(node.address.replace("http", "ws", 1) + "/connect")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /connected HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /connect\r\n\r\n",
        b"GET /connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"GET /connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX\x00: y\r\n\r\n",
        b"GET /connect HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\na",
    ],
    ids=ascii,
)
async def test_what_is_not_the_plain_case_is_for_aiohttp(node: Standalone, wire: Wires, head: bytes) -> None:
    """An answer, whatever it is, and no 500."""
    client = await wire.open(node.address.replace("http", "ws", 1))
    await client.write(head)
    assert 400 <= (await client.read_head()).status < 500


async def test_whatever_comes_first_is_answered_as_if_it_came_later(wire: Wires) -> None:
    """The same status for heads as they should not be."""
    fuzzer = Fuzzer(1)

    async def status_of(node: Standalone, head: bytes, before: bytes) -> int:
        client = await opened(wire, node, "", before)
        try:
            await client.write(head)
            return (await client.read_head()).status
        except (EOFError, ConnectionError):  # ended without an answer, as for nothing but empty lines
            return 0
        finally:
            client.close()

    async with running_node(Settings(port=0, handshake_timeout=0.3)) as node:
        heads = [fuzzer.head() for _ in range(100)]
        short, later = await asyncio.gather(
            *(asyncio.gather(*(status_of(node, head, before) for head in heads)) for before in (b"", ANOTHER))
        )
        assert not [answers for answers in zip(short, later, heads, strict=True) if answers[0] != answers[1]]


async def test_a_header_that_would_be_two_is_a_fault(node: Standalone, wire: Wires) -> None:
    """500: aiohttp, too, refuses to send what a handler may have copied from a request."""
    client = await opened(wire, node, "/connect?do=split&note=a%0d%0aX-B:%20c", b"")
    status, _, body = await answer_to(client, client.upgrade())
    assert status == 500
    assert b"X-B" not in body


@every_way
async def test_frames_that_come_before_the_answer_are_kept(node: Standalone, wire: Wires, before: bytes) -> None:
    """In order, however many: what is more than a little waits in the kernel."""
    client = await opened(wire, node, "/connect?ch=lobby&do=wait", before)
    await client.write(client.upgrade())
    await Curious.asked.wait()
    count = 96
    sending = asyncio.create_task(client.write(frame(orjson.dumps({"cmd": "ping", "param": "x" * 1000})) * count))
    assert count * 1000 > 2 * HEAD_BYTES
    Curious.may_go_on.set()
    assert (await client.read_head()).status == 101
    await sending
    pongs = 0
    while pongs < count:
        pongs += (await client.read_frame()).json["cmd"] == "pong"


@every_way
async def test_a_client_that_leaves_meanwhile_is_no_fault(
    node: Standalone, wire: Wires, before: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is opened for it, and nothing is logged as an error."""
    client = await opened(wire, node, "/connect?do=wait", before)
    await client.write(client.upgrade())
    await Curious.asked.wait()
    client.reset()
    await asyncio.sleep(0.05)  # for the reset to arrive; too early, the socket is closed after its opening instead
    Curious.may_go_on.set()
    await eventually(lambda: node.service.counters.opened == node.service.counters.closed)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_client_that_leaves_while_it_is_answered_was_never_there(wire: Wires) -> None:
    """A handler hears of no end without a beginning. With asyncio's own loop, which writes at once."""

    async def leave() -> None:
        Curious.begin()
        async with running_node(Settings(port=0, handler="tests.handlers.curious:Curious")) as node:
            client = await opened(wire, node, "/connect?do=wait", b"")
            await client.write(client.upgrade())
            await Curious.asked.wait()
            client.reset()
            Curious.may_go_on.set()  # before the loop looks at the socket again, which has nothing to say but this
            counters = node.service.counters
            await eventually(lambda: counters.http == 0 and counters.opened == counters.closed)
            assert Curious.heard == []
            await eventually(lambda: counters.refusals[400] == 1)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(leave())


async def test_a_node_that_stops_does_not_wait_for_a_slow_handler(wire: Wires) -> None:
    """The handshake is given up."""
    Curious.begin()
    async with running_node(Settings(port=0, handler="tests.handlers.curious:Curious")) as node:
        client = await opened(wire, node, "/connect?do=wait", b"")
        await client.write(client.upgrade())
        await Curious.asked.wait()
    assert await client.read_end() == b""
