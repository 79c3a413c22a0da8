"""The one place where aiohttp's request becomes a socket of ours.

aiohttp parses the request and runs middlewares and signals. Its `WebSocketResponse` would then keep a
request, a parser, a reader and a task for every connection (15 KB measured, this keeps 1.4); so its
answer is sent and the transport taken over. Two of its private names are needed: `_message_tail`, the
bytes that came with the handshake, and `request.protocol.transport`, so that it lets go of the socket.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from asyncio import Transport
from collections.abc import Collection, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.websocket import WebSocket

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""


class Upgraded(web.WebSocketResponse):
    """The 101 answer, and what aiohttp still holds of a connection that has left it."""

    def __init__(self, request: web.Request, protocols: Sequence[str] = ()) -> None:
        super().__init__(compress=False)
        self._request = request
        self.protocol = _choose(request, protocols)
        self.headers.update(_answer(request))
        if self.protocol:
            self.headers["Sec-WebSocket-Protocol"] = self.protocol
        self.force_close()

    async def answer(self) -> Transport:
        """Send the 101; return the transport. Hand it over before anything is awaited."""
        await web.StreamResponse.prepare(self, self._request)
        transport = self._request.protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client left during the handshake")
        return transport

    def hand_over(self, socket: WebSocket) -> None:
        """Give the transport to a WebSocket, with the bytes that came behind the handshake."""
        http = self._request.protocol
        transport = cast(Transport, http.transport)
        transport.set_protocol(socket)
        http.transport = None
        tail, http._message_tail = http._message_tail, b""
        if not transport.is_reading():
            transport.resume_reading()
        if tail:
            socket.data_received(tail)

    def release(self) -> Upgraded:
        """Let aiohttp forget the connection; return the response a request handler must return."""
        self._request.protocol.connection_lost(None)
        return self

    @property
    def prepared(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Tell aiohttp that there is nothing left to send."""
        writer: Any = self._payload_writer
        return writer  # type: ignore[no-any-return]

    async def write_eof(self, data: bytes = b"") -> None:
        """Send nothing: the socket is no longer aiohttp's."""


def refuse_foreign_origin(request: web.Request, allowed: Collection[str]) -> None:
    """Raise 403 for a page of another site, which would act with this user's cookies (RFC 6455 section 10.2).

    A request without `Origin` comes from no browser and passes.
    """
    origin = request.headers.get("Origin")
    if origin is None or "*" in allowed or origin in allowed:
        return
    if urlsplit(origin).netloc != request.headers.get("Host"):
        raise web.HTTPForbidden(text=f"origin {origin!r} is not allowed to connect; see allowed_origins\n")


def refuse_when_full(held: int, most: int, *, stopping: bool) -> None:
    """Raise 503 when this node takes no more connections; another one may."""
    if stopping or 0 < most <= held:
        text = "this node is stopping\n" if stopping else f"this node holds {held} connections, its most\n"
        raise web.HTTPServiceUnavailable(text=text, headers={"Retry-After": "1"})


def _answer(request: web.Request) -> dict[str, str]:
    """Check the client's part of the handshake (RFC 6455 section 4.2.1) and return ours."""
    headers = request.headers
    if "websocket" not in _tokens(headers.get("Upgrade", "")) or "upgrade" not in _tokens(
        headers.get("Connection", "")
    ):
        raise web.HTTPUpgradeRequired(
            text="this is a WebSocket: connect with ws:// or wss://\n", headers={"Upgrade": "websocket"}
        )
    if headers.get("Sec-WebSocket-Version") != "13":
        raise web.HTTPUpgradeRequired(
            text="expected Sec-WebSocket-Version 13\n", headers={"Sec-WebSocket-Version": "13"}
        )
    key = headers.get("Sec-WebSocket-Key", "")
    if not _is_key(key):
        raise web.HTTPBadRequest(text="expected Sec-WebSocket-Key to be 16 bytes in base64\n")
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest())
    return {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept.decode()}


def _choose(request: web.Request, protocols: Sequence[str]) -> str:
    offered = _tokens(request.headers.get("Sec-WebSocket-Protocol", ""), lower=False)
    return next((name for name in offered if name in protocols), "")


def _tokens(header: str, *, lower: bool = True) -> list[str]:
    return [token.strip() for token in (header.lower() if lower else header).split(",")]


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False
