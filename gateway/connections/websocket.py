"""The WebSocket protocol (RFC 6455) of one connection, on a bare asyncio protocol: a framework keeps more for each.

The handshake is made elsewhere; then the transport is ours. An idle connection is this object and its transport:
no task, no timer, no parser.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from gateway.connections.outbox import Outbox, Sparable
from gateway.errors import PROTOCOL_ERROR, TOO_BIG, TOO_SLOW, Close
from gateway.protocol.frames import (
    CLOSE,
    DEFLATED,
    FIN,
    PING,
    PONG,
    RESERVED,
    TEXT,
    Violation,
    check_text,
    close_of,
    close_payload,
    frame,
    inflated,
    next_frame,
)

Key = TypeVar("Key")
"""What the owner of a WebSocket knows it by."""
Known = TypeVar("Known", contravariant=True)

CLOSE_TIMEOUT = 5.0
"""Seconds within which a connection is gone once anything has ended it, whatever its client does or leaves undone: the
closing handshake (RFC 6455 section 7.1.1) takes one round trip, and what is in the outbox goes first."""
BROKEN_TIMEOUT = 1.0
"""Of these, what a client gets that broke the protocol and may still be sending, or does not seem to be there."""
SMALL_FRAGMENT = 128
"""Bytes below which a part of a message counts as overhead; larger ones are bounded by the size of the message."""
HIGH_WATER = 64 * 1024
"""Bytes the transport holds before what follows goes to the outbox (asyncio's own default): what it holds cannot be
dropped any more."""
_PING_FRAME = frame(PING, b"")

_OPEN, _CLOSING, _BROKEN, _LEAVING, _GONE = range(5)
"""How far a connection has come; it never goes back. From `_BROKEN` on nothing counts that its client sends.

Closing: the close frame is written, the client's is waited for. Broken: what comes is read and dropped for a moment.
Leaving: as soon as everything is written the transport may go. Gone: the owner knows.
"""


class Owner(Protocol[Known]):
    """Whoever a WebSocket tells what it received, with the key that the owner knows it by."""

    def received(self, key: Known, opcode: int, payload: bytes, /) -> None:
        """Take a whole message (TEXT, already known to be UTF-8, or BINARY)."""

    def overhead(self, key: Known, /) -> None:
        """Hear of a frame that carries next to nothing: a ping, a pong, a small part of a message."""

    def spared(self, key: Known, messages: int, /, *, first: bool) -> None:
        """Hear that messages were dropped; `first` when that begins, until the client has caught up."""

    def lost(self, key: Known, close: Close, /) -> None:
        """Hear, once, that the connection is over, and why."""


class WebSocket(asyncio.Protocol, Generic[Key]):
    """Speaks RFC 6455 with one client, after the upgrade.

    However it ends, the first reason sets one deadline, and later reasons can only bring it forward. At the deadline
    the transport is aborted and the owner is told, whether or not the transport says that it is lost: a client that
    does not read, does not answer or does not stop sending cannot keep its place on the node.
    """

    __slots__ = (
        "_close",
        "_fragments",
        "_heard",
        "_held",
        "_key",
        "_limit",
        "_opcode",
        "_outbox",
        "_outbox_limit",
        "_owner",
        "_patience",
        "_reading",
        "_reserved",
        "_stage",
        "_tail",
        "_timer",
        "_transport",
        "write",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        key: Key,
        owner: Owner[Key],
        *,
        window: int = 0,
        limit: int,
        outbox: int,
        patience: float = CLOSE_TIMEOUT,
    ) -> None:
        """`window` is of the compression agreed on, `limit` and `outbox` are in bytes, 0 for none of each.

        `patience` is how many seconds an end may take.
        """
        self._transport = transport
        self._key = key
        self._owner = owner
        self._limit = limit
        self._outbox_limit = outbox
        self._patience = patience
        self._outbox: Outbox | None = None
        """What waits while the transport holds enough; None while it takes everything."""
        self._tail: bytearray | None = None
        """An incomplete frame, or all that came while reading was paused."""
        self._reserved = RESERVED & ~DEFLATED if window else RESERVED
        self._fragments: bytearray | None = None
        self._opcode = 0
        """Of the message in fragments, with the flag of a compressed one."""
        self._reading = True
        self._heard = True
        self._held = False
        """Whether messages wait for `release`."""
        self._stage = _OPEN
        self._close: Close | None = None
        self._timer: asyncio.TimerHandle | None = None
        """The deadline of its end."""
        self.write: Callable[[bytes], None] = transport.write
        """Rebound as the connection changes state, so that fan-out, the hot path, checks nothing."""
        transport.set_write_buffer_limits(high=HIGH_WATER)

    # ---- for the gateway

    @property
    def is_behind(self) -> bool:
        return self._outbox is not None

    @property
    def waiting_bytes(self) -> int:
        return 0 if self._outbox is None else self._outbox.size

    def write_sparable(self, messages: Sequence[Sparable]) -> None:
        if self._close is not None:
            return
        if self._outbox is None:
            self.write(b"".join([message.frame for message in messages]))
            return
        for message in messages:
            self._outbox.put_sparable(message)
        self._settle()

    def close(self, close: Close) -> None:
        if self._close is not None:
            return
        if self._held:  # what waits will not be released any more, and the close frame must not wait with it
            self._held, self._outbox, self.write = False, None, self._transport.write
        self._close, self._fragments = close, None
        self._limit = self._limit or HIGH_WATER  # what still comes is dropped: no more of it may wait than that
        self.write(frame(CLOSE, close_payload(close)))
        self.write = _drop
        self._go(_CLOSING, self._patience)
        if not self._reading:  # its answer comes behind what nobody will handle; later, as this may be a handler's call
            asyncio.get_running_loop().call_soon(self.resume_reading)

    def end(self, close: Close, *, within: float = BROKEN_TIMEOUT) -> None:
        """Close without waiting for an answer: gone after so many seconds, or once the client took what is left."""
        self.close(close)
        self._leave(within)

    def hold(self) -> None:
        """Let all messages wait in the outbox until `release`."""
        self._held = True
        self.pause_writing()

    def release(self, first: bytes = b"") -> None:
        """Write `first`, then what was held back."""
        self._held = False
        if self._outbox is not None:
            self._outbox.put_first(first)
            self.resume_writing()

    def ping(self) -> bool:
        if self._close is not None:  # it has its deadline; to miss it now would be a second end
            return True
        # Who is not read for a while, because much waits for its handler, is not silent.
        heard, self._heard = self._heard or not self._reading, False
        self._control(_PING_FRAME)
        return heard

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading or self._transport.is_closing():
            return
        self._reading = True
        self.data_received(b"")  # what came is handled first, and may pause the reading again
        if self._reading:
            self._transport.resume_reading()

    # ---- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._stage >= _BROKEN:
            return
        if self._tail is None:
            rest = self._take(data)
            self._tail = bytearray(data[rest:]) if rest < len(data) else None
        else:
            self._tail += data
            rest = self._take(self._tail)
            if rest < len(self._tail):
                del self._tail[:rest]
            else:
                self._tail = None

    def eof_received(self) -> None:
        """Returning nothing lets the transport close, once it has written what it holds: no more is put behind that."""
        self._close = self._close or Close(1006)
        self._outbox, self.write = None, _drop
        self._go(_LEAVING, self._patience)

    def connection_lost(self, error: Exception | None) -> None:
        if self._stage == _GONE:  # `_cut` has said so
            return
        self._stage = _GONE
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._close = self._close or Close(1006)
        self.write = _drop
        self._tail = self._fragments = self._outbox = None
        key = self._key
        del self._key  # which may have this socket: a circle would wait for the garbage collector
        self._owner.lost(key, self._close)

    def pause_writing(self) -> None:
        """Let what follows wait in the outbox: the client does not read as fast as it is written to."""
        if self._outbox is None and self._close is None:
            self._outbox = Outbox()
            self.write = self._wait

    def resume_writing(self) -> None:
        """Write what waits, until the transport has enough again."""
        if self._held:
            return
        outbox, self._outbox = self._outbox, None
        if self._close is None:
            self.write = self._transport.write
        while outbox:
            self._transport.write(outbox.take(HIGH_WATER))
            if self.is_behind:  # the transport has said so meanwhile
                self._outbox, self.write = outbox, self._wait
                return
        if self._stage == _LEAVING:
            # Not from here: asyncio's transport, which is calling, would tell twice that it is lost.
            asyncio.get_running_loop().call_soon(self._finish)

    def _control(self, data: bytes) -> None:
        """Write a ping or pong: it does not wait for `release`, but is left out where the client takes nothing."""
        if not self._held:
            self.write(data)
        elif self._transport.get_write_buffer_size() < HIGH_WATER:
            self._transport.write(data)

    def _wait(self, data: bytes) -> None:
        assert self._outbox is not None
        self._outbox.put(data)
        self._settle()

    def _settle(self) -> None:
        """Hold the bound: drop what may be dropped, or give up the client."""
        limit, outbox = self._outbox_limit, self._outbox
        if not limit or outbox is None or outbox.size <= limit or self._close is not None:
            return
        first = not outbox.dropped
        if spared := outbox.shrink(limit):
            self._owner.spared(self._key, spared, first=first)
        if outbox.size > limit:
            self._outbox = Outbox()  # the client is told why next, and not behind what it does not read
            self.close(TOO_SLOW)

    # ---- the end

    def _go(self, stage: int, seconds: float) -> None:
        """Go on to a stage of the end, which is over in so many seconds at most: never later than it was before."""
        if self._stage == _GONE:
            return
        self._stage = max(self._stage, stage)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(seconds, self._patience)
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = loop.call_at(deadline, self._cut)

    def _leave(self, seconds: float) -> None:
        """Let the transport go as soon as everything is written."""
        self._go(_LEAVING, seconds)
        if not self.is_behind:
            self._finish()

    def _finish(self) -> None:
        # A second close(), or one behind the client's close_notify, takes abort() from asyncio's TLS transport, which
        # would then wait half a minute for its client.
        if not self._transport.is_closing():
            self._transport.close()

    def _cut(self) -> None:
        self._transport.abort()
        self.connection_lost(None)  # whether the transport says so or not: it would keep this connection's place

    # ---- frames

    def _take(self, data: bytes | bytearray) -> int:
        """Handle the whole frames in `data`; return where the rest begins."""
        position = 0
        try:
            while self._reading and (found := next_frame(data, position, self._limit, self._reserved)):
                first, payload, position = found
                self._frame(first, payload)
        except Violation as violation:
            self._break(violation.close)
            return len(data)
        return position

    def _break(self, close: Close) -> None:
        """Give up on what this client sends.

        It is told that nothing more comes, but what it is still sending is read and dropped for a moment: closing
        now would answer it with a reset, and the close frame would be lost.
        """
        self.close(close)
        self._go(_BROKEN, BROKEN_TIMEOUT)
        if not self.is_behind and self._transport.can_write_eof():
            self._transport.write_eof()

    def _frame(self, first: int, payload: bytes) -> None:
        opcode = first & 0x0F
        if opcode == CLOSE:
            self._closed_by_client(close_of(payload))
        elif self._close is not None:
            return
        elif opcode > CLOSE:
            self._owner.overhead(self._key)
            if opcode == PING:
                self._control(frame(PONG, payload))
        elif first == FIN | opcode and opcode and self._fragments is None:
            self._message(opcode, payload)
        else:
            self._fragment(first, opcode, payload)

    def _fragment(self, first: int, opcode: int, payload: bytes) -> None:
        """Take what is not a whole message in clear, as nearly all are."""
        if bool(opcode) == (self._fragments is not None):
            raise Violation(PROTOCOL_ERROR)
        if self._fragments is None:
            self._fragments, self._opcode = bytearray(), first & ~FIN
        self._fragments += payload
        if 0 < self._limit < len(self._fragments):
            raise Violation(TOO_BIG)
        if not first & FIN and len(payload) < SMALL_FRAGMENT:
            self._owner.overhead(self._key)
        if first & FIN:
            whole, self._fragments = bytes(self._fragments), None
            if self._opcode & DEFLATED:
                whole = inflated(whole, self._limit)
            self._message(self._opcode & ~DEFLATED, whole)

    def _message(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            check_text(payload)
        self._owner.received(self._key, opcode, payload)

    def _closed_by_client(self, close: Close) -> None:
        self.close(close)
        self._leave(self._patience)


def _drop(data: bytes) -> None:
    """Write to a connection that is closing."""
