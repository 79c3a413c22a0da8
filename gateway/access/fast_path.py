"""The short way in for WebSockets: a handshake that is the first request of its connection needs no HTTP server.

For each request aiohttp's server makes a protocol, a task that lives as long as the connection, and a response: half
of what a handshake costs a node, and after a restart all clients come at once. Its parser and its `Request` are
used here, so that handlers see what they always see; whatever is not the plain case goes the way of all requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError, HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD

from gateway.access.request_heads import LIMITS
from gateway.access.transports import Answering, Newcomer

logger = logging.getLogger(__name__)

READ_BYTES = 2**16
"""What aiohttp's parser asks for and a request without a body never uses."""
_NOT_PLAIN = ("Content-Length", "Transfer-Encoding", "Expect")
_TROUBLE = web.Response(status=500, text="500 Internal Server Error\n")

Handle = Callable[[web.Request], Awaitable[object]]


class FastPath:
    """Answers handshakes for one path of an application; its middlewares and signals have no part in it."""

    def __init__(self, app: web.Application, path: str, handle: Handle) -> None:
        """`handle` upgrades a request, or raises an HTTP error; the application has a route for the same path."""
        self._app = app
        self._heads = tuple(f"GET {path}{end}".encode() for end in "? ")
        self._handle = handle
        self._route = next(route for route in app.router.routes() if route.get_info().get("path") == path)

    def __call__(self, newcomer: Newcomer, head: bytes, loop: asyncio.AbstractEventLoop) -> Answering | None:
        """Return what answers a request, or None where it is for the server."""
        if not head.startswith(self._heads):
            return None
        parser = HttpRequestParser(cast(Any, newcomer), loop, READ_BYTES, **LIMITS)
        try:
            messages, upgraded, _ = parser.feed_data(head)
        except HttpProcessingError:  # the server's parser will find the same, and its answer is the one people know
            return None
        if not upgraded or len(messages) != 1 or any(name in messages[0][0].headers for name in _NOT_PLAIN):
            return None
        return self._answer(newcomer, messages[0][0], loop)

    async def _answer(self, newcomer: Newcomer, message: Any, loop: asyncio.AbstractEventLoop) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task(loop))
        request = web.Request(message, EMPTY_PAYLOAD, cast(Any, newcomer), cast(AbstractStreamWriter, None), task, loop)
        # Handlers read `request.app` and `request.match_info`. aiohttp's application sets both by this inner name, as
        # there is no public one; the application is not asked here.
        request._match_info = self._match()
        # A client that leaves meanwhile is not noticed before the answer: `Direct.answer` looks at the transport. The
        # node's end cancels this task (`Transports.close`).
        try:
            refusal = await self._refusal(request)
        except Exception:
            logger.exception("Error handling request from %s", request.remote)
            refusal = _as_bytes(_TROUBLE)
        if refusal:
            newcomer.refuse(refusal)

    async def _refusal(self, request: web.Request) -> bytes:
        try:
            await self._handle(request)
        except web.HTTPException as error:
            return _as_bytes(error)
        return b""

    def _match(self) -> web.UrlMappingMatchInfo:
        match = web.UrlMappingMatchInfo({}, self._route)
        match.add_app(self._app)
        match.freeze()
        return match


def _as_bytes(response: web.Response) -> bytes:
    """Write down a response after which nothing comes. Raises `ValueError` for a header that would be two."""
    body = response.body if isinstance(response.body, bytes) else b""
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    lines += [f"Set-Cookie: {cookie.OutputString()}" for cookie in response.cookies.values()]
    lines += [f"Content-Length: {len(body)}", "Connection: close"]
    if wrong := [line for line in lines if "\r" in line or "\n" in line]:
        raise ValueError(f"expected a header in one line, got {wrong[0]!r}")
    return "\r\n".join([*lines, "", ""]).encode() + body
