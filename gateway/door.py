"""Where TCP connections come in: aiohttp hears of one only when the head of its first request is whole.

Until then it costs a few hundred bytes and a timer, whoever it is and however slowly it writes; afterwards nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

HEAD_BYTES = 32 * 1024
"""Of the request line and all headers of a first request."""
LINGER = 1.0
"""Seconds in which who was refused may read why: closing at once while it is still writing would be a reset."""
_END = b"\r\n\r\n"


class Door(asyncio.Protocol):
    """One connection that has not said yet what it wants."""

    __slots__ = ("_closed", "_doors", "_head", "_timer", "_transport")

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._head = bytearray()
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(self._doors.timeout, self._too_late)
        self._doors.waiting.add(self)

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        searched = max(0, len(self._head) - len(_END) + 1)
        self._head += data
        if not _may_begin_request(self._head[0]):
            self._refuse("400 Bad Request")
        elif 0 <= self._head.find(_END, searched) <= HEAD_BYTES - len(_END):
            self._open()
        elif len(self._head) > HEAD_BYTES:
            self._refuse("431 Request Header Fields Too Large")

    def connection_lost(self, error: Exception | None) -> None:
        self._forget()

    def abort(self) -> None:
        """Break the connection."""
        self._transport.abort()

    def _open(self) -> None:
        self._forget()
        http = self._doors.serve()
        self._transport.set_protocol(http)
        http.connection_made(self._transport)
        http.data_received(bytes(self._head))

    def _too_late(self) -> None:
        if self._head:
            self._refuse("408 Request Timeout")
        else:
            self._transport.close()

    def _refuse(self, status: str) -> None:
        self._closed = True
        self._transport.write(f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(LINGER, self._transport.abort)

    def _forget(self) -> None:
        self._timer.cancel()
        self._doors.waiting.discard(self)


class Doors:
    """Makes the protocols of a server's connections: a door, or with `timeout` 0 at once what is behind it."""

    def __init__(self, serve: Callable[[], asyncio.Protocol], *, timeout: float) -> None:
        self.serve = serve
        self.timeout = timeout
        self.waiting: set[Door] = set()

    def __call__(self) -> asyncio.Protocol:
        return Door(self) if self.timeout else self.serve()

    def close(self) -> None:
        """Break the connections that have not asked for anything."""
        for door in tuple(self.waiting):
            door.abort()


def _may_begin_request(byte: int) -> bool:
    """Tell whether a request may begin so: with its method, or an empty line left over from one before."""
    return byte in b"\r\n" or bytes((byte,)).isalpha()
