"""A handler for nodes under test that fails in the words of its clients."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway import Connection, Profile, Service
from gateway.server.demo.chat import DemoHandler


class Shouting(DemoHandler):
    """`fail` and `?fail=` raise with the text they are given."""

    async def authenticate(self, request: web.Request) -> Profile | None:
        if "fail" in request.query:
            raise RuntimeError(request.query["fail"])
        return await super().authenticate(request)

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        if isinstance(param, dict) and "fail" in param:
            raise RuntimeError(param["fail"])
        return await super().on(service, connection, cmd, param)
