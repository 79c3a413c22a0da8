"""A handler for nodes under test whose users are who the address says, with the channels it says."""

from __future__ import annotations

from aiohttp import web

from gateway import Connection, Profile
from gateway.server.demo.chat import DemoHandler


class Patterned(DemoHandler):
    """`?user=ada&may=a-*,b` is Ada, whose token names these channels; `vetoed-` channels are nobody's."""

    async def authenticate(self, request: web.Request) -> Profile | None:
        patterns = request.query.get("may")
        channels = None if patterns is None else tuple(patterns.split(","))
        return Profile(id=request.query.get("user", ""), channels=channels)

    async def authorize(self, connection: Connection, channel: str, action: str) -> bool:
        return not channel.startswith("vetoed-")
