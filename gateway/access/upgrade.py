"""The WebSocket handshake (RFC 6455 section 4.2), and the one place where aiohttp's request becomes a socket of ours.

There are two ways. Where the request came the short way (`fast_path.py`), the 101 is written and the listener hands its
transport over. Where aiohttp's server had it, which runs middlewares and signals, its `WebSocketResponse` would keep a
request, a parser, a reader and a task for every connection (15 KB measured, this keeps 1.4); so its answer is sent and
the transport taken over. Three inner names of aiohttp are used for that, each where it says why: `_upgraded`,
`_message_tail`, `_payload_writer`.
"""

from __future__ import annotations

import base64
import hashlib
import math
from asyncio import Transport
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11

from gateway.access.listener import Listener
from gateway.connections.websocket import WebSocket
from gateway.errors import GatewayError
from gateway.protocol.deflate import agreement, chosen_window

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""

_EXTENSIONS = "Sec-WebSocket-Extensions"

_ANSWERS: dict[int, type[web.HTTPException]] = {
    kind.status_code: kind
    for kind in (
        web.HTTPBadRequest,
        web.HTTPUnauthorized,
        web.HTTPForbidden,
        web.HTTPNotFound,
        web.HTTPConflict,
        web.HTTPTooManyRequests,
        web.HTTPServiceUnavailable,
    )
}
"""What is raised instead of a `GatewayError`, so that an application's middlewares know it by its class."""

TOKEN_PROTOCOL = "gateway.token."
"""Before a token, this makes a subprotocol: the one place where a page can put one beside the address."""


class Terms(NamedTuple):
    """What both sides of a handshake agree on (RFC 6455 section 4.2)."""

    protocol: str
    """The subprotocol, "" without one."""
    window: int
    """Of the compression, 0 for none."""
    headers: dict[str, str]
    """Of the 101 answer."""


def agree(request: web.Request, protocols: Sequence[str] = (), *, compress: bool = False) -> Terms:
    """Check the client's part of the handshake. Raises aiohttp's HTTP errors."""
    protocol = _choose(request, protocols)
    headers = _answer(request)
    if protocol:
        headers["Sec-WebSocket-Protocol"] = protocol
    window = chosen_window(request.headers.getall(_EXTENSIONS, ())) if compress else 0
    if window:
        headers[_EXTENSIONS] = agreement(window)
    return Terms(protocol, window, headers)


class Upgrade(Protocol):
    """A way from an accepted handshake to a socket of ours: `answer`, `hand_over` at once, then `release`."""

    async def answer(self) -> Transport:
        """Send the 101; return the transport. Hand it over before anything is awaited.

        When the client has left, raises an HTTP error that nobody hears: any other would be logged as a fault.
        """

    def hand_over(self, socket: WebSocket[Any]) -> None:
        """Give the transport to a WebSocket, with the bytes that came behind the handshake."""

    def release(self) -> web.WebSocketResponse:
        """Return the response a request handler must return."""


def upgrade_of(request: web.Request, terms: Terms) -> Upgrade:
    """Choose the way, by where the request came in.

    aiohttp's parser stops where a handshake ends only if `Upgrade` names nothing but the WebSocket; from a list it
    reads on, and frames that follow are lost or taken for requests. A node's own port gives it no list
    (`request_heads.py`). One that comes to an application's server, or behind other requests, is refused: a client can
    do without it.
    """
    listener: object = request.protocol
    if isinstance(listener, Listener):
        return Direct(listener, terms)
    # The parser tells nobody but its protocol, in `_upgraded`, that it has stopped at this request.
    if not request.protocol._upgraded:
        raise web.HTTPUpgradeRequired(
            text="expected Upgrade to name websocket alone\n", headers={"Upgrade": "websocket"}
        )
    return Upgraded(request, terms)


class Direct:
    """The 101 answer to a request that no server had in its hands."""

    def __init__(self, listener: Listener, terms: Terms) -> None:
        self._listener = listener
        self._terms = terms

    async def answer(self) -> Transport:
        transport = self._listener.transport
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            *(f"{name}: {value}" for name, value in self._terms.headers.items()),
        ]
        if not transport.is_closing():
            transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        # Also where only the writing has shown it: asyncio would tell a socket that is made now of its end before the
        # connection was opened, and the handler of an end without a beginning.
        if transport.is_closing():
            raise client_left()
        return transport

    def hand_over(self, socket: WebSocket[Any]) -> None:
        self._listener.hand_over(socket)

    def release(self) -> web.WebSocketResponse:
        return _NOTHING_LEFT


class Upgraded(web.WebSocketResponse):
    """The 101 answer, and what aiohttp still holds of a connection that has left it."""

    def __init__(self, request: web.Request, terms: Terms) -> None:
        super().__init__(compress=False)
        self._request = request
        self.headers.update(terms.headers)
        self.force_close()

    async def answer(self) -> Transport:
        with suppress(ConnectionError):
            await web.StreamResponse.prepare(self, self._request)
        transport = self._request.protocol.transport
        if transport is None or transport.is_closing():  # it may have left while the answer was sent
            raise client_left()
        return transport

    def hand_over(self, socket: WebSocket[Any]) -> None:
        http = self._request.protocol
        transport = cast(Transport, http.transport)
        transport.set_protocol(socket)
        http.transport = None  # so that aiohttp lets go of the socket: it would write to it, and close it at its end
        http.force_close()  # it has nothing to close any more, and waits for no body that the request may have claimed
        # That the connection is lost it hears when its task for it is done: before, it would cancel what an application
        # does after `read_loop` wherever handlers are cancelled with their clients (`handler_cancellation`, which its
        # test server sets).
        self._request.task.add_done_callback(lambda _: http.connection_lost(None))
        # Frames may come in one packet with the handshake. aiohttp keeps them in `_message_tail` for its own WebSocket,
        # which is not made here. They are taken out, or it would read them as a request once the task has ended.
        tail, http._message_tail = http._message_tail, b""
        if not transport.is_reading():
            transport.resume_reading()
        if tail:
            socket.data_received(tail)

    def release(self) -> Upgraded:
        return self

    @property
    def prepared(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Tell aiohttp that there is nothing left to send.

        It calls this for whatever a request handler returns, and wants the writer of the response back, which
        `StreamResponse.prepare` has left in `_payload_writer`; its own `prepare` would begin a second handshake.
        """
        writer: Any = self._payload_writer
        return writer  # type: ignore[no-any-return]

    async def write_eof(self, data: bytes = b"") -> None:
        """Send nothing: the socket is no longer aiohttp's."""


_NOTHING_LEFT = web.WebSocketResponse()


def client_left() -> web.HTTPException:
    """Make the answer that nobody will read."""
    return web.HTTPBadRequest(text="the client left during the handshake\n")


def refuse_when_full(held: int, most: int, *, stopping: bool) -> None:
    """Raise 503 when this node takes no more connections; another one may."""
    if stopping or 0 < most <= held:
        text = "this node is stopping\n" if stopping else f"this node holds {held} connections, its most\n"
        raise web.HTTPServiceUnavailable(text=text, headers={"Retry-After": "1"})


def refuse_lone_token(request: web.Request, protocols: Sequence[str]) -> None:
    """Raise 400 where a token is offered as a subprotocol, which is never chosen, beside none that can be."""
    offers_token = any(name.startswith(TOKEN_PROTOCOL) for name in offered_protocols(request))
    if offers_token and not _choose(request, protocols):
        raise web.HTTPBadRequest(text=f"expected {' or '.join(protocols)} beside the subprotocol with the token\n")


def too_many(user: str, most: int) -> web.HTTPException:
    """Make the 429 for a user who has as many connections as one may have."""
    return web.HTTPTooManyRequests(text=f"user {user!r} has {most} connections, the most that are allowed\n")


def answer_to(error: Exception) -> web.HTTPException | None:
    """Make the answer to a request that failed so; None for what is no refusal."""
    if isinstance(error, web.HTTPException):
        return error
    if not isinstance(error, GatewayError) or error.status == GatewayError.status:
        return None
    text, headers = f"{error}\n", headers_of(error)
    kind = _ANSWERS.get(error.status)
    return kind(text=text, headers=headers) if kind else Refusal(error.status, text, headers)


class Refusal(web.HTTPException):
    """The answer to a request that was refused with a status of which aiohttp's exception is not used here."""

    def __init__(self, status: int, text: str, headers: dict[str, str]) -> None:
        self.status_code = status
        super().__init__(text=text, headers=headers)


def headers_of(error: GatewayError) -> dict[str, str]:
    """Return what an answer says beside its status: how to be let in, and when to try again."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    seconds = error.fields.get("retry_after")
    if isinstance(seconds, int | float):
        headers["Retry-After"] = str(math.ceil(seconds))
    return headers


def status_of(error: Exception) -> int:
    """Return the status of the answer, 500 for what is no refusal."""
    answer = answer_to(error)
    return 500 if answer is None else answer.status


def reason_of(error: Exception) -> str:
    """Return what the answer says."""
    return ((error.text if isinstance(error, web.HTTPException) else str(error)) or "").strip()


def offered_protocols(request: web.Request) -> list[str]:
    """Return the subprotocols a client offers, in its order; they may stand in several headers."""
    return _tokens(_joined(request, "Sec-WebSocket-Protocol"), lower=False)


def _answer(request: web.Request) -> dict[str, str]:
    """Check the client's part of the handshake (RFC 6455 section 4.2.1) and return ours."""
    if request.method != "GET":
        raise web.HTTPMethodNotAllowed(request.method, ["GET"])
    # An `Upgrade` in HTTP/1.0 is to be ignored (RFC 9110 section 7.8): a proxy of that age would not know what follows.
    if (
        request.version < HttpVersion11
        or "websocket" not in _tokens(_joined(request, "Upgrade"))
        or "upgrade" not in _tokens(_joined(request, "Connection"))
    ):
        raise web.HTTPUpgradeRequired(
            text="this is a WebSocket: connect with ws:// or wss://\n", headers={"Upgrade": "websocket"}
        )
    # What is no list may stand there once (RFC 6455 section 11.3): joined, two of them are no version and no key.
    if _joined(request, "Sec-WebSocket-Version") != "13":
        raise web.HTTPUpgradeRequired(
            text="expected Sec-WebSocket-Version 13\n", headers={"Sec-WebSocket-Version": "13"}
        )
    key = _joined(request, "Sec-WebSocket-Key")
    if not _is_key(key):
        raise web.HTTPBadRequest(text="expected Sec-WebSocket-Key to be 16 bytes in base64\n")
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest())
    return {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept.decode()}


def _joined(request: web.Request, name: str) -> str:
    """Return a header that may stand in several lines as if it stood in one (RFC 9110 section 5.3)."""
    return ",".join(request.headers.getall(name, ()))


def _choose(request: web.Request, protocols: Sequence[str]) -> str:
    return next((name for name in offered_protocols(request) if name in protocols), "")


def _tokens(header: str, *, lower: bool = True) -> list[str]:
    return [token.strip() for token in (header.lower() if lower else header).split(",")]


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        return False
