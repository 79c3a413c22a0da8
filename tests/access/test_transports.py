"""Connections to a node's port that are no WebSockets: counted, bounded, and none of them for ever."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from gateway.access import transports
from gateway.config import Settings
from gateway.server.running import Standalone, running_node
from tests.harness.node import Node, Nodes, lasting
from tests.harness.wait import eventually
from tests.harness.wire import Wire, Wires

DESCRIPTORS = 256
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LONG = b"GET /static/gateway.mjs HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def _poor() -> Iterator[Nodes]:
    nodes = Nodes(1, handshake_timeout=60)
    nodes[0].process.command = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", *nodes[0].process.command]
    with lasting(nodes):
        yield nodes


@pytest.fixture
def node(_poor: Nodes) -> Node:
    """A node that may open 256 descriptors, and gives everybody a minute for his request."""
    _poor[0].process.assert_running()
    return _poor[0]


async def figure(node: Node, name: str) -> int:
    """Return what the node says of itself."""
    text = (await node.answers("/metrics", 200)).text
    return int(float(re.findall(rf"^gateway_{name} (\S+)$", text, re.MULTILINE)[0]))


async def answered(client: Wire, request: bytes = REQUEST) -> int:
    """Ask for something and read the whole answer; return its status."""
    await client.write(request)
    head = await client.read_head(deadline=20)
    await client.read_exactly(int(head.headers["content-length"]))
    return head.status


async def silent(client: Wire) -> None:
    """Say nothing."""


async def slow(client: Wire) -> None:
    """Begin a request."""
    await client.write(b"GET / HT")


async def idle(client: Wire) -> None:
    """Ask for something, and stay."""
    await client.write(REQUEST)


@pytest.mark.parametrize("behave", [silent, slow, idle])
async def test_idle_connections_keep_nobody_out(node: Node, wire: Wires, behave) -> None:
    """With more of them than there are descriptors, probes are answered and a WebSocket gets in."""
    most = await figure(node, "transports_max")
    assert DESCRIPTORS // 2 < most < DESCRIPTORS
    for _ in range(300):
        client = await wire.open(node)
        with suppress(ConnectionError):  # others may have come meanwhile, for whom it was ended
            await behave(client)
    for path in ("/healthz", "/readyz", "/metrics"):
        await node.answers(path, 200)
    socket = await wire(node)
    await socket.send('{"cmd": "ping"}')
    assert (await socket.read_frame()).json["cmd"] == "pong"
    assert most - 5 < await figure(node, "transports") <= most + 1
    assert node.output.count("the most there may be") < 20
    assert "Traceback" not in node.output


async def test_a_node_full_of_websockets_answers_probes(node: Node, wire: Wires) -> None:
    """Everybody else is told 503, and when there is room again, let in."""
    most = await figure(node, "transports_max")
    refused = 'connections_refused_total{status="503"}'
    sockets = [await wire(node) for _ in range(most - await figure(node, "transports") + 1)]
    client = await wire.open(node.ws_url())
    await client.write(client.upgrade())
    head = await client.read_head()
    assert (head.status, head.headers["retry-after"]) == (503, "1")
    for path in ("/healthz", "/readyz"):
        await node.answers(path, 200)
    assert f"gateway_{refused} 1.0" in (await node.answers("/metrics", 200)).text
    for socket in sockets[:20]:
        socket.close()

    await eventually(lambda: wire(node), what="room for a WebSocket")


class TestTime:
    @pytest.fixture
    async def node(self) -> AsyncIterator[Standalone]:
        """A node of this process that gives half a second for a head."""
        async with running_node(Settings(port=0, handshake_timeout=0.5)) as node:
            yield node

    @pytest.mark.parametrize("before", [b"", REQUEST], ids=["first", "later"])
    @pytest.mark.parametrize("sent", [b"\r\n", b"\r\n\r\n", b"\r\n\r\nGET / HT", REQUEST[:-2]])
    async def test_every_head_has_its_time(self, node: Standalone, wire: Wires, sent: bytes, before: bytes) -> None:
        """Empty lines before it do not lengthen it, nor does an earlier request, with a body or without."""
        client = await wire.open(node.address.replace("http", "ws", 1))
        if before:
            await answered(client)
        await client.write(sent)
        said = await client.read_end(deadline=10)
        assert said.startswith(b"HTTP/1.1 408") == bool(sent.strip())
        assert node.service.counters.refusals[408] == bool(sent.strip())
        await eventually(lambda: node.service.counters.transports == 0)

    async def test_a_head_behind_a_body_has_its_time(self, node: Standalone, wire: Wires) -> None:
        """And its size."""
        post = b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na"
        for more, status in ((b"GET / HT", 408), (b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 40_000, 431)):
            client = await wire.open(node.address.replace("http", "ws", 1))
            assert await answered(client, post) == 405
            await client.write(more)
            assert (await client.read_head(deadline=10)).status == status
            await client.read_end(deadline=10)

    async def test_who_does_not_read_is_given_up(
        self, node: Standalone, wire: Wires, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whether one answer is too much for him or many are."""
        monkeypatch.setattr(transports, "STALL", 0.3)
        clients = [await wire.open(node.address.replace("http", "ws", 1), receive_buffer=4096) for _ in range(2)]
        await clients[0].write(LONG * 200)
        await clients[1].write(REQUEST * 20_000)
        await eventually(lambda: node.service.counters.transports == 0, 30)

    async def test_a_slow_reader_is_not(self, node: Standalone, wire: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who takes a little now and then gets it all."""
        monkeypatch.setattr(transports, "STALL", 0.5)
        client = await wire.open(node.address.replace("http", "ws", 1), receive_buffer=4096)
        count = 30
        await client.write(LONG * count)
        found = 0
        while found < count:
            found += (await client.read(30_000)).count(b"HTTP/1.1 200")
            await asyncio.sleep(0.01)
