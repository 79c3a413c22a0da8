"""aiohttp's server protocol with what it lacks: limits in time and size for every head, an end for clients that do not
read, and a log that strangers cannot fill.

Three inner names of aiohttp's protocol are used, each where it says why: `_waiter`, `_request_count`, `_manager`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from gateway.access.request_heads import (
    BAD,
    FULL,
    HEAD_BYTES,
    LIMITS,
    REASONS,
    TOO_LARGE,
    TOO_LATE,
    BadHead,
    Head,
    announces_body,
    with_one_upgrade,
)
from gateway.access.transports import Transports

_QUIET: dict[str, Any] = {"access_log": None}


class Http(RequestHandler):
    """One connection from its first request until it ends, or becomes a WebSocket."""

    __slots__ = ("_head", "_is_exact", "_is_refused", "_is_spare", "_own", "_transports", "_unread")

    def __init__(self, server: web.Server, transports: Transports, *, is_spare: bool, keep_alive: float) -> None:
        super().__init__(server, loop=transports.loop, keepalive_timeout=keep_alive, **LIMITS, **_QUIET)
        self._transports = transports
        self._own: asyncio.Transport
        """Still there when aiohttp has let go of it."""
        self._is_spare = is_spare
        self._is_refused = False
        self._head = Head()
        self._is_exact = True
        """Whether all that the parser was given were whole heads without bodies, so that the next byte begins one."""
        self._unread = 0
        """Bytes that the parser was given since the last answer, and made no request of yet."""

    def begin(self, transport: asyncio.Transport, head: bytes, rest: bytes) -> None:
        """Take a connection over, with the head of its first request and what came behind it."""
        self._own = transport
        transport.set_protocol(self)
        self.connection_made(transport)
        self._take(head, rest)

    # ---- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        if not self._is_waiting:
            self._is_exact = False  # a part of a body, or of a request that comes before the last one was answered
            super().data_received(data)
        elif not self._is_exact:
            self._read_on(data)
        else:
            self._collect(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Hear that the connection has ended, or that it is a WebSocket's now."""
        # It may be told twice, by the transport and by who has taken that over (`upgrade.py`), and is counted once.
        # aiohttp sets `_manager` to None the first time, by which it knows this itself; it has no public name for it.
        if self._manager is not None:
            self._transports.left(self)
            self._transports.await_no_reading(self._own)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._transports.await_reading(self._own)

    def resume_writing(self) -> None:
        self._transports.await_no_reading(self._own)
        super().resume_writing()

    # ---- what the transports ask of it

    def too_late(self) -> None:
        """End: a head has begun and does not come to its end. Empty lines are nothing that could be answered."""
        if self._head.came or self._unread:
            self._refuse(TOO_LATE)
        else:
            self._own.close()

    def make_way(self) -> bool:
        """End for somebody else, unless something is being answered."""
        if is_idle := self._is_waiting:
            self._own.abort()
        return is_idle

    # ---- aiohttp's server

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send what is left of a response; the client has to take it, and may then ask for something else."""
        finished = await super().finish_response(request, resp, start_time)
        if self.transport is not None:  # else it is lost by now, or a WebSocket's: nobody waits on it any more
            self._unread = 0
            self._transports.await_reading(self._own)
            self._transports.rest(self)
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what failed: with a counted line where the request does not parse, else with a traceback."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        status = TOO_LARGE if isinstance(exc, LineTooLong) else BAD
        self._transports.count_refusal(status, self.transport)
        response = web.Response(status=status, text=f"{status} {REASONS[status]}\n")
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log a fault of ours; a body that cannot be read is none, even where nobody wanted to read it."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    # ----

    @property
    def _is_waiting(self) -> bool:
        """Whether aiohttp waits for a request, all that came before being answered.

        Its task waits for `_waiter`, a future that is done as soon as a request has come. No public name or hook tells
        the beginning of a request on a connection that is kept alive.
        """
        waiter = self._waiter
        return waiter is not None and not waiter.done()

    def _collect(self, data: bytes) -> None:
        """Do for a later head what the listener does for the first one."""
        if not self._head.came:
            self._transports.await_head(self)
        try:
            head = self._head.feed(data)
        except BadHead as error:
            self._refuse(error.status)
            return
        if not head:
            return
        if self._transports.refuses(head, is_spare=self._is_spare):
            self._refuse(FULL)
            return
        rest, self._head = bytes(self._head.came), Head()
        self._take(with_one_upgrade(head), rest)

    def _take(self, head: bytes, rest: bytes) -> None:
        """Give the parser a whole head, and what came behind it."""
        self._transports.forget(self)
        self._is_exact = self._is_exact and not rest and not announces_body(head)
        super().data_received(head + rest)

    def _read_on(self, data: bytes) -> None:
        """Let the parser have what may be the middle of a head; it has no bound of its own for all lines together."""
        if not self._unread:
            self._transports.await_head(self)
        self._unread += len(data)
        # aiohttp counts the requests that its parser has found in `_request_count`. Only by that it is seen whether
        # these bytes have completed a head: the parser is its own, and hands requests to a task that runs later.
        found = self._request_count
        super().data_received(data)
        if self._request_count > found:
            self._transports.forget(self)
        elif self._unread > HEAD_BYTES:
            self._refuse(TOO_LARGE)

    def _refuse(self, status: int) -> None:
        self._is_refused = True
        self._transports.forget(self)
        self._transports.refuse(status, self._own)
