"""A WebSocket client that can break every rule: it sends the bytes it is told to, and reads only when asked.

Nothing is read ahead, not a byte: what the test does not read stays in the kernel, and a node that writes on meets
full buffers, which `receive_buffer` makes small.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

from .address import Addressed

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "Head",
    "Wire",
    "Wires",
    "frame",
    "upgrade",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an HTTP response."""

    status: int
    # Names in lower case.
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Frame:
    """One WebSocket frame as it arrived."""

    opcode: int
    payload: bytes
    fin: bool = True
    # The three reserved bits as a number; 4 marks a compressed message.
    rsv: int = 0

    @property
    def json(self) -> Any:
        """The payload's JSON value."""
        return orjson.loads(self.payload)

    @property
    def close_code(self) -> int:
        """The code of a close frame; 1005 when it has none."""
        return int.from_bytes(self.payload[:2], "big") if len(self.payload) >= 2 else 1005

    @property
    def close_reason(self) -> str:
        """The reason text of a close frame."""
        return self.payload[2:].decode()


def frame(
    payload: bytes | str = b"",
    opcode: int = TEXT,
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x11\x22\x33\x44",
    length: int | None = None,
) -> bytes:
    """Return a frame as a client sends it, or as one should not.

    `mask=None` leaves it unmasked, `length` claims a length that need not be the payload's.
    """
    body = payload.encode() if isinstance(payload, str) else payload
    claimed = len(body) if length is None else length
    masked = 0x80 if mask is not None else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if claimed < 126:
        head += bytes([masked | claimed])
    elif claimed < 1 << 16:
        head += bytes([masked | 126]) + struct.pack(">H", claimed)
    else:
        head += bytes([masked | 127]) + struct.pack(">Q", claimed)
    return head + (mask + _masked(body, mask) if mask is not None else body)


def upgrade(url: str, *, protocols: Iterable[str] = (), headers: Mapping[str, str] | None = None) -> bytes:
    """Return the request that upgrades to a WebSocket; `headers` replace or add, an empty value leaves one out."""
    address = urlsplit(url)
    every = {
        "Host": address.netloc,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Protocol": ", ".join(protocols),
    } | dict(headers or {})
    target = (address.path or "/") + (f"?{address.query}" if address.query else "")
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in every.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode()


class Wire:
    """One TCP connection to a node, before and after the upgrade."""

    def __init__(self, connection: socket.socket, url: str) -> None:
        self._socket = connection
        self._url = url
        # What was read beyond what was asked for.
        self._rest = b""

    @classmethod
    async def open(cls, url: str, *, receive_buffer: int = 0) -> Self:
        """Open the TCP connection to the host of `url` and send nothing.

        `receive_buffer` is the size of the kernel's receive buffer in bytes, 0 the system's own choice.
        """
        address = urlsplit(url)
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(connection, (address.hostname, address.port))
        except BaseException:
            connection.close()
            raise
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(connection, url)

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        protocols: Iterable[str] = (),
        headers: Mapping[str, str] | None = None,
        receive_buffer: int = 0,
    ) -> Self:
        """Open a connection and upgrade it; fail the test when the node refuses."""
        wire = await cls.open(url, receive_buffer=receive_buffer)
        try:
            await wire.write(wire.upgrade(protocols=protocols, headers=headers))
            head = await wire.read_head()
            assert head.status == 101, f"the upgrade was refused: {head}"
        except BaseException:
            wire.close()
            raise
        return wire

    def upgrade(self, *, protocols: Iterable[str] = (), headers: Mapping[str, str] | None = None) -> bytes:
        """Return the upgrade request for the address it was opened with; see the function `upgrade`."""
        return upgrade(self._url, protocols=protocols, headers=headers)

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the node does not take them."""
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def write_split(self, data: bytes, size: int = 1) -> None:
        """Send bytes in pieces of `size`, each in a TCP segment of its own as far as a sender can tell."""
        for start in range(0, len(data), size):
            await self.write(data[start : start + size])
            await asyncio.sleep(0)

    async def send(self, payload: bytes | str = b"", opcode: int = TEXT, **how: Any) -> None:
        """Send one frame; `how` as for `frame`."""
        await self.write(frame(payload, opcode, **how))

    async def read(self, size: int = 65536, *, deadline: float = 5.0) -> bytes:
        """Return the next bytes, at most `size`; none at the end of the stream. Raises `TimeoutError`."""
        if self._rest:
            taken, self._rest = self._rest[:size], self._rest[size:]
            return taken
        async with asyncio.timeout(deadline):
            return await asyncio.get_running_loop().sock_recv(self._socket, size)

    async def read_exactly(self, size: int, *, deadline: float = 5.0) -> bytes:
        """Return exactly so many bytes; raises `EOFError` when the stream ends before."""
        found = b""
        while len(found) < size:
            piece = await self.read(size - len(found), deadline=deadline)
            if not piece:
                raise EOFError(f"the stream ended after {len(found)} of {size} bytes: {found!r}")
            found += piece
        return found

    async def read_head(self, *, deadline: float = 5.0) -> Head:
        """Return the head of the HTTP response; raises `EOFError` when the node closes instead of answering."""
        found = b""
        while b"\r\n\r\n" not in found:
            piece = await self.read(deadline=deadline)
            if not piece:
                raise EOFError(f"no HTTP response, only {found!r}")
            found += piece
        head, _, self._rest = found.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        return Head(int(first.split()[1]), {name.lower(): value.strip() for name, value in pairs})

    async def read_frame(self, *, deadline: float = 5.0) -> Frame:
        """Return the next frame, whatever it is; raises `EOFError` at the end of the stream."""
        first, second = await self.read_exactly(2, deadline=deadline)
        assert not second & 0x80, "a server's frame must not be masked"
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(await self.read_exactly(2 if size == 126 else 8, deadline=deadline), "big")
        payload = await self.read_exactly(size, deadline=deadline)
        return Frame(first & 0x0F, payload, fin=bool(first & 0x80), rsv=first >> 4 & 7)

    async def read_close(self, *, deadline: float = 5.0) -> Frame:
        """Return the close frame, passing over the frames before it; raises `EOFError` when there is none."""
        async with asyncio.timeout(deadline):
            while (found := await self.read_frame(deadline=deadline)).opcode != CLOSE:
                pass
        return found

    async def read_end(self, *, deadline: float = 5.0) -> bytes:
        """Read until the node has ended the TCP connection, by FIN or RST, and return what came before."""
        found = b""
        async with asyncio.timeout(deadline):
            try:
                while piece := await self.read(deadline=deadline):
                    found += piece
            except ConnectionError:
                pass
        return found

    def finish(self) -> None:
        """Send no more (FIN), and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the TCP connection by a reset (RST)."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close the socket, without a close frame. May be called twice."""
        self._socket.close()


class Wires:
    """All wires of one test; called, it connects and upgrades one more."""

    def __init__(self) -> None:
        self._wires: list[Wire] = []

    async def __call__(self, to: Addressed | str, *channels: str, path: str = "/connect", **options: Any) -> Wire:
        """Connect to a node at `path`, or to an address, and upgrade; `options` are those of `Wire.connect`."""
        return self._kept(await Wire.connect(_url(to, channels, path), **options))

    async def open(self, to: Addressed | str, *channels: str, path: str = "/connect", receive_buffer: int = 0) -> Wire:
        """Open a TCP connection and send nothing yet; `upgrade` of the wire is the request for this address."""
        return self._kept(await Wire.open(_url(to, channels, path), receive_buffer=receive_buffer))

    def close(self) -> None:
        """Close them all."""
        for wire in self._wires:
            wire.close()

    def _kept(self, wire: Wire) -> Wire:
        self._wires.append(wire)
        return wire


def _url(to: Addressed | str, channels: Iterable[str], path: str) -> str:
    return to if isinstance(to, str) else to.ws_url(*channels, path=path)


def _masked(body: bytes, mask: bytes) -> bytes:
    # As one large number: a byte at a time would take seconds for the megabytes that some tests send.
    repeated = (mask * (len(body) // 4 + 1))[: len(body)]
    return (int.from_bytes(body, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(body), "big")
