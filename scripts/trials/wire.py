"""A client that breaks rules: it sends any bytes, and reads only when asked."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from typing import Any, NamedTuple

import orjson

from trials.node import Node
from trials.scenario import DEADLINE

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
ENDED = 1006
"""How a stream ends without a close frame."""


class Frame(NamedTuple):
    """One that came."""

    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of a close frame."""
        return int.from_bytes(self.payload[:2], "big") if len(self.payload) > 1 else 1005


def frame(
    payload: bytes | str = b"",
    opcode: int = TEXT,
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    size: int = -1,
) -> bytes:
    """Write a frame as a client does, or as none may: `size` is what it claims."""
    body = payload.encode() if isinstance(payload, str) else payload
    claimed, mask = len(body) if size < 0 else size, os.urandom(4)
    flag = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if claimed < 126:
        head += bytes([flag | claimed])
    elif claimed < 1 << 16:
        head += struct.pack(">BH", flag | 126, claimed)
    else:
        head += struct.pack(">BQ", flag | 127, claimed)
    return head + (mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(body)) if masked else body)


def say(cmd: str, param: object = None, **fields: object) -> bytes:
    """Write a message as a text frame."""
    return frame(orjson.dumps({"cmd": cmd, "param": param, **fields}))


class Wire:
    """One TCP connection."""

    def __init__(self, connection: socket.socket, node: Node, target: str) -> None:
        self._socket = connection
        self._node = node
        self._target = target
        self._rest = b""

    @classmethod
    async def open(cls, node: Node, *channels: str, buffer: int = 0, **query: str) -> Wire:
        """Connect and send nothing; `buffer` is the size of the kernel's receive buffer."""
        connection = socket.socket()
        connection.setblocking(False)
        if buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", node.port))
        return cls(connection, node, node.url(*channels, **query).partition(str(node.port))[2])

    @classmethod
    async def connect(cls, node: Node, *channels: str, buffer: int = 0, protocol: str = "", **query: str) -> Wire:
        """Connect and upgrade; without a protocol the joins may still be under way."""
        wire = await cls.open(node, *channels, buffer=buffer, **query)
        await wire.write(wire.head(protocol))
        status = await wire.status()
        assert status == 101, f"expected 101, got {status}"
        if protocol:
            first = await wire.read_message()
            assert first["cmd"] == "$welcome", first
        return wire

    def head(self, protocol: str = "", **headers: str) -> bytes:
        """Write the request for the upgrade."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {self._target} HTTP/1.1", f"Host: 127.0.0.1:{self._node.port}", "Upgrade: websocket"]
        lines += ["Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
        lines += [f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []
        return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()

    async def write(self, data: bytes) -> None:
        async with asyncio.timeout(DEADLINE):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def read(self, size: int = 65536) -> bytes:
        """Return some bytes, none at the end."""
        if self._rest:
            found, self._rest = self._rest[:size], self._rest[size:]
            return found
        async with asyncio.timeout(DEADLINE):
            return await asyncio.get_running_loop().sock_recv(self._socket, size)

    async def status(self) -> int:
        """Read the head of the answer and return its status; 0 when the stream just ends."""
        found = b""
        while b"\r\n\r\n" not in found:
            try:
                piece = await self.read()
            except ConnectionError:
                piece = b""
            if not piece:
                return 0
            found += piece
        head, _, self._rest = found.partition(b"\r\n\r\n")
        return int(head.split()[1])

    async def read_frame(self) -> Frame:
        """Return the next frame; the end of the stream is a close with 1006."""
        try:
            first, second = await self._exactly(2)
            size = second & 0x7F
            if size > 125:
                size = int.from_bytes(await self._exactly(2 if size == 126 else 8), "big")
            return Frame(first & 0x0F, await self._exactly(size))
        except (EOFError, ConnectionError):
            return Frame(CLOSE, struct.pack(">H", ENDED))

    async def read_message(self) -> dict[str, Any]:
        """Return the next message; `{"cmd": ""}` at the end."""
        while (found := await self.read_frame()).opcode != CLOSE:
            if found.opcode == TEXT:
                message: dict[str, Any] = orjson.loads(found.payload)
                return message
        return {"cmd": "", "code": found.code}

    async def read_code(self) -> int:
        """Read to the end and return the close code."""
        while (found := await self.read_frame()).opcode != CLOSE:
            pass
        return found.code

    async def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = await self.read(size - len(found))
            if not piece:
                raise EOFError
            found += piece
        return found

    def finish(self) -> None:
        """Send no more (FIN)."""
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection (RST)."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._socket.close()
