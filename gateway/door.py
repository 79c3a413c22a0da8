"""Where TCP connections come in: a server hears of one only when the head of its first request is whole.

Until then it costs a few hundred bytes, whoever it is and however slowly it writes. A WebSocket handshake goes
the short way (`shortcut.py`), everything else to aiohttp; afterwards the door costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

HEAD_BYTES = 32 * 1024
"""Of the request line and all headers of a first request."""
LINGER = 1.0
"""Seconds in which who was refused may read why: closing at once while it is still writing would be a reset."""
_END = b"\r\n\r\n"


class Door(asyncio.Protocol):
    """One connection that has not said yet what it wants, or is just being answered the short way."""

    __slots__ = ("_came", "_closed", "_doors", "_is_answered", "transport")

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._came = bytearray()
        self._closed = False
        self._is_answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._doors.watch(self)

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        searched = max(0, len(self._came) - len(_END) + 1)
        self._came += data
        if self._is_answered:
            self._keep_small()
        elif not _may_begin_request(self._came[0]):
            self._refuse("400 Bad Request")
        elif 0 <= (end := self._came.find(_END, searched)) <= HEAD_BYTES - len(_END):
            self._open(end + len(_END))
        elif len(self._came) > HEAD_BYTES:
            self._refuse("431 Request Header Fields Too Large")

    def connection_lost(self, error: Exception | None) -> None:
        self._doors.forget(self)

    # ---- for whom the door is what a protocol is to a request of aiohttp's

    @property
    def peername(self) -> Any:
        """Whence the connection came."""
        return self.transport.get_extra_info("peername")

    @property
    def sockname(self) -> Any:
        """Where it arrived."""
        return self.transport.get_extra_info("sockname")

    @property
    def ssl_context(self) -> Any:
        """What encrypts it, if it is encrypted here."""
        return self.transport.get_extra_info("sslcontext")

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Give the connection to another protocol, with the bytes that came behind the head."""
        self.transport.set_protocol(protocol)
        if not self.transport.is_reading():
            self.transport.resume_reading()
        if self._came:
            protocol.data_received(bytes(self._came))

    def refuse(self, response: bytes) -> None:
        """Say why not, and end the connection."""
        self._closed = True
        self.transport.write(response)
        self._doors.loop.call_later(LINGER, self.transport.abort)

    # ----

    def too_late(self) -> None:
        """End a connection whose time is over."""
        if self._came:
            self._refuse("408 Request Timeout")
        else:
            self.transport.close()

    def _open(self, end: int) -> None:
        self._doors.forget(self)
        answering = self._doors.shortcut(self, bytes(self._came[:end]), self._doors.loop)
        if answering is not None:
            del self._came[:end]
            self._is_answered = True
            self._doors.run(answering, self)
            return
        http = self._doors.serve()
        self.transport.set_protocol(http)
        http.connection_made(self.transport)
        http.data_received(bytes(self._came))

    def _keep_small(self) -> None:
        """Let wait with the kernel what a client sends before it was answered, except for a little."""
        if len(self._came) > HEAD_BYTES:
            self.transport.pause_reading()

    def _refuse(self, status: str) -> None:
        self._doors.forget(self)
        self.refuse(f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())


Answering = Coroutine[Any, Any, None]
Shortcut = Callable[[Door, bytes, asyncio.AbstractEventLoop], Answering | None]
"""What answers a first request with this head, or None where a server must."""


class Doors:
    """Makes the protocols of a server's connections: a door, or with `timeout` 0 at once what is behind it."""

    def __init__(self, serve: Callable[[], asyncio.Protocol], shortcut: Shortcut, *, timeout: float) -> None:
        """Needs a running loop."""
        self.loop = asyncio.get_running_loop()
        """Asked for once: on CPython 3.11 each time is a system call."""
        self.serve = serve
        self.shortcut = shortcut
        self.timeout = timeout
        self._waiting: dict[Door, float] = {}
        """Until when each may take, those first whose time is over first."""
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: dict[asyncio.Task[None], Door] = {}
        """What is being answered, and to whom."""

    def __call__(self) -> asyncio.Protocol:
        return Door(self) if self.timeout else self.serve()

    def watch(self, door: Door) -> None:
        """Let a connection wait as long as it may."""
        self._waiting[door] = deadline = self.loop.time() + self.timeout
        if self._timer is None:
            self._timer = self.loop.call_at(deadline, self._sweep)

    def forget(self, door: Door) -> None:
        """Watch a connection no longer: it has said what it wants, or is gone."""
        self._waiting.pop(door, None)

    def run(self, answering: Answering, door: Door) -> None:
        """Let a first request be answered the short way."""
        task = self.loop.create_task(answering)
        self._tasks[task] = door
        task.add_done_callback(self._tasks.pop)

    async def close(self) -> None:
        """Break the connections that have not asked for anything; give up answering."""
        if self._timer is not None:
            self._timer.cancel()
        for door in (*self._waiting, *self._tasks.values()):
            door.transport.abort()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _sweep(self) -> None:
        self._timer = None
        while self._waiting:
            door, deadline = next(iter(self._waiting.items()))
            if deadline > self.loop.time():
                self._timer = self.loop.call_at(deadline, self._sweep)
                break
            del self._waiting[door]
            door.too_late()


def _may_begin_request(byte: int) -> bool:
    """Tell whether a request may begin so: with its method, or an empty line left over from one before."""
    return byte in b"\r\n" or bytes((byte,)).isalpha()
