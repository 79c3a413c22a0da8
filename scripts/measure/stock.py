"""Stock aiohttp, as its documentation shows it: what a connection costs when nothing is made of it. `stock.py PORT`."""

from __future__ import annotations

import sys

from aiohttp import web


async def connect(request: web.Request) -> web.WebSocketResponse:
    """Say something, as every server here does, then listen."""
    socket = web.WebSocketResponse(protocols=("gateway.v1.json",))
    await socket.prepare(request)
    await socket.send_str('{"cmd":"$welcome"}')
    async for _ in socket:
        pass
    return socket


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/connect", connect)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None, backlog=4096)
