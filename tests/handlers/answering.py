"""A handler for nodes under test that answers requests; everybody is who their address says."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from gateway import Connection, Handler, Profile, RateLimited, Service


class Answering(Handler):
    """Adds, writes to channels, refuses, and takes its time."""

    async def authenticate(self, request: web.Request) -> Profile:
        return Profile(id=request.query.get("user", ""))

    async def authorize(self, connection: Connection, channel: str, action: str) -> bool:
        return channel != "secret"

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        assert connection.message is not None
        match cmd:
            case "add":
                return sum(param)
            case "say":
                await service.write_channel("said", param, connection.message.channel, sender=connection.user)
            case "refuse":
                raise RateLimited("slow down", retry_after=2)
            case "hang":
                if param:
                    await service.disconnect(connection.id, code=param)
                await asyncio.sleep(5)
            case "end":
                await service.disconnect(connection.id, code=param)
            case "farewell":
                await service.write_connection("close-connection", None, connection.id)
        return None
