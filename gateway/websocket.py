"""One WebSocket on the wire: a bare protocol, because what a framework keeps per connection is what costs.

aiohttp does the upgrade; then its transport is ours. An idle connection is this object and its transport:
no task, no timer, no parser.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from gateway.codec import CLOSE, PING, PONG, TEXT, frame
from gateway.connection import Connection
from gateway.errors import PROTOCOL_ERROR, TOO_BIG, TOO_SLOW, Close
from gateway.frames import FIN, Violation, check_text, close_of, close_payload, next_frame

CLOSE_TIMEOUT = 5.0
"""How long a client may take to answer a close frame."""
BROKEN_TIMEOUT = 1.0
"""How long a client that broke the protocol may go on sending."""
HIGH_WATER = 64 * 1024
"""Bytes the transport holds before what follows goes to the outbox."""
_PING_FRAME = frame(PING, b"")


class Owner(Protocol):
    """Whoever a WebSocket tells what it received."""

    def received(self, connection: Connection, opcode: int, payload: bytes) -> None:
        """Take a whole message (TEXT, already known to be UTF-8, or BINARY)."""

    def lost(self, connection: Connection, close: Close) -> None:
        """Hear, once, that the connection is over, and why."""


class WebSocket(asyncio.Protocol):
    """Speaks RFC 6455 with one client, after the upgrade."""

    __slots__ = (
        "_broken",
        "_close",
        "_connection",
        "_fragments",
        "_heard",
        "_limit",
        "_opcode",
        "_outbox",
        "_outbox_limit",
        "_outbox_size",
        "_owner",
        "_reading",
        "_tail",
        "_timer",
        "_transport",
        "write",
    )

    def __init__(
        self, transport: asyncio.Transport, connection: Connection, owner: Owner, *, limit: int, outbox: int
    ) -> None:
        self._transport = transport
        self._connection = connection
        self._owner = owner
        self._limit = limit
        self._outbox_limit = outbox
        self._outbox_size = 0
        self._outbox: deque[bytes] | None = None
        """What waits while the transport holds enough; None while it takes everything."""
        self._tail: bytearray | None = None
        """An incomplete frame, or all that came while reading was paused."""
        self._fragments: bytearray | None = None
        self._opcode = 0
        self._reading = True
        self._heard = True
        self._broken = False
        self._close: Close | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.write: Callable[[bytes], None] = transport.write
        """Rebound as the connection changes state, so that fan-out, the hot path, checks nothing."""
        transport.set_write_buffer_limits(high=HIGH_WATER)

    # ---- for the gateway

    def close(self, close: Close) -> None:
        if self._close is not None:
            return
        self._close = close
        self.write(frame(CLOSE, close_payload(close)))
        self.write = _drop
        self._timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._transport.abort)

    def hold(self) -> None:
        """Let everything wait in the outbox until `release`."""
        self.pause_writing()

    def release(self, first: bytes = b"") -> None:
        """Write `first`, then what was held back."""
        if self._outbox is not None:
            self._outbox.appendleft(first)
            self.resume_writing()

    def ping(self) -> bool:
        heard, self._heard = self._heard, False
        self.write(_PING_FRAME)
        return heard

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading or self._transport.is_closing():
            return
        self._reading = True
        self.data_received(b"")
        if self._reading:
            self._transport.resume_reading()

    # ---- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._broken:
            return
        if self._tail is None:
            rest = self._take(data)
            self._tail = bytearray(data[rest:]) if rest < len(data) else None
        else:
            self._tail += data
            rest = self._take(self._tail)
            self._tail = self._tail[rest:] if rest < len(self._tail) else None

    def eof_received(self) -> None:
        """Returning nothing lets the transport close."""

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._close = self._close or Close(1006)
        self.write = _drop
        self._outbox = None
        self._owner.lost(self._connection, self._close)

    def pause_writing(self) -> None:
        """Let what follows wait in the outbox: the client does not read as fast as it is written to."""
        if self._outbox is None and self._close is None:
            self._outbox = deque()
            self.write = self._wait

    def resume_writing(self) -> None:
        outbox, self._outbox, self._outbox_size = self._outbox, None, 0
        if self._close is None:
            self.write = self._transport.write
        while outbox:
            (self.write if self._close is None else self._transport.write)(outbox.popleft())

    def _wait(self, data: bytes) -> None:
        assert self._outbox is not None
        self._outbox.append(data)
        self._outbox_size += len(data)
        if 0 < self._outbox_limit < self._outbox_size and self._close is None:
            self._outbox.clear()
            self.close(TOO_SLOW)

    # ---- frames

    def _take(self, data: bytes | bytearray) -> int:
        """Handle the whole frames in `data`; return where the rest begins."""
        position = 0
        try:
            while self._reading and (found := next_frame(data, position, self._limit)):
                first, payload, position = found
                self._frame(first, payload)
        except Violation as violation:
            self._break(violation.close)
            return len(data)
        return position

    def _break(self, close: Close) -> None:
        """Give up on what this client sends.

        What it is still sending is read and dropped for a moment: closing now would answer it with a reset,
        and the close frame would be lost.
        """
        self.close(close)
        self._broken = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(BROKEN_TIMEOUT, self._transport.close)

    def _frame(self, first: int, payload: bytes) -> None:
        opcode = first & 0x0F
        if opcode == CLOSE:
            self._closed_by_client(close_of(payload))
        elif self._close is not None or opcode == PONG:
            return
        elif opcode == PING:
            self.write(frame(PONG, payload))
        elif first & FIN and opcode and self._fragments is None:
            self._message(opcode, payload)
        else:
            self._fragment(first, opcode, payload)

    def _fragment(self, first: int, opcode: int, payload: bytes) -> None:
        if bool(opcode) == (self._fragments is not None):
            raise Violation(PROTOCOL_ERROR)
        if self._fragments is None:
            self._fragments, self._opcode = bytearray(), opcode
        self._fragments += payload
        if 0 < self._limit < len(self._fragments):
            raise Violation(TOO_BIG)
        if first & FIN:
            whole, self._fragments = bytes(self._fragments), None
            self._message(self._opcode, whole)

    def _message(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            check_text(payload)
        self._owner.received(self._connection, opcode, payload)

    def _closed_by_client(self, close: Close) -> None:
        self.close(close)
        self._transport.close()


def _drop(data: bytes) -> None:
    """Write to a connection that is closing."""
