"""The protocol of a new TCP connection: aiohttp's server hears of one only when the head of its first request is whole.

Until then it costs a few hundred bytes, whoever it is and however slowly it writes. A WebSocket handshake goes
the short way (`fast_path.py`), everything else to aiohttp (`http.py`); afterwards the listener costs nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from gateway.access.request_heads import FULL, HEAD_BYTES, TOO_LATE, BadHead, Head, with_one_upgrade
from gateway.access.transports import Transports


class Listener(asyncio.Protocol):
    """Listens on one connection that has not said yet what it wants, or is just being answered the short way."""

    __slots__ = ("_closed", "_head", "_is_answered", "_transports", "is_spare", "transport")

    def __init__(self, transports: Transports) -> None:
        self._transports = transports
        self._head = Head()
        self._closed = False
        self._is_answered = False
        self.is_spare = False
        """Whether it came when there were too many, and may only ask how the node is."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._transports.arrived(self)

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        if self._is_answered:  # frames may come right behind a handshake, before its 101: `hand_over` passes them on
            self._head.came += data
            self._keep_small()
            return
        try:
            head = self._head.feed(data)
        except BadHead as error:
            self._refuse(error.status)
        else:
            if head:
                self._open(with_one_upgrade(head))

    def connection_lost(self, error: Exception | None) -> None:
        self._transports.left(self)

    # ---- for whom the listener is what a protocol is to a request of aiohttp's

    @property
    def peername(self) -> Any:
        """The address that the connection comes from."""
        return self.transport.get_extra_info("peername")

    @property
    def sockname(self) -> Any:
        """The address of ours that it came to."""
        return self.transport.get_extra_info("sockname")

    @property
    def ssl_context(self) -> Any:
        """The TLS context; None where TLS ends before the node."""
        return self.transport.get_extra_info("sslcontext")

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Give the connection to another protocol, with the bytes that came behind the head."""
        # In one step: what the loop reads next goes to the new protocol, behind these bytes.
        self._transports.left(self)
        self.transport.set_protocol(protocol)
        if not self.transport.is_reading():
            self.transport.resume_reading()
        if self._head.came:
            protocol.data_received(bytes(self._head.came))

    def refuse(self, response: bytes) -> None:
        """Say why not, and end the connection."""
        self._closed = True
        self._transports.end(self.transport, response)

    # ---- what the transports ask of it

    def too_late(self) -> None:
        """End a connection whose time is over: without a word where nothing was said."""
        if self._head.came:
            self._refuse(TOO_LATE)
        else:
            self.transport.close()

    def make_way(self) -> bool:
        """End, so that another connection has room."""
        self._closed = True
        self.transport.abort()
        return True

    def _open(self, head: bytes) -> None:
        self._transports.forget(self)
        if self._transports.refuses(head, is_spare=self.is_spare):
            self._refuse(FULL)
            return
        answering = self._transports.fast_path(self, head, self._transports.loop)
        if answering is not None:
            self._is_answered = True  # before its task runs: nothing that comes is the head of a request any more
            self._transports.run(answering, self)
            return
        self._transports.serve(self._transports, self.is_spare).begin(self.transport, head, bytes(self._head.came))

    def _keep_small(self) -> None:
        """Let wait with the kernel what a client sends before it was answered, except for a little."""
        if len(self._head.came) > HEAD_BYTES:
            self.transport.pause_reading()

    def _refuse(self, status: int) -> None:
        self._closed = True
        self._transports.forget(self)
        self._transports.refuse(status, self.transport)
