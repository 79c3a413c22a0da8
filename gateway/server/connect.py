"""The WebSocket routes of a node, `/connect` and the one of the demo's page: what lets a request in, in which order."""

from __future__ import annotations

import asyncio
import secrets
import string
from collections.abc import Awaitable
from typing import TypeVar

from aiohttp import web

from gateway.access.identity import SETTINGS
from gateway.access.proxies import through_proxies
from gateway.access.query import refuse_unreadable_query
from gateway.application.service import Handler
from gateway.errors import Forbidden, Unauthorized
from gateway.node.service import NodeService
from gateway.protocol.message import check_channel
from gateway.server.demo.example import ExampleHandler
from gateway.server.middlewares import answered

T = TypeVar("T")

NODE = web.AppKey("gateway_node", NodeService)
"""The service of an application's node, with what operators see and do, which is no part of the contract."""
HANDLER = web.AppKey("gateway_handler", Handler)
"""The configured one: whoever wants to connect, by whatever route, is asked of it."""
EXAMPLE = web.AppKey("gateway_example", ExampleHandler)
"""That one as the demo's page speaks to it; there while it is the demo."""

routes, demo_routes = web.RouteTableDef(), web.RouteTableDef()


@routes.get("/connect")
async def _connect(request: web.Request) -> web.StreamResponse:
    return await _open(request, request.app[HANDLER], _named(request))


async def connect_directly(request: web.Request) -> web.StreamResponse:
    """Do what the application does for a request that has not come through its middlewares."""
    trusted = request.app[SETTINGS].trusted_networks
    return await answered(through_proxies(request, trusted), _connect)


@demo_routes.get("/example/socket")
async def _example_socket(request: web.Request) -> web.StreamResponse:
    chosen = _named(request) or ["example-" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(8))]
    return await _open(request, request.app[EXAMPLE], chosen)


def _named(request: web.Request) -> list[str]:
    return [channel for channel in request.query.getall("ch", []) if channel]


async def _open(request: web.Request, handler: Handler, channels: list[str]) -> web.StreamResponse:
    """Let a client in, the one way there is: what is wrong with the request is said before the upgrade."""
    with request.app[NODE].handshaking(request):
        return await _admit(request, handler, channels)


async def _admit(request: web.Request, handler: Handler, channels: list[str]) -> web.StreamResponse:
    service = request.app[NODE]
    refuse_unreadable_query(request)
    most = service.settings.max_channels_per_connection
    if 0 < most < len(set(channels)):
        raise web.HTTPBadRequest(text=f"{len(set(channels))} channels, at most {most} are allowed\n")
    profile = await _contained(handler.authenticate(request))
    if profile is None:
        raise Unauthorized("who are you?")
    connection = service.arrival(request, profile, handler)
    for channel in channels:
        if not await _contained(service.authorize(connection, check_channel(channel), "join")):
            raise Forbidden(f"not allowed to join {channel}")
    return await service.serve(request, channels, connection)


async def _contained(asked: Awaitable[T]) -> T:
    """Let what an application raises end no more than this request: SystemExit would end the node."""
    try:
        return await asked
    except Exception:
        raise
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        raise RuntimeError("the handler failed") from error
