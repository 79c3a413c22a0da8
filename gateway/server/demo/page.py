"""The page of the demo chat."""

from __future__ import annotations

import aiohttp_jinja2
from aiohttp import web

from gateway.access.query import refuse_unreadable_query
from gateway.version import __version__

_CONTENT_SECURITY = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; frame-ancestors 'none'"

routes = web.RouteTableDef()


@routes.get("/example")
async def _example(request: web.Request) -> web.StreamResponse:
    refuse_unreadable_query(request)
    page = {"channel": request.query.get("ch", ""), "version": __version__}
    response = aiohttp_jinja2.render_template("example.html", request, page)
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY
    return response
