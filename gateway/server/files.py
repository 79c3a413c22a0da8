"""The files that browsers load from a node, under `/static/` wherever they lie in the package."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SERVER = Path(__file__).parent
CLIENT = _SERVER.parent / "client" / "dist"
"""What the browser client is built into."""
HOME = _SERVER / "static"
ADMIN = _SERVER / "admin" / "static"
DEMO = _SERVER / "demo" / "static"
TEMPLATES = (_SERVER / "templates", _SERVER / "demo" / "templates")


def _sending(file: Path) -> Page:
    async def send(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(file)

    return send


def _under_static(*files: Path) -> dict[str, Page]:
    return {f"/static/{file.name}": _sending(file) for file in files}


FOR_BROWSERS = _under_static(
    CLIENT / "gateway.js",
    CLIENT / "gateway.mjs",
    CLIENT / "gateway.d.ts",
    HOME / "gateway.svg",
    HOME / "gateway.tokens.css",
)
"""What pages of an application's own need; the others are those of the demo and the admin pages."""
FOR_HOME = _under_static(HOME / "gateway.css")
