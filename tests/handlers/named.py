"""A handler for nodes under test: the demo chat, but everybody is who their address says."""

from __future__ import annotations

from aiohttp import web

from gateway import Profile
from gateway.server.demo.chat import DemoHandler


class Named(DemoHandler):
    """Takes `?user=` for the user's id; who gives none is anonymous."""

    async def authenticate(self, request: web.Request) -> Profile:
        return Profile(id=request.query.get("user", ""), name=request.query.get("name", ""))
