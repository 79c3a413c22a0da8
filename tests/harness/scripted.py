"""A server whose connections are told what to do, for what nodes seldom do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from .ports import HOST, free_port, release_port

__all__ = ["Scripted"]


class Scripted:
    """A server whose connections are told what to do, one after the other."""

    def __init__(self) -> None:
        self.port = free_port()
        self.tokens: list[str] = []
        self.asked: list[dict[str, Any]] = []
        # What to do on a connection once its client has asked for something.
        self.steps: list[Callable[[web.WebSocketResponse], Awaitable[object]]] = []
        # With what to answer the next upgrades; 101 lets in, as does the end of the list.
        self.statuses: list[int] = []

    @property
    def url(self) -> str:
        return f"ws://{HOST}:{self.port}/"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Scripted]:
        app = web.Application()
        app.router.add_get("/", self._serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, HOST, self.port).start()
        try:
            yield self
        finally:
            await runner.cleanup()
            release_port(self.port)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization", ""))
        status = self.statuses.pop(0) if self.statuses else 101
        if status != 101:
            return web.Response(status=status, headers={"Retry-After": "0"})
        socket = web.WebSocketResponse(protocols=["gateway.v1.json"])
        await socket.prepare(request)
        welcome = {"connection": "c", "node": "n", "user": "u", "channels": [], "heartbeat": 25}
        await socket.send_json({"channel": "", "cmd": "$welcome", "param": welcome})
        async for frame in socket:
            self.asked.append(json.loads(frame.data))
            if self.steps:
                await self.steps.pop(0)(socket)
            await socket.send_json({"cmd": "$reply", "id": self.asked[-1].get("id"), "param": {}})
        return socket
