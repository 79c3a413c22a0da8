"""Fakes that record: the socket a hub writes to, and the transport and owner of a WebSocket without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson

from gateway.application.service import Handler
from gateway.connections.connection import Connection, Profile
from gateway.connections.outbox import Sparable
from gateway.connections.websocket import WebSocket
from gateway.errors import Close

from .wire import CLOSE, Frame

__all__ = ["Peer", "RecordingSocket", "Transport", "make_connection", "server_frames"]


def server_frames(data: bytes) -> list[Frame]:
    """Cut what a server wrote into its frames; fail unless they are whole and not masked."""
    frames, start = [], 0
    while start < len(data):
        first, second, body = data[start], data[start + 1], start + 2
        assert not second & 0x80, "a server's frame must not be masked"
        size = second
        if size >= 126:
            body += 2 if size == 126 else 8
            size = int.from_bytes(data[start + 2 : body], "big")
        start = body + size
        assert start <= len(data), f"{len(data)} bytes end inside a frame"
        frames.append(Frame(first & 0x0F, data[body:start], fin=bool(first & 0x80), rsv=first >> 4 & 7))
    return frames


class RecordingSocket:
    """The socket of a connection in a hub: keeps what was written and why it was closed."""

    def __init__(self) -> None:
        # One for each call of `write`.
        self.writes: list[bytes] = []
        self.closes: list[Close] = []
        self.is_behind = False
        self.waiting_bytes = 0
        # What may be dropped, of what was written while the client was behind.
        self.sparable: list[Sparable] = []

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.writes.append(data)

    def write_sparable(self, messages: Sequence[Sparable]) -> None:
        """Keep it, as one write."""
        self.sparable += messages
        self.writes.append(b"".join(message.frame for message in messages))

    def close(self, close: Close) -> None:
        """Keep it."""
        self.closes.append(close)

    def pause_reading(self) -> None:
        """Do nothing: nobody sends here."""

    def resume_reading(self) -> None:
        """Do nothing."""

    def ping(self) -> bool:
        """Answer like a client that lives."""
        return True

    @property
    def messages(self) -> list[Any]:
        """The messages written so far, in order."""
        return [orjson.loads(frame.payload) for frame in server_frames(b"".join(self.writes))]


def make_connection(id: str, *, user: str = "") -> tuple[Connection, RecordingSocket]:
    """Make a connection of an anonymous or an identified user, with a socket that records."""
    connection = Connection(id, Profile(id=user), Handler())
    socket = RecordingSocket()
    connection.socket = cast("Any", socket)
    return connection, socket


class Transport(asyncio.Transport):
    """Takes everything written, or only so much before it says that it is full, as a client that does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        # How often; asyncio's TLS transport cannot be aborted after the second time.
        self.closes = 0
        self.aborted = False
        # Whether nothing more is written, though it may still read.
        self.finished = False
        self.reading = True
        # Bytes it takes before the protocol is told to pause; None for no end.
        self.room: int | None = None
        self._unread = 0
        self.protocol: asyncio.Protocol | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it; say so when that is as much as there is room for."""
        self.written += bytes(data)
        if self.room is not None:
            self.room -= len(data)
            self._unread += len(data)
            if self.room <= 0:
                self.room = None
                assert self.protocol is not None
                self.protocol.pause_writing()

    def drain(self, room: int | None = None) -> None:
        """Let the client read all that waits here; there is `room` for so much more then."""
        self.room, self._unread = room, 0
        assert self.protocol is not None
        self.protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        """Return how much waits to be read, since there was little room."""
        return self._unread

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Ignore them: `room` is what counts here."""

    def can_write_eof(self) -> bool:
        """Say that it can, as TCP does."""
        return True

    def write_eof(self) -> None:
        """Note it."""
        self.finished = True

    def is_closing(self) -> bool:
        """Say whether it was closed or aborted."""
        return self.closed or self.aborted

    def close(self) -> None:
        """Note it."""
        self.closed = True
        self.closes += 1

    def abort(self) -> None:
        """Note it."""
        self.aborted = True

    def pause_reading(self) -> None:
        """Note it."""
        self.reading = False

    def resume_reading(self) -> None:
        """Note it."""
        self.reading = True

    def is_reading(self) -> bool:
        """Say whether the protocol wants to be given data."""
        return self.reading


@dataclass(frozen=True, slots=True)
class Received:
    """One whole message that a WebSocket handed to its owner."""

    opcode: int
    payload: bytes


class Peer:
    """A WebSocket of the gateway between a recording transport and a recording owner; needs a running loop."""

    def __init__(self, *, limit: int = 65536, outbox: int = 1 << 20, window: int = 0, patience: float = 5) -> None:
        """Sizes are in bytes; with a `window`, compression was agreed on; an end may take `patience` seconds."""
        self.transport = Transport()
        self.received: list[Received] = []
        # Frames that carried next to nothing.
        self.overhead = 0
        self.lost: list[Close] = []
        # Messages dropped, each time some were; and how often that began anew.
        self.spared: list[int] = []
        self.episodes = 0
        # The owner pauses the socket after so many further messages; None for never.
        self.pause_after: int | None = None
        self.socket = WebSocket(
            self.transport, self, _Owner(), window=window, limit=limit, outbox=outbox, patience=patience
        )
        self.transport.protocol = self.socket

    def feed(self, *pieces: bytes) -> None:
        """Let bytes of the client arrive, piece by piece."""
        for piece in pieces:
            self.socket.data_received(piece)

    @property
    def sent(self) -> list[Frame]:
        """The frames written to the client so far."""
        return server_frames(self.transport.written)

    @property
    def close_code(self) -> int | None:
        """The code of the one close frame that was sent, None when there is none."""
        codes = [frame.close_code for frame in self.sent if frame.opcode == CLOSE]
        assert len(codes) <= 1, f"more than one close frame: {codes}"
        assert not codes or self.sent[-1].opcode == CLOSE, "something was sent behind the close frame"
        return codes[0] if codes else None


class _Owner:
    def received(self, peer: Peer, opcode: int, payload: bytes) -> None:
        peer.received.append(Received(opcode, payload))
        if peer.pause_after is not None:
            peer.pause_after -= 1
            if peer.pause_after <= 0:
                peer.pause_after = None
                peer.socket.pause_reading()

    def overhead(self, peer: Peer) -> None:
        peer.overhead += 1

    def spared(self, peer: Peer, messages: int, *, first: bool) -> None:
        peer.spared.append(messages)
        peer.episodes += first

    def lost(self, peer: Peer, close: Close) -> None:
        peer.lost.append(close)
