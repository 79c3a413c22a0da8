"""A node that runs by itself: its application, its port, and its end while the port still answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import NamedTuple

from aiohttp import web

from gateway.access.fast_path import FastPath
from gateway.config import Settings
from gateway.connections.websocket import CLOSE_TIMEOUT
from gateway.node.service import NodeService
from gateway.server.admin import PREFIX, Links
from gateway.server.app import create_app, has_pages
from gateway.server.connect import EXAMPLE, NODE, connect_directly
from gateway.server.port import bound


class Standalone(NamedTuple):
    """A node that runs."""

    address: str
    service: NodeService
    has_demo: bool
    """Whether its handler is the demo, which has a page."""
    has_pages: bool
    """Whether it has admin pages, and somebody a way in."""


@asynccontextmanager
async def running_node(
    settings: Settings, *, shares_port: bool = False, links: Links | None = None, patience: float = CLOSE_TIMEOUT
) -> AsyncIterator[Standalone]:
    """Run a standalone node. At the end its clients are sent away while the port still answers.

    Other processes may listen on the port, too, where all of them share it. `links` are the way in to the admin pages
    where there is no password. `patience` is how many seconds the end of a connection may take. Raises `CannotStart`
    and `InvalidSettings`.
    """
    app = create_app(settings, links)
    app[NODE].patience = patience
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    fast_path = FastPath(app, "/connect", connect_directly)
    try:
        async with bound(settings, app[NODE].counters, shares_port=shares_port) as port:
            # Of several that share a port the others answer meanwhile: one that refuses would only be in their way.
            async with nullcontext() if shares_port else port.saying_why(app[NODE]):
                await runner.setup()
            assert runner.server is not None
            await port.open(runner.server, fast_path)
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            address = f"http://{host}:{port.number}"
            if links is not None:
                links.page = f"{address}{PREFIX}/login"
            pages = has_pages(settings, links)
            yield Standalone(address, app[NODE], has_demo=EXAMPLE in app, has_pages=pages)
            await app[NODE].drain()
    finally:
        await runner.cleanup()
