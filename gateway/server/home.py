"""What a node says of itself to a person who opens its address: what it is, and what it serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import aiohttp_jinja2
from aiohttp import web

from gateway.node.service import NodeService
from gateway.server.admin import PREFIX
from gateway.version import __version__

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class Link(NamedTuple):
    """One thing that this node serves; the page makes its path a relative one, since a proxy may put more before it."""

    path: str
    title: str
    about: str


DEMO = Link("/example", "Demo chat", "two windows, and you talk to yourself")
ADMIN = Link(PREFIX, "Admin pages", "the whole cluster, live")
DOCUMENTATION = (
    Link("/api/openapi.json", "Server API", "for programs, described in OpenAPI"),
    Link("/static/gateway.d.ts", "Browser client", "its types; a page imports static/gateway.mjs"),
)
OPERATION = (
    Link("/healthz", "Health", "whether this process lives"),
    Link("/readyz", "Readiness", "whether clients should come here, and why not"),
    Link("/metrics", "Metrics", "for Prometheus"),
)


def home_of(
    service: NodeService, *, has_demo: bool, has_pages: bool
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Make the page at `/` of a node; it links to nothing that the node does not serve."""
    pages = [*([DEMO] if has_demo else []), *([ADMIN] if has_pages else [])]
    sections = {"Open": pages, "Documentation": DOCUMENTATION, "Operation": OPERATION}

    async def home(request: web.Request) -> web.StreamResponse:
        known = {"version": __version__, "node": service.node_id, "sections": sections}
        response = aiohttp_jinja2.render_template("home.html", request, known)
        response.headers.update(HEADERS)
        return response

    return home
