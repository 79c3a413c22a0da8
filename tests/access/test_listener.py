"""How long and how much a client may take to say what it wants, before it is anybody's connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from gateway.access.request_heads import HEAD_BYTES
from gateway.config import Settings
from gateway.server import port
from gateway.server.running import running_node
from tests.harness import http
from tests.harness.node import Node, Nodes, lasting
from tests.harness.wire import Wire, Wires, frame

TIMEOUT = 0.5
KEY = "key"


@pytest.fixture(scope="module")
def _hurried() -> Iterator[Nodes]:
    with lasting(Nodes(1, handshake_timeout=TIMEOUT, api_key=KEY, log_level="debug")) as nodes:
        yield nodes


@pytest.fixture
def node(_hurried: Nodes) -> Node:
    """A node that gives half a second for a handshake; it lives as long as the module."""
    _hurried[0].process.assert_running()
    return _hurried[0]


@pytest.fixture
def patient(nodes: Nodes) -> Node:
    """A node with the default of five seconds."""
    return nodes[0]


async def status_of(client: Wire) -> int:
    """Return the status of the answer, 0 where the connection ends without one."""
    try:
        return (await client.read_head(deadline=10)).status
    except EOFError:
        return 0


def head_of(size: int) -> bytes:
    """Make a request whose head has so many bytes."""
    lines = ["GET /healthz HTTP/1.1", "Host: x"]
    while (left := size - len("\r\n".join([*lines, "", ""]))) > 0:
        lines.append("X-Filler: " + "x" * min(4000, max(0, left - len("X-Filler: \r\n"))))
    return "\r\n".join([*lines, "", ""]).encode()


class TestTime:
    @pytest.mark.parametrize(
        ("sent", "status"),
        [(b"", 0), (b"G", 408), (b"GET /connect", 408), (b"GET /connect HTTP/1.1\r\nHost: x\r\nUpgrade: webso", 408)],
        ids=str,
    )
    async def test_half_a_request_is_ended(self, node: Node, wire: Wires, sent: bytes, status: int) -> None:
        """408 where something came, and the end of the connection."""
        client = await wire.open(node)
        await client.write(sent)
        assert await status_of(client) == status
        assert await client.read_end(deadline=10) == b""

    async def test_writing_a_little_now_and_then_does_not_help(self, node: Node, wire: Wires) -> None:
        """The time is for the whole head."""
        client = await wire.open(node)
        answer = asyncio.ensure_future(client.read_head(deadline=20))
        for byte in b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000:
            try:
                await client.write(bytes((byte,)))
            except ConnectionError:
                break
            if answer in (await asyncio.wait([answer], timeout=TIMEOUT / 10))[0]:
                break
        assert (await answer).status == 408

    async def test_a_request_in_many_pieces_is_as_good_as_one(self, patient: Node, wire: Wires) -> None:
        """A byte at a time, as long as it is complete in time."""
        client = await wire.open(patient.ws_url("door"))
        await client.write_split(client.upgrade())
        assert (await client.read_head()).status == 101
        await client.send('{"cmd": "ping"}')

    async def test_what_came_with_the_handshake_is_not_lost(self, patient: Node, wire: Wires) -> None:
        """Frames in the same segment as the request are handled."""
        client = await wire.open(patient)
        await client.write(client.upgrade() + frame('{"cmd": "ping"}') * 3)
        assert (await client.read_head()).status == 101
        for _ in range(3):
            assert (await client.read_frame()).json["cmd"] == "pong"

    async def test_an_established_connection_is_left_alone(self, node: Node, wire: Wires) -> None:
        """However long it says nothing: a silent one that came later is ended first."""
        client, silent = await wire(node), await wire.open(node)
        assert await silent.read_end(deadline=10) == b""
        await client.send('{"cmd": "ping"}')
        assert (await client.read_frame()).json["cmd"] == "pong"

    async def test_a_body_that_does_not_come_is_not_waited_for(self, node: Node, wire: Wires) -> None:
        """408, as a problem document where others are, too, and the end."""
        client = await wire.open(node)
        head = f"POST /api/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 50\r\n\r\n"
        await client.write(head.encode() + b'{"cmd": ')
        answer = await client.read_head(deadline=10)
        assert (answer.status, answer.headers["content-type"]) == (408, "application/problem+json")
        await client.read_end(deadline=10)
        assert "Traceback" not in node.output

    async def test_zero_is_no_limit(self, wire: Wires) -> None:
        """Nothing stands before aiohttp then."""
        async with running_node(Settings(port=0, handshake_timeout=0)) as (address, *_):
            client = await wire.open(address.replace("http", "ws", 1))
            await client.write(b"GET /healthz HTT")
            await client.write(b"P/1.1\r\nHost: x\r\n\r\n")
            assert (await client.read_head()).status == 200

    async def test_a_connection_does_not_wait_for_ever_for_its_next_request(
        self, wire: Wires, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither when it sends nothing, nor when it sends half of one."""
        monkeypatch.setattr(port, "KEEP_ALIVE", 0.3)
        async with running_node(Settings(port=0)) as (address, *_):
            clients = [await wire.open(address.replace("http", "ws", 1)) for _ in range(2)]
            for client, further in zip(clients, (b"", b"GET / HTTP/1.1\r\nHo"), strict=True):
                await client.write(head_of(60))
                head = await client.read_head()
                await client.read_exactly(int(head.headers["content-length"]))
                await client.write(further)
            for client in clients:
                await client.read_end(deadline=10)

    async def test_a_stopping_node_does_not_wait_for_half_a_request(self, wire: Wires) -> None:
        """It breaks the connection."""
        async with running_node(Settings(port=0, handshake_timeout=100)) as (address, *_):
            client = await wire.open(address.replace("http", "ws", 1))
            await client.write(b"GET / HT")
            assert (await http.get(f"{address}/healthz")).status == 200
        assert await client.read_end() == b""


class TestSize:
    @pytest.mark.parametrize(
        ("size", "status"),
        [(1000, 200), (HEAD_BYTES - 1, 200), (HEAD_BYTES, 200), (HEAD_BYTES + 1, 431), (200_000, 431)],
    )
    async def test_a_head_has_a_largest_size(self, node: Node, wire: Wires, size: int, status: int) -> None:
        """431 beyond it, as soon as so much has come."""
        request = head_of(size)
        assert len(request) == size
        client = await wire.open(node)
        await client.write(request)
        assert await status_of(client) == status

    @pytest.mark.parametrize(("size", "status"), [(8000, 200), (8300, 200), (30_000, 200), (40_000, 431)])
    async def test_a_request_line_has_a_largest_size(self, node: Node, wire: Wires, size: int, status: int) -> None:
        client = await wire.open(node)
        await client.write(f"GET /healthz?{'x' * size} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert await status_of(client) == status

    @pytest.mark.parametrize(("count", "status"), [(100, 200), (129, 400), (2000, 400)])
    async def test_a_head_has_a_largest_number_of_headers(
        self, node: Node, wire: Wires, count: int, status: int
    ) -> None:
        client = await wire.open(node)
        await client.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * (count - 1) + b"\r\n")
        assert await status_of(client) == status

    async def test_a_head_without_an_end_is_cut_off(self, node: Node, wire: Wires) -> None:
        """What is kept of it is bounded, whatever comes."""
        client = await wire.open(node)
        sending = asyncio.ensure_future(client.write(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1_000_000))
        assert await status_of(client) == 431
        sending.cancel()
        await asyncio.wait([sending])


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100,
        b"nonsense\x1b[31m\r\n\r\n",
        b"GET /\x1b[31m HTTP/1.1\r\n\x1b: \x07\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX\x1b[31mforged\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n",
    ],
    ids=ascii,
)
async def test_what_is_no_http_is_a_400_without_a_trace(node: Node, wire: Wires, noise: bytes) -> None:
    """The log has no traceback, and nothing in it that the client wrote."""
    before = len(node.output)
    client = await wire.open(node)
    await client.write(noise)
    assert await status_of(client) == 400
    written = node.output[before:]
    assert "Traceback" not in written
    assert "31m" not in written
