"""What every request passes: who sent it behind proxies, how long its body may take, how our errors are answered."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web

from gateway.access.identity import SETTINGS
from gateway.access.proxies import through_proxies
from gateway.access.upgrade import answer_to
from gateway.errors import GatewayError
from gateway.server.api.problems import Refused

T = TypeVar("T")


class SlowBody(Refused, TimeoutError):
    """A client takes too long to send the body of its request."""

    def __init__(self) -> None:
        super().__init__(408, "the body came too slowly")


@web.middleware
async def look_behind_proxies(request: web.Request, handler: Any) -> web.StreamResponse:
    """Show who sent a request, and how, where a trusted proxy has passed it on."""
    trusted = request.app[SETTINGS].trusted_networks
    response: web.StreamResponse = await handler(through_proxies(request, trusted))
    return response


@web.middleware
async def wait_for_body(request: web.Request, handler: Any) -> web.StreamResponse:
    """Let who reads the body of a request wait for it no longer than for its head."""
    patience, body = request.app[SETTINGS].handshake_timeout, request.content
    if not patience or body.is_eof():
        response: web.StreamResponse = await handler(request)
        return response
    timer = asyncio.get_running_loop().call_later(patience, body.set_exception, SlowBody())
    try:
        response = await handler(request)
    except SlowBody as error:
        raise web.HTTPRequestTimeout(text=f"{error.message}\n") from None
    finally:
        timer.cancel()
    return response


@web.middleware
async def say_what_was_wrong(request: web.Request, handler: Any) -> web.StreamResponse:
    """Answer our own errors with their status, and what a client did wrong as its mistake."""
    try:
        return await answered(request, handler)
    except web.RequestPayloadError:
        raise web.HTTPBadRequest(text="the body cannot be read\n") from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG or not request.path.startswith("/static/"):
            raise
        raise web.HTTPNotFound from None  # no file has so long a name


async def answered(request: web.Request, handler: Callable[[web.Request], Awaitable[T]]) -> T:
    """Turn our own errors into answers: those that have a status."""
    try:
        return await handler(request)
    except GatewayError as error:
        if (answer := answer_to(error)) is None:
            raise
        try:
            raise answer from None
        finally:
            del answer  # which has this frame now: a circle would wait for the garbage collector
