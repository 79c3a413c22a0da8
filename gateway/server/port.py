"""The port of a node that runs by itself: taken at once, and answered as soon as the node is up, or late."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from aiohttp import web

from gateway.access.http import Http
from gateway.access.listener import Listener
from gateway.access.transports import FastAnswer, Transports, most_transports
from gateway.config import Settings
from gateway.connections.counters import Counters
from gateway.errors import CannotStart
from gateway.node.service import NodeService
from gateway.server.probes import PROBES

BACKLOG = 4096
"""Connections the kernel may hold for us: a whole cluster's clients come back at once."""
ACCEPTED = 64
"""Connections that asyncio's own loop takes at once."""
KEEP_ALIVE = 75.0
"""Seconds for which a connection may wait between two requests; balancers give up theirs after 60."""
LATE = 1.0
"""Seconds after which a node that is not up answers, and says so: until then who calls is better off with a port that
refuses, as a balancer then tries another node at once; and where Redis is there no start takes as long."""
RETRY_AFTER = "2"
"""Seconds after which those are to come back who came too early."""

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Port:
    """A port that is this node's, and what answers there."""

    def __init__(self, server: asyncio.Server, transports: Transports) -> None:
        self._server = server
        self._transports = transports
        self.number: int = server.sockets[0].getsockname()[1]

    async def open(self, server: web.Server, fast_path: FastAnswer) -> None:
        """Let this answer from now on."""
        server.request_handler = _as_a_server(server.request_handler)
        self._transports.serve = partial(_http, server)
        self._transports.fast_path = fast_path
        await self._server.start_serving()
        for each in self._server.sockets:
            _lengthen_queue(each.fileno())

    @asynccontextmanager
    async def saying_why(self, service: NodeService) -> AsyncIterator[None]:
        """While the node is not up: if that lasts, answer probes, and everybody else with 503 and the reason."""

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            probe = PROBES.get(request.path)
            if service.readiness.serves and request.path == "/readyz":  # soon: the port is yet to be handed over
                about = {"status": "starting", "reasons": ["starting: about to take requests"]}
                response = web.json_response(about, status=503)
            else:
                response = probe(service) if probe else _not_yet(service)
            response.force_close()  # who comes again meets the node itself
            return response

        async def open_late() -> None:
            await asyncio.sleep(LATE)
            await self.open(waiting, lambda *_: None)

        waiting = web.Server(answer, access_log=None)
        late = asyncio.create_task(open_late())
        try:
            yield
        finally:
            late.cancel()
            await asyncio.wait((late,))
            await waiting.shutdown(timeout=0.1)


@asynccontextmanager
async def bound(settings: Settings, counters: Counters, *, shares_port: bool) -> AsyncIterator[Port]:
    """Take the port of the settings; nobody is let in before `open`. Raises `CannotStart`.

    Other processes may listen on it, too, where all of them share it.
    """
    transports = Transports(
        _nobody,
        lambda *_: None,
        counters,
        timeout=settings.handshake_timeout,
        keep_alive=KEEP_ALIVE,
        most=most_transports(settings.max_connections),
    )
    try:
        server = await asyncio.get_running_loop().create_server(
            lambda: Listener(transports),
            settings.host,
            settings.port,
            backlog=ACCEPTED,
            reuse_port=shares_port or None,
            start_serving=False,
        )
    except OSError as error:
        # asyncio's own words repeat the address; a failed look-up has no errno of the system's
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise CannotStart(f"cannot listen on {settings.host} port {settings.port}: {why}") from None
    try:
        yield Port(server, transports)
    finally:
        server.close()
        await transports.close()


def _http(server: web.Server, transports: Transports, is_spare: bool) -> Http:
    return Http(server, transports, is_spare=is_spare, keep_alive=KEEP_ALIVE)


def _nobody(transports: Transports, is_spare: bool) -> Http:
    raise AssertionError("nobody is let in yet")


def _not_yet(service: NodeService) -> web.Response:
    text = f"this node is not up yet: {'; '.join(service.readiness.reasons) or 'it is about to be'}\n"
    return web.Response(status=503, text=text, headers={"Retry-After": RETRY_AFTER})


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
