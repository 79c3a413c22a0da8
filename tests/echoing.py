"""The gateway's handshake and WebSocket, without the gateway behind them: whatever comes is sent back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from gateway.codec import PLAIN, dialect_of
from gateway.connection import Connection, Profile
from gateway.errors import Close
from gateway.frames import frame_message
from gateway.handler import Handler
from gateway.handshake import agree, upgrade_of
from gateway.websocket import WebSocket

HOST = "127.0.0.1"


class Echo:
    """Owns WebSockets that answer every message with the same one; compression is as each client offers it."""

    def __init__(self, *, limit: int = 0) -> None:
        """`limit` is of a message, in bytes."""
        self._limit = limit

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Turn a request into one of them."""
        terms = agree(request, compress=True)
        upgrade = upgrade_of(request, terms)
        connection = Connection("echo~1", Profile(), Handler(), dialect=dialect_of(PLAIN, terms.window))
        transport = await upgrade.answer()
        socket = connection.socket = WebSocket(transport, connection, self, limit=self._limit, outbox=0)
        upgrade.hand_over(socket)
        return upgrade.release()

    def received(self, connection: Connection, opcode: int, payload: bytes) -> None:
        """Send it back."""
        connection.socket.write(frame_message(opcode, payload, connection.dialect.window))

    def overhead(self, connection: Connection) -> None:
        """Allow it."""

    def spared(self, connection: Connection, messages: int, *, first: bool) -> None:
        """Never happens: nothing written here may be dropped."""

    def lost(self, connection: Connection, close: Close) -> None:
        """Keep nothing of it."""


@asynccontextmanager
async def echoing(**options: int) -> AsyncIterator[str]:
    """Run a server that echoes, on a free port, for the length of a `with`; yields its address."""
    app = web.Application()
    app.router.add_get("/{any:.*}", Echo(**options).connect)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        yield f"ws://{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
