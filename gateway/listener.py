"""The port of a node that runs by itself."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from gateway.config import Settings
from gateway.counters import Counters
from gateway.door import Door
from gateway.doors import Doors, Shortcut, most_transports
from gateway.errors import CannotStart
from gateway.http import Http

BACKLOG = 4096
"""Connections the kernel may hold for us: a whole cluster's clients come back at once."""
ACCEPTED = 64
"""Connections that asyncio's own loop takes at once."""

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def listening(
    server: web.Server,
    shortcut: Shortcut,
    settings: Settings,
    counters: Counters,
    *,
    keep_alive: float,
    shares_port: bool,
) -> AsyncIterator[int]:
    """Take connections in; yield the port. Raises `CannotStart`."""
    server.request_handler = _as_a_server(server.request_handler)
    doors = Doors(
        lambda doors, is_spare: Http(server, doors, is_spare=is_spare, keep_alive=keep_alive),
        shortcut,
        counters,
        timeout=settings.handshake_timeout,
        keep_alive=keep_alive,
        most=most_transports(settings.max_connections),
    )
    try:
        port = await asyncio.get_running_loop().create_server(
            lambda: Door(doors), settings.host, settings.port, backlog=ACCEPTED, reuse_port=shares_port or None
        )
    except OSError as error:
        # asyncio's own words repeat the address; a failed look-up has no errno of the system's
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise CannotStart(f"cannot listen on {settings.host} port {settings.port}: {why}") from None
    for each in port.sockets:
        _lengthen_queue(each.fileno())
    try:
        yield port.sockets[0].getsockname()[1]
    finally:
        port.close()
        await doors.close()


def _lengthen_queue(listening: int) -> None:
    """Let the kernel hold more connections than asyncio's own loop takes at once.

    When no descriptor is left, that one goes on trying as often as it was told the queue is long, with a traceback
    each time. (uvloop ends what it cannot take, and says nothing.)
    """
    with socket.socket(fileno=os.dup(listening)) as queue:
        queue.listen(BACKLOG)


def _as_a_server(handle: Handle) -> Handle:
    """Answer what nobody asks of a server, before anybody reads an address in it that is none.

    An expectation that nobody can meet aiohttp would repeat, and fail where it is no text.
    """

    async def checked(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "CONNECT":
            response = web.Response(status=405, text="this is no proxy\n", headers={"Allow": "GET"})
            response.force_close()
            return response
        if request.headers.get("Expect", "100-continue").lower() != "100-continue":
            return web.Response(status=417, text="expected no Expect but 100-continue\n")
        return await handle(request)

    return checked
