"""The gateway inside an aiohttp application of the test's own process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

from gateway import SERVICE, GatewayError, Handler, Message, Profile, Service, setup
from gateway.server.connect import NODE

from .address import Addressed
from .client import Client, Clients
from .ports import HOST
from .wait import eventually

__all__ = ["Embedded", "EmbeddedCluster", "Member", "Observer", "observing"]

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Member:
    """A client, and the id that its node gave to the connection."""

    client: Client
    id: str


class Embedded(Addressed):
    """An application with one WebSocket route, `/connect?ch=&user=&name=`, made of `upgrade` and `read_loop`.

    What the gateway refuses with an error of its own is a 400 that names the error's class.
    """

    def __init__(self, redis_url: str, *, handler: Handler | None = None, **settings: Any) -> None:
        self.app = web.Application()
        setup(self.app, redis_url=redis_url, **settings)
        self.service = self.app[NODE]
        self.handler = handler or Handler()
        # The connection ids, by the tag in the request; and the responses of `read_loop`, by connection id.
        self.responses: dict[str, web.StreamResponse] = {}
        self._ids: dict[str, asyncio.Future[str]] = {}
        self.app.router.add_get("/connect", self._socket)
        self._runner = web.AppRunner(self.app, access_log=None)

    async def __aenter__(self) -> Self:
        """Run it for the length of a `with`: also where a test fails, no thread or task of it is left behind."""
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Run the application on a free port."""
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """End the application as aiohttp does. Harmless when repeated."""
        await self._runner.cleanup()

    async def connect(self, clients: Clients, channel: str = "", *, user: str = "", **options: Any) -> Member:
        """Connect a client; return when `upgrade` has returned, so its first join is stored."""
        tag = str(next(_numbers))
        self._ids[tag] = asyncio.get_running_loop().create_future()
        query = {"tag": tag, "user": user, "name": options.pop("name", "")}
        channels = [channel] if channel else []
        client = await clients(self.ws_url(*channels, **query), **options)
        async with asyncio.timeout(20):
            return Member(client, await self._ids[tag])

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        service, query = request.app[SERVICE], request.query
        profile = Profile(id=query.get("user", ""), name=query.get("name", ""))
        try:
            id = await service.upgrade(request, query.get("ch", ""), profile, self.handler)
        except GatewayError as error:
            raise web.HTTPBadRequest(text=type(error).__name__) from error
        if "tag" in query:
            self._ids[query["tag"]].set_result(id)
        self.responses[id] = response = await service.read_loop(id)
        return response


class EmbeddedCluster:
    """Two nodes on one Redis; on `memory://` both are the same one."""

    def __init__(self, redis_url: str, clients: Clients, **options: Any) -> None:
        self.is_memory = redis_url.startswith("memory:")
        self.a = Embedded(redis_url, **options)
        self.b = self.a if self.is_memory else Embedded(redis_url, **options)
        self.nodes = [self.a] if self.is_memory else [self.a, self.b]
        self._clients = clients

    async def start(self) -> None:
        """Run both."""
        await asyncio.gather(*(node.start() for node in self.nodes))

    async def stop(self) -> None:
        """End both."""
        await asyncio.gather(*(node.stop() for node in self.nodes))

    async def connect(self, node: Embedded, channel: str = "", **options: Any) -> Member:
        """Connect a client to one of the nodes; `options` as for `Embedded.connect`."""
        return await node.connect(self._clients, channel, **options)


class Observer:
    """What a tap has shown so far."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def sees(self, cmd: str) -> None:
        """Wait until it has shown a message of this command."""
        await eventually(lambda: any(message.cmd == cmd for message in self.messages), what=f"the tap shows {cmd}")

    def cmds(self) -> list[str]:
        """List the commands shown, but for those that only tried whether it works."""
        return [message.cmd for message in self.messages if message.cmd != "is-it-on"]


@asynccontextmanager
async def observing(
    service: Service, *writers: Callable[[str], Awaitable[object]], channel: str | None = None
) -> AsyncIterator[Observer]:
    """Tap a service. Begins when the tap shows what each writer writes: called with a command, it writes that."""
    observer = Observer()

    async def observe() -> None:
        async for message in service.tap(channel):
            observer.messages.append(message)

    task = asyncio.create_task(observe())
    try:
        for write in writers:
            seen = len(observer.messages)

            async def shown(write: Callable[[str], Awaitable[object]] = write, seen: int = seen) -> bool:
                await write("is-it-on")
                return len(observer.messages) > seen

            await eventually(shown)
        yield observer
    finally:
        task.cancel()
        await asyncio.wait([task])
