"""A client that breaks rules: it sends any bytes, and reads only when asked."""

from __future__ import annotations

from typing import Any

import orjson

from tests.harness import wire
from tests.harness.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, frame
from tests.stress.checks import DEADLINE

__all__ = ["BINARY", "CLOSE", "CONTINUATION", "ENDED", "PING", "PONG", "TEXT", "Wire", "frame", "say"]

ENDED = 1006
"""How a stream ends without a close frame."""


def say(cmd: str, param: object = None, **fields: object) -> bytes:
    """Write a message as a text frame."""
    return frame(orjson.dumps({"cmd": cmd, "param": param, **fields}))


class Wire(wire.Wire):
    """One TCP connection of which any end is a frame: a close with 1006 where none came."""

    async def status(self) -> int:
        """Read the head of the answer and return its status; 0 when the stream just ends."""
        try:
            return (await self.read_head(deadline=DEADLINE)).status
        except (EOFError, ConnectionError):
            return 0

    async def read_frame(self, *, deadline: float = DEADLINE) -> Frame:
        try:
            return await super().read_frame(deadline=deadline)
        except (EOFError, ConnectionError):
            return Frame(CLOSE, ENDED.to_bytes(2, "big"))

    async def read_message(self) -> dict[str, Any]:
        """Return the next message; `{"cmd": ""}` at the end."""
        while (found := await self.read_frame()).opcode != CLOSE:
            if found.opcode == TEXT:
                message: dict[str, Any] = found.json
                return message
        return {"cmd": "", "code": found.close_code}

    async def read_code(self) -> int:
        """Read to the end and return the close code."""
        return (await self.read_close(deadline=DEADLINE)).close_code
