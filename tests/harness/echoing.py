"""The gateway's handshake and WebSocket, without the gateway behind them: whatever comes is sent back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from aiohttp import web

from gateway.access.upgrade import agree, upgrade_of
from gateway.connections.websocket import WebSocket
from gateway.errors import Close
from gateway.protocol.frames import frame_message

HOST = "127.0.0.1"


class Echo:
    """Owns WebSockets that answer every message with the same one; compression is as each client offers it."""

    def __init__(self, *, limit: int = 0) -> None:
        """`limit` is of a message, in bytes."""
        self._limit = limit
        self._numbers = count()
        self._sockets: dict[int, tuple[WebSocket[int], int]] = {}
        """By number, with the window of the compression."""

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Turn a request into one of them."""
        terms = agree(request, compress=True)
        upgrade = upgrade_of(request, terms)
        transport, number = await upgrade.answer(), next(self._numbers)
        socket = WebSocket(transport, number, self, window=terms.window, limit=self._limit, outbox=0)
        self._sockets[number] = (socket, terms.window)
        upgrade.hand_over(socket)
        return upgrade.release()

    def received(self, number: int, opcode: int, payload: bytes) -> None:
        """Send it back."""
        socket, window = self._sockets[number]
        socket.write(frame_message(opcode, payload, window))

    def overhead(self, number: int) -> None:
        """Allow it."""

    def spared(self, number: int, messages: int, *, first: bool) -> None:
        """Never happens: nothing written here may be dropped."""

    def lost(self, number: int, close: Close) -> None:
        """Keep nothing of it."""
        del self._sockets[number]


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
