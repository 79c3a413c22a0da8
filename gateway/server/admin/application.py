"""The admin's own application, which a node takes in: its routes, and what stands before them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import aiohttp_jinja2
import jinja2
from aiohttp import web

from gateway.access.origin import refuse_foreign_page
from gateway.access.query import refuse_unreadable_query
from gateway.errors import GatewayError, InvalidParam, Unavailable
from gateway.node.service import NodeService
from gateway.server.admin.actions import act
from gateway.server.admin.guard import PREFIX, SESSION, Guard, Refused, form_of, say_what_was_wrong
from gateway.server.admin.links import Links
from gateway.server.admin.live import Live
from gateway.server.admin.session import begin
from gateway.server.admin.views import picture_of
from gateway.version import __version__

TEMPLATES = Path(__file__).parent / "templates"

PAGES = {
    "": ("overview", "Overview"),
    "/connections": ("connections", "Connections"),
    "/connections/{name}": ("connection", "Connection"),
    "/channels": ("channels", "Channels"),
    "/channels/{name}": ("channel", "Channel"),
    "/users": ("users", "Users"),
    "/users/{name}": ("user", "User"),
    "/nodes/{name}": ("node", "Node"),
    "/tap": ("tap", "Tap"),
    "/broadcast": ("broadcast", "Broadcast"),
    "/audit": ("audit", "Audit"),
}
"""Path, view and title of each page."""


def create_admin(service: NodeService, links: Links | None = None) -> web.Application:
    """Make the application of the admin pages, to be added to a node's at `PREFIX`.

    Operators log in by the password of the settings or, where there is none, by `links`.
    """
    guard, live = Guard(service, links), Live(service)
    app = web.Application(middlewares=[guard.middleware(), say_what_was_wrong])
    aiohttp_jinja2.setup(app, loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined)
    admin = Admin(service, guard, live)
    for path in PAGES:
        app.router.add_get(path, admin.page)
    app.router.add_get("/", admin.home)
    app.router.add_get("/nodes", admin.home)
    app.router.add_get("/login", admin.login)
    app.router.add_post("/login", admin.log_in)
    app.router.add_post("/logout", admin.log_out)
    app.router.add_get("/socket", admin.socket)
    app.router.add_post("/actions/{action}", admin.act)
    app.cleanup_ctx.append(live.running)
    app.on_shutdown.append(live.close)
    return app


class Admin:
    """Answers the requests of operators."""

    def __init__(self, service: NodeService, guard: Guard, live: Live) -> None:
        self._service = service
        self._guard = guard
        self._live = live

    async def home(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(PREFIX)

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Show a page with its first picture in it: it is complete before its socket is open."""
        refuse_unreadable_query(request)
        assert request.match_info.route.resource is not None
        view, title = PAGES[request.match_info.route.resource.canonical.removeprefix(PREFIX)]
        query = {**request.match_info, **request.query}
        try:
            picture, status = await picture_of(view, self._service, query), 200
        except GatewayError as error:
            picture, status = {"trouble": error.message}, error.status
        if "missing" in picture:
            status = 404
        name = query.get("name", "")
        return self._render(
            f"{view}.html", request, status, view=view, title=title, query=query, picture=picture, name=name
        )

    async def socket(self, request: web.Request) -> web.StreamResponse:
        refuse_foreign_page(request, self._service.settings)
        return await self._live.open(request, request[SESSION])

    async def act(self, request: web.Request) -> web.StreamResponse:
        """Carry out an action that a page asks for."""
        try:
            fields = await request.json()
        except (ValueError, LookupError, RecursionError):  # no JSON, no such encoding, too deep
            raise InvalidParam("expected JSON") from None
        result = await act(self._service, self._who(request), request.match_info["action"], fields)
        return web.json_response(result)

    # ---- logging in

    async def login(self, request: web.Request) -> web.StreamResponse:
        if request[SESSION].is_operator:
            raise web.HTTPFound(PREFIX)
        return await self._show_login(request)

    async def log_in(self, request: web.Request) -> web.StreamResponse:
        refuse_unreadable_query(request)
        form = await form_of(request)
        try:
            session = await self._guard.log_in(request, str(form.get("password", "")), str(form.get("token", "")))
        except Unavailable:
            session = Refused(503, "Redis is away, where it is noted that a link is used. The link is still good.")
        if isinstance(session, Refused):
            self._guard.note(request, session.status, session.text)
            return await self._show_login(request, session)
        self._service.operations.audit(f"{request.remote} {session.name}", "log-in", "")
        response = web.HTTPSeeOther(_inside(request.query.get("next", "")))
        self._guard.set_cookie(request, response, session)
        raise response

    async def log_out(self, request: web.Request) -> web.StreamResponse:
        """End the session wherever it is in use, and give this browser one that is nobody's."""
        self._service.operations.audit(self._who(request), "log-out", "")
        await self._guard.log_out(request[SESSION])
        response = web.HTTPSeeOther(f"{PREFIX}/login")
        self._guard.set_cookie(request, response, begin(time.time(), is_operator=False))
        raise response

    async def _show_login(self, request: web.Request, refused: Refused | None = None) -> web.StreamResponse:
        links = self._guard.links
        if links is not None:
            await links.offer(self._service.operations.revocations)
        status, wrong, wait = refused or (200, "", 0)
        by_link = links is not None
        response = self._render("login.html", request, status, title="Log in", wrong=wrong, by_link=by_link)
        if wait:
            response.headers["Retry-After"] = str(int(wait) + 1)
        return response

    def _who(self, request: web.Request) -> str:
        return f"{request.remote} {request[SESSION].name}"

    def _render(self, template: str, request: web.Request, status: int, **context: Any) -> web.Response:
        known = {
            "version": __version__,
            "node": self._service.node_id,
            "prefix": PREFIX,
            "csrf": request[SESSION].csrf,
        }
        return aiohttp_jinja2.render_template(template, request, known | context, status=status)


def _inside(path: str) -> str:
    """Return where to go after logging in: never out of the admin pages."""
    return path if path == PREFIX or path.startswith((f"{PREFIX}/", f"{PREFIX}?")) else PREFIX
