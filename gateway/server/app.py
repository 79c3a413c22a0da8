"""The HTTP surface of a node, and how an application takes the gateway in."""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import string
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

import aiohttp_jinja2
import jinja2
from aiohttp import web

from gateway.access.fast_path import Shortcut
from gateway.access.identity import SETTINGS, TOKENS
from gateway.access.proxies import through_proxies
from gateway.access.query import refuse_unreadable_query
from gateway.access.upgrade import answer_to
from gateway.application.loading import load_handler
from gateway.application.service import Handler, Service
from gateway.config import Settings, load, misspelled
from gateway.connections.websocket import CLOSE_TIMEOUT
from gateway.errors import Forbidden, GatewayError, InvalidSettings, Unauthorized
from gateway.node.service import NodeService
from gateway.protocol.message import check_channel
from gateway.server import admin, files
from gateway.server.admin import Links
from gateway.server.api import Api
from gateway.server.api.problems import Refused
from gateway.server.demo.chat import DemoHandler
from gateway.server.demo.example import ExampleHandler, with_rooms_kept
from gateway.server.files import FOR_BROWSERS, FOR_HOME, Page
from gateway.server.home import home_of
from gateway.server.port import bound
from gateway.server.probes import PROBES
from gateway.version import __version__

T = TypeVar("T")
Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

logger = logging.getLogger(__name__)

SERVICE = web.AppKey("gateway", Service)
"""Where an application finds the service: `request.app[gateway.SERVICE]`."""
NODE = web.AppKey("gateway_node", NodeService)
"""The same, for what operators see and do, which is no part of the contract."""
HANDLER = web.AppKey("gateway_handler", Handler)
"""The configured one: whoever wants to connect, by whatever route, is asked of it."""
EXAMPLE = web.AppKey("gateway_example", ExampleHandler)
"""That one as the demo's page speaks to it; there while it is the demo."""

_CONTENT_SECURITY = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; frame-ancestors 'none'"

OWN_FILES = ("/static/gateway.", "/static/admin/", "/static/example")
"""Where an application has files of its own, beside ours, they are its business."""

routes, demo_routes = web.RouteTableDef(), web.RouteTableDef()


class Standalone(NamedTuple):
    """A node that runs."""

    address: str
    service: NodeService
    has_demo: bool
    """Whether its handler is the demo, which has a page."""
    has_pages: bool
    """Whether it has admin pages, and somebody a way in."""


class SlowBody(Refused, TimeoutError):
    """A client takes too long to send the body of its request."""

    def __init__(self) -> None:
        super().__init__(408, "the body came too slowly")


def setup(app: web.Application, settings: Settings | None = None, **fields: Any) -> Service:
    """Take the gateway into an application: `app[SERVICE]`, running as long as the application does.

    `fields` are fields of `Settings`, as in `setup(app, redis_url="redis://localhost:6379/0")`; what is not
    given comes from the environment, then from the defaults. Raises `InvalidSettings`.

    The server is the application's own. For heads of up to 32 KiB, as a node of its own takes them, tell it so:
    `web.run_app(app, max_line_size=32768, max_field_size=32768)`; aiohttp's default is 8190 bytes a line.

    Adds no routes, see `add_routes`. What request handlers let through of `InvalidChannel`, `InvalidUser`,
    `Unauthorized`, `Forbidden` and `Unavailable` is answered with 400, 401, 403 and 503.
    """
    if SERVICE in app:
        raise InvalidSettings("this application has a gateway already")
    service = app[SERVICE] = app[NODE] = NodeService(_chosen(settings, fields))
    app[SETTINGS], app[TOKENS] = service.settings, service.tokens
    app.middlewares.append(_say_what_was_wrong)
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
    app = web.Application(middlewares=[_look_behind_proxies, _wait_for_body])
    setup(app, with_rooms_kept(settings))
    handler = app[HANDLER] = load_handler(settings.handler)
    aiohttp_jinja2.setup(app, loader=jinja2.FileSystemLoader(files.TEMPLATES))
    app.add_routes(routes)
    if isinstance(handler, DemoHandler):
        app[EXAMPLE] = ExampleHandler(handler)
        app.add_routes(demo_routes)
    has_pages = _has_pages(settings, links)
    app.router.add_get("/", home_of(app[NODE], has_demo=EXAMPLE in app, has_pages=has_pages))
    for path, handle in (OPERATING | FOR_BROWSERS | FOR_HOME).items():
        _add_behind(app, path, handle)
    Api(app[NODE]).add_to(app)
    if has_pages:
        app.add_subapp(admin.PREFIX, admin.create_admin(app[NODE], links))
    app.router.add_static("/static/admin/", files.ADMIN)
    app.router.add_static("/static/", files.DEMO)
    app.on_response_prepare.append(_ask_again)
    return app


def _has_pages(settings: Settings, links: Links | None) -> bool:
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
    shortcut = Shortcut(app, "/connect", _connect_directly)
    try:
        async with bound(settings, app[NODE].counters, shares_port=shares_port) as port:
            # Of several that share a port the others answer meanwhile: one that refuses would only be in their way.
            async with nullcontext() if shares_port else port.saying_why(app[NODE]):
                await runner.setup()
            assert runner.server is not None
            await port.open(runner.server, shortcut)
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            address = f"http://{host}:{port.number}"
            if links is not None:
                links.page = f"{address}{admin.PREFIX}/login"
            has_pages = _has_pages(settings, links)
            yield Standalone(address, app[NODE], has_demo=EXAMPLE in app, has_pages=has_pages)
            await app[NODE].drain()
    finally:
        await runner.cleanup()


@web.middleware
async def _look_behind_proxies(request: web.Request, handler: Any) -> web.StreamResponse:
    trusted = request.app[NODE].settings.trusted_networks
    response: web.StreamResponse = await handler(through_proxies(request, trusted))
    return response


@web.middleware
async def _wait_for_body(request: web.Request, handler: Any) -> web.StreamResponse:
    """Let who reads the body of a request wait for it no longer than for its head."""
    patience, body = request.app[NODE].settings.handshake_timeout, request.content
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
async def _say_what_was_wrong(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        return await _answer(request, handler)
    except web.RequestPayloadError:
        raise web.HTTPBadRequest(text="the body cannot be read\n") from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG or not request.path.startswith("/static/"):
            raise
        raise web.HTTPNotFound from None  # no file has so long a name


async def _answer(request: web.Request, handler: Callable[[web.Request], Awaitable[T]]) -> T:
    """Turn our own errors into answers."""
    try:
        return await handler(request)
    except GatewayError as error:
        if (answer := answer_to(error)) is None:
            raise
        try:
            raise answer from None
        finally:
            del answer  # which has this frame now: a circle would wait for the garbage collector


async def _ask_again(request: web.Request, response: web.StreamResponse) -> None:
    """Let browsers ask each time whether a file has changed: its name does not tell its version.

    And let pages of any site import them: that is what they are for, and they are the same for everyone.
    """
    if request.path.startswith(OWN_FILES):
        response.headers.setdefault("Cache-Control", "no-cache")
        response.headers.setdefault("Access-Control-Allow-Origin", "*")


@routes.get("/connect")
async def _connect(request: web.Request) -> web.StreamResponse:
    return await _open(request, request.app[HANDLER], _named(request))


async def _connect_directly(request: web.Request) -> web.StreamResponse:
    """Do what the application does for a request that has not come through its middlewares."""
    trusted = request.app[NODE].settings.trusted_networks
    return await _answer(through_proxies(request, trusted), _connect)


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


# ---- the demo


@demo_routes.get("/example")
async def _example(request: web.Request) -> web.StreamResponse:
    refuse_unreadable_query(request)
    page = {"channel": request.query.get("ch", ""), "version": __version__}
    response = aiohttp_jinja2.render_template("example.html", request, page)
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY
    return response


@demo_routes.get("/example/socket")
async def _example_socket(request: web.Request) -> web.StreamResponse:
    chosen = _named(request) or ["example-" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(8))]
    return await _open(request, request.app[EXAMPLE], chosen)


# ---- for operators


def _told_by(probe: Callable[[NodeService], web.Response]) -> Page:
    async def tell(request: web.Request) -> web.StreamResponse:
        return probe(request.app[NODE])

    return tell


OPERATING: dict[str, Page] = {path: _told_by(probe) for path, probe in PROBES.items()}
