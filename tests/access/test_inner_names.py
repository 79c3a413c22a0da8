"""The names of aiohttp's inside that the gateway uses, each held to what we take it for: a release may change any."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD

from gateway.access.fast_path import READ_BYTES
from gateway.access.request_heads import LIMITS
from tests.harness.wait import eventually

PACKAGE = Path(__file__).parents[2] / "gateway"

NAMES = {
    "_manager": "http.py",
    "_match_info": "fast_path.py",
    "_message_tail": "upgrade.py",
    "_payload_writer": "upgrade.py",
    "_request_count": "http.py",
    "_upgraded": "upgrade.py",
    "_waiter": "http.py",
}
"""And the one file that uses each of them."""

UPGRADE = (
    b"GET /socket HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PLAIN = b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Client:
    """One TCP connection to a server of aiohttp, and its protocol there."""

    def __init__(self, server: web.Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer

    @property
    def protocol(self) -> Any:
        """What aiohttp has made for this connection."""
        (found,) = self._server.connections
        return found

    def write(self, data: bytes) -> None:
        """Send some bytes."""
        self._writer.write(data)

    async def read_head(self) -> bytes:
        """Read the head of an answer."""
        return await self._reader.readuntil(b"\r\n\r\n")

    def close(self) -> None:
        """Go away."""
        self._writer.close()


@asynccontextmanager
async def connected(answer: Answer) -> AsyncIterator[Client]:
    """Serve on a free port, and open one connection."""
    server = web.Server(cast(Any, answer), access_log=None)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    async with listener:
        client = Client(server, *await asyncio.open_connection(*listener.sockets[0].getsockname()))
        await eventually(lambda: bool(server.connections))
        try:
            yield client
        finally:
            client.close()
            await server.shutdown(0.1)


async def empty(request: web.Request) -> web.StreamResponse:
    """Answer with nothing."""
    return web.Response(text="")


async def test_a_server_waits_for_the_next_request_with_a_waiter_that_is_not_done() -> None:
    """`_waiter`: so it is known whether a connection is idle."""
    answering, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        answering.set()
        await go_on.wait()
        return web.Response(text="")

    def is_waiting() -> bool:
        waiter = client.protocol._waiter
        return waiter is not None and not waiter.done()

    async with connected(answer) as client:
        await eventually(is_waiting)
        client.write(PLAIN)
        await answering.wait()
        assert not is_waiting()
        go_on.set()
        await client.read_head()
        await eventually(is_waiting)


async def test_every_request_that_the_parser_found_is_counted() -> None:
    """`_request_count`: also those that have not been answered, and none of which only a part has come."""
    async with connected(empty) as client:
        assert client.protocol._request_count == 0
        client.write(PLAIN + PLAIN)
        await client.read_head()
        await client.read_head()
        assert client.protocol._request_count == 2
        client.protocol.data_received(PLAIN[:-2])
        assert client.protocol._request_count == 2
        client.protocol.data_received(PLAIN[-2:])
        assert client.protocol._request_count == 3


async def test_a_connection_that_is_lost_has_no_manager() -> None:
    """`_manager`: and may be told so twice."""
    async with connected(empty) as client:
        protocol = client.protocol
        assert protocol._manager is not None
        client.close()
        await eventually(lambda: protocol._manager is None)
        protocol.connection_lost(None)


async def test_what_comes_behind_an_upgrade_is_kept() -> None:
    """`_upgraded`, `_message_tail`: the parser stops there, and what it has not read is no request."""
    found: list[tuple[bool, bytes]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        found.append((request.protocol._upgraded, request.protocol._message_tail))
        return web.Response(text="")

    async with connected(answer) as client:
        client.write(PLAIN)
        await client.read_head()
        client.write(UPGRADE + b"\x81\x80frames")
        await client.read_head()
    assert found == [(False, b""), (True, b"\x81\x80frames")]


async def test_a_response_that_was_prepared_has_a_writer() -> None:
    """`_payload_writer`: what `prepare` returned."""
    found = []

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.WebSocketResponse()
        writer = await web.StreamResponse.prepare(response, request)
        found.append(writer is not None and cast(Any, response)._payload_writer is writer)
        response.force_close()
        return response

    async with connected(answer) as client:
        client.write(UPGRADE)
        await client.read_head()
    assert found == [True]


async def test_a_parser_tells_a_message_whether_it_upgrades_and_what_is_left() -> None:
    """Made and fed by hand, with a protocol that is none of aiohttp's."""
    loop = asyncio.get_running_loop()
    messages, upgraded, tail = HttpRequestParser(cast(Any, object()), loop, READ_BYTES, **LIMITS).feed_data(
        UPGRADE + b"more"
    )
    assert [(message.method, message.path) for message, _ in messages] == [("GET", "/socket")]
    assert (upgraded, tail) == (True, b"more")


async def test_a_request_is_made_by_hand() -> None:
    """`_match_info`: handlers find in it what they find in one that a server has made."""
    app = web.Application()
    route = app.router.add_get("/socket", empty)
    loop = asyncio.get_running_loop()
    ((message, _),), _, _ = HttpRequestParser(cast(Any, object()), loop, READ_BYTES, **LIMITS).feed_data(UPGRADE)
    task = cast("asyncio.Task[None]", asyncio.current_task())
    protocol = cast(
        Any, type("Protocol", (), {"transport": None, "ssl_context": None, "peername": None, "sockname": None})
    )
    request = web.Request(message, EMPTY_PAYLOAD, protocol, cast(AbstractStreamWriter, None), task, loop)
    match = web.UrlMappingMatchInfo({}, route)
    match.add_app(app)
    match.freeze()
    request._match_info = match
    assert request.match_info is match
    assert request.app is app
    assert request.task is task
    assert (request.method, request.path, request.headers["Upgrade"]) == ("GET", "/socket", "websocket")


def of_others(tree: ast.Module) -> set[str]:
    """Return the inner names that a file takes from elsewhere: it neither sets them on `self` nor defines them.

    `_replace` of a named tuple is a public one.
    """
    own = {
        getattr(node, "attr", None) or getattr(node, "name", None) or getattr(node, "id", None)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        or (isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store) and _is_self(node))
    }
    slots = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and str(node.value).startswith("_")
    }
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {name for name in used - own - slots if name.startswith("_") and not name.startswith("__")} - {"_replace"}


def _is_self(node: ast.Attribute | ast.Name) -> bool:
    return isinstance(node, ast.Name) or (isinstance(node.value, ast.Name) and node.value.id == "self")


def uses_aiohttp(tree: ast.Module) -> bool:
    """Whether a file imports it."""
    return any(
        str(getattr(node, "module", "")).partition(".")[0] == "aiohttp"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    )


def test_no_other_inner_name_is_used() -> None:
    """Of whatever uses aiohttp: a new one needs a row above, and a test."""
    found = {
        name: path.name
        for path in sorted(PACKAGE.rglob("*.py"))
        if uses_aiohttp(tree := ast.parse(path.read_text()))
        for name in of_others(tree)
    }
    assert found == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_file_of_a_name_uses_it(name: str) -> None:
    """So that the table does not outlive its reasons."""
    assert f".{name}" in next(PACKAGE.rglob(NAMES[name])).read_text()
