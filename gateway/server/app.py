"""How an application takes the gateway in: beside its own routes, or as the whole of a standalone node."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp_jinja2
import jinja2
from aiohttp import web

from gateway.access.identity import SETTINGS, TOKENS
from gateway.application.loading import load_handler
from gateway.application.service import Service
from gateway.config import Settings, load, misspelled
from gateway.errors import InvalidSettings
from gateway.node.service import NodeService
from gateway.server import admin, connect, files
from gateway.server.admin import Links
from gateway.server.api import Api
from gateway.server.connect import EXAMPLE, HANDLER, NODE
from gateway.server.demo import page
from gateway.server.demo.chat import DemoHandler
from gateway.server.demo.example import ExampleHandler, with_rooms_kept
from gateway.server.files import FOR_BROWSERS, FOR_HOME, Page
from gateway.server.home import home_of
from gateway.server.middlewares import look_behind_proxies, say_what_was_wrong, wait_for_body
from gateway.server.probes import PROBES

logger = logging.getLogger(__name__)

SERVICE = web.AppKey("gateway", Service)
"""Where an application finds the service: `request.app[gateway.SERVICE]`."""

OWN_FILES = ("/static/gateway.", "/static/admin/", "/static/example")
"""Where an application has files of its own, beside ours, they are its business."""


def setup(app: web.Application, settings: Settings | None = None, **fields: Any) -> Service:
    """Take the gateway into an application: `app[SERVICE]`, running as long as the application does.

    `fields` are fields of `Settings`, as in `setup(app, redis_url="redis://localhost:6379/0")`; what is not
    given comes from the environment, then from the defaults. Raises `InvalidSettings`.

    The server is the application's own. For heads of up to 32 KiB, as a node of its own takes them, tell it so:
    `web.run_app(app, max_line_size=32768, max_field_size=32768)`; aiohttp's default is 8190 bytes a line.

    Adds no routes, see `add_routes`. A `GatewayError` that request handlers let through is answered with its `status`,
    such as 403 for `Forbidden`; what is a fault, and has 500, is left to aiohttp.
    """
    if SERVICE in app:
        raise InvalidSettings("this application has a gateway already")
    service = app[SERVICE] = app[NODE] = NodeService(_chosen(settings, fields))
    app[SETTINGS], app[TOKENS] = service.settings, service.tokens
    app.middlewares.append(say_what_was_wrong)
    app.cleanup_ctx.append(_run_service)
    app.on_shutdown.append(_drain)
    return service


def add_routes(app: web.Application) -> None:
    """Let an application, after `setup`, answer what any node does beside its sockets.

    The browser client (`/static/gateway.js`, `.mjs`, `.d.ts`), `/healthz`, `/readyz`, `/metrics`, the server API, and
    the admin pages if there is an `admin_password`. It must be the outermost application: these paths are as they are.
    Of two routes with the same path the first that was added counts.
    """
    if SERVICE not in app:
        raise InvalidSettings("expected an application that has a gateway: call setup first")
    service = app[NODE]
    for path, handle in (OPERATING | FOR_BROWSERS).items():
        _add_behind(app, path, handle)
    Api(service).add_to(app)
    if service.settings.admin_password:
        app.add_subapp(admin.PREFIX, admin.create_admin(service))
    app.router.add_static("/static/admin/", files.ADMIN)
    app.on_response_prepare.append(_ask_again)


def _chosen(settings: object, fields: dict[str, Any]) -> Settings:
    if settings is None:
        for line in misspelled():
            logger.warning("%s", line)
        return load(**fields)
    if fields:
        raise InvalidSettings("expected either settings or fields of Settings, got both")
    if not isinstance(settings, Settings):
        raise InvalidSettings(f"expected gateway.Settings, got {type(settings).__name__}: fields are given by name")
    return settings


def create_app(settings: Settings, links: Links | None = None) -> web.Application:
    """Make the application of a standalone node, with its handler and all routes.

    There are admin pages where there is a way in to them: the password, or `links`.
    """
    app = web.Application(middlewares=[look_behind_proxies, wait_for_body])
    setup(app, with_rooms_kept(settings))
    handler = app[HANDLER] = load_handler(settings.handler)
    aiohttp_jinja2.setup(app, loader=jinja2.FileSystemLoader(files.TEMPLATES))
    app.add_routes(connect.routes)
    if isinstance(handler, DemoHandler):
        app[EXAMPLE] = ExampleHandler(handler)
        app.add_routes(page.routes)
        app.add_routes(connect.demo_routes)
    pages = has_pages(settings, links)
    app.router.add_get("/", home_of(app[NODE], has_demo=EXAMPLE in app, has_pages=pages))
    for path, handle in (OPERATING | FOR_BROWSERS | FOR_HOME).items():
        _add_behind(app, path, handle)
    Api(app[NODE]).add_to(app)
    if pages:
        app.add_subapp(admin.PREFIX, admin.create_admin(app[NODE], links))
    app.router.add_static("/static/admin/", files.ADMIN)
    app.router.add_static("/static/", files.DEMO)
    app.on_response_prepare.append(_ask_again)
    return app


def has_pages(settings: Settings, links: Links | None) -> bool:
    """Say whether there are admin pages: somebody has a way in to them."""
    return bool(settings.admin_password) or links is not None


def _add_behind(app: web.Application, path: str, handle: Page) -> None:
    """Add a page behind those that the application has under the same path already."""
    resource = web.PlainResource(path)
    for method in ("GET", "HEAD"):
        resource.add_route(method, handle)
    app.router.register_resource(resource)


async def _run_service(app: web.Application) -> AsyncIterator[None]:
    service = app[NODE]
    async with service.running():
        service.operations.announce()
        yield


async def _drain(app: web.Application) -> None:
    """Close the sockets now: aiohttp next waits for every request handler, those in `read_loop` too."""
    await app[NODE].drain()


async def _ask_again(request: web.Request, response: web.StreamResponse) -> None:
    """Let browsers ask each time whether a file has changed: its name does not tell its version.

    And let pages of any site import them: that is what they are for, and they are the same for everyone.
    """
    if request.path.startswith(OWN_FILES):
        response.headers.setdefault("Cache-Control", "no-cache")
        response.headers.setdefault("Access-Control-Allow-Origin", "*")


def _told_by(probe: Callable[[NodeService], web.Response]) -> Page:
    async def tell(request: web.Request) -> web.StreamResponse:
        return probe(request.app[NODE])

    return tell


OPERATING: dict[str, Page] = {path: _told_by(probe) for path, probe in PROBES.items()}
