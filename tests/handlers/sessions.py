"""A handler for nodes under test that knows a session cookie, and leaves everybody else to the settings."""

from __future__ import annotations

import time

from aiohttp import web

from gateway import Connection, Profile, Service
from gateway.server.demo.chat import DemoHandler


class Sessions(DemoHandler):
    """The cookie `session` is a user id and the seconds it lasts; `draw-in` has the server make a join."""

    async def authenticate(self, request: web.Request) -> Profile | None:
        session = request.cookies.get("session", "")
        if not session:
            return await super().authenticate(request)
        user, _, seconds = session.partition("-")
        return Profile(user, expires=time.time() + float(seconds))

    async def on(self, service: Service, connection: Connection, cmd: str, param: object) -> object:
        if cmd == "draw-in":
            return await service.join(connection.id, str(param))
        return await super().on(service, connection, cmd, param)
