"""An application that is made first and forked then, as pre-forking servers do; each worker says where it listens."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, cast

from aiohttp import web

from gateway import SERVICE, Connection, Handler, Profile, Service, setup
from gateway.node.service import NodeService
from gateway.presence.redis import RedisPresence

WORKERS = 3


class Auditing(Handler):
    """Has the node look at what Redis holds of it, and tells how often that had to be repaired."""

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        await cast(RedisPresence, cast(NodeService, service).node.presence).repair.check()
        return {"repairs": service.counters.repairs}


async def socket(request: web.Request) -> web.WebSocketResponse:
    service = request.app[SERVICE]
    return await service.read_loop(await service.upgrade(request, "lobby", Profile(), Auditing()))


async def work(app: web.Application) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    os.write(1, b"port %d\n" % runner.addresses[0][1])
    await asyncio.Event().wait()


def main(url: str) -> None:
    app = web.Application()
    setup(app, redis_url=url)
    app.router.add_get("/connect", socket)
    children = []
    for _ in range(WORKERS):
        if not (child := os.fork()):
            asyncio.run(work(app))
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1])
