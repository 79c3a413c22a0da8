"""A handler for nodes under test that does what the address of a handshake asks for."""

from __future__ import annotations

import asyncio

from aiohttp import web

from gateway import Connection, Profile, Service
from gateway.server.demo.chat import DemoHandler


class Curious(DemoHandler):
    """`?do=` names what `authenticate` does; who asks for nothing is let in, with a name that tells the request."""

    asked: asyncio.Event
    may_go_on: asyncio.Event
    heard: list[str]
    """Which hooks were called."""

    @classmethod
    def begin(cls) -> None:
        """Forget what earlier tests have done."""
        cls.asked, cls.may_go_on, cls.heard = asyncio.Event(), asyncio.Event(), []

    async def authenticate(self, request: web.Request) -> Profile | None:
        match request.query.get("do"):
            case "refuse":
                return None
            case "redirect":
                moved = web.HTTPFound("/elsewhere")
                moved.set_cookie("seen", "1")
                raise moved
            case "split":
                raise web.HTTPForbidden(headers={"X-Note": request.query["note"]})
            case "fail":
                raise ZeroDivisionError("as asked")
            case "exit":
                raise SystemExit(3)
            case "wait":
                self.asked.set()
                await self.may_go_on.wait()
        body = await request.text()
        seen = (
            request.method,
            request.path,
            request.cookies.get("a"),
            request.headers.get("X-A"),
            body,
            request.remote,
        )
        return Profile(id="42", name=repr(seen))

    async def on_open(self, service: Service, connection: Connection) -> None:
        self.heard.append("open")

    async def on_close(self, service: Service, connection: Connection) -> None:
        self.heard.append("close")
