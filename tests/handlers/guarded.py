"""A handler for nodes under test that lets in whom the address says, and fails when told to."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from gateway import Connection, Forbidden, Profile, Service
from gateway.server.demo.chat import DemoHandler

CATASTROPHES: dict[str, type[BaseException]] = {
    "error": RuntimeError,
    "exit": SystemExit,
    "cancelled": asyncio.CancelledError,
    "base": BaseException,
}


class Guarded(DemoHandler):
    """`?as=nobody` is unknown; `secret-` channels may not be joined, `quiet-` ones not sent to."""

    async def authenticate(self, request: web.Request) -> Profile | None:
        who = request.query.get("as", "")
        if who in CATASTROPHES:
            raise CATASTROPHES[who]("secret")
        if who == "banned":
            raise Forbidden("secret")
        return None if who == "nobody" else Profile(id=who)

    async def authorize(self, connection: Connection, channel: str, action: str) -> bool:
        kind, _, name = channel.partition("-")
        if kind == "broken":
            raise CATASTROPHES[name]("secret")
        return (kind, action) not in (("secret", "join"), ("quiet", "send"))

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        assert connection.message is not None
        return await super().on(service, connection, cmd, param)
