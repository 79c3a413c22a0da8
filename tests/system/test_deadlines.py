"""However a connection ends, it is gone in time: on either event loop, over TLS too, whatever its client does."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any

import jwt
import pytest
import uvloop
from aiohttp import ClientSession, web
from trustme import CA

from gateway import ConnectionNotFound, Handler, Settings, add_routes, setup
from gateway.node.service import NodeService
from gateway.server.connect import NODE
from gateway.server.running import running_node
from tests.harness.ports import HOST
from tests.harness.redis import RedisServer
from tests.harness.secure import SecureWire
from tests.harness.sets import Sets
from tests.harness.wait import eventually
from tests.harness.wire import CLOSE, PONG, TEXT, Wire, frame

pytestmark = pytest.mark.redis

PATIENCE = 0.5
"""Seconds that the nodes here give an end: a tenth of what others do."""
BULK = "x" * 100_000
BEHIND = 5 * len(BULK)
"""Bytes in the outboxes, by client, which tell that everybody is behind: all are written the same."""
MOST_COPIES = 200
"""Of it: many times what kernels hold for who does not read."""
SECRET = "a secret of more than thirty-two bytes"
SETTINGS: dict[str, Any] = {
    "jwt_secret": SECRET,
    "api_key": "key",
    "abuse_limit": 3,
    "message_rate": 0,
    "max_message_bytes": 1000,
    "outbox_bytes": 2_000_000,
    "max_connections_per_user": 1,
    "heartbeat": 0,
    "drain_seconds": 1,
}


def token(user: str, *, ttl: float) -> str:
    """Return a token as the nodes take it."""
    return jwt.encode({"sub": user, "exp": time.time() + ttl}, SECRET, algorithm="HS256")


@dataclass
class Place:
    """A node in this process, its address, and the request handlers of its connections."""

    service: NodeService
    address: str
    tasks: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    """By user."""
    is_embedded: bool = False
    abandoning: asyncio.Event = field(default_factory=asyncio.Event)

    async def connect(self, user: str, path: str = "/connect", *, ttl: float = 600) -> Mute:
        """Let a user in, until he is welcome; from then on he reads nothing."""
        kind = SecureWire if self.address.startswith("https") else Wire
        url = f"{self.address.replace('http', 'ws', 1)}{path}?ch=lobby"
        headers = {"Authorization": f"Bearer {token(user, ttl=ttl)}"}
        wire = await kind.connect(url, protocols=["gateway.v1.json"], headers=headers, receive_buffer=4096)
        welcome = (await wire.read_frame()).json
        return Mute(wire, user, welcome["param"]["connection"])

    async def fill(self, clients: int) -> None:
        """Write to everybody until each has more waiting than kernels and transports hold for who does not read."""
        for _ in range(MOST_COPIES):
            await self.service.write_channel("bulk", BULK, "lobby")
            if self.service.held.outbox_bytes > clients * BEHIND:
                return
        pytest.fail("somebody reads")

    async def emptied(self) -> None:
        """Wait until nobody is held; the deadline is generous, and much less than what TLS itself would wait."""

        async def is_empty() -> bool:
            left = [connection.user async for connection in self.service.get_connections()]
            assert not left, f"still there: {left}"
            return not self.service.held.connections

        await eventually(is_empty, PATIENCE + 8)


@dataclass
class Mute:
    """A client that reads nothing."""

    wire: Wire
    user: str
    id: str

    async def say(self, *data: bytes) -> None:
        """Send bytes, if there is somebody yet to take them."""
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1):
                await self.wire.write(b"".join(data))


# ---- ways to end


async def protocol(place: Place, client: Mute) -> None:
    await client.say(frame("not masked", mask=None))


async def size(place: Place, client: Mute) -> None:
    await client.say(frame("x" * 2000))


async def utf8(place: Place, client: Mute) -> None:
    await client.say(frame(b"\xff", TEXT))


async def abuse(place: Place, client: Mute) -> None:
    await client.say(*[frame("no message")] * 10)


async def expiry(place: Place, client: Mute) -> None:
    """His token runs out by itself."""


async def goodbye(place: Place, client: Mute) -> None:
    await client.say(frame((1000).to_bytes(2, "big"), CLOSE))


async def fin(place: Place, client: Mute) -> None:
    if isinstance(client.wire, SecureWire):
        await client.wire.say_goodbye()
    else:
        client.wire.finish()


async def reset(place: Place, client: Mute) -> None:
    client.wire.reset()


async def operator(place: Place, client: Mute) -> None:
    url = f"{place.address}/api/connections/{client.id}"
    async with ClientSession() as session, session.delete(url, headers={"Authorization": "Bearer key"}, ssl=False) as r:
        assert r.status == 204


async def slow(place: Place, client: Mute) -> None:
    for _ in range(30):
        with suppress(ConnectionNotFound):
            await place.service.write_connection("bulk", BULK, client.id)


async def silence(place: Place, client: Mute) -> None:
    """He sends no pong."""


async def half(place: Place, client: Mute) -> None:
    """Nothing more comes of him, which TLS on uvloop keeps to itself."""
    client.wire.finish()


async def abandoned(place: Place, client: Mute) -> None:
    place.abandoning.set()


async def cancelled(place: Place, client: Mute) -> None:
    place.tasks[client.user].cancel()


Way = Callable[[Place, Mute], Awaitable[None]]
WAYS: tuple[Way, ...] = (protocol, size, utf8, abuse, expiry, goodbye, fin, reset, operator, slow)
EMBEDDED: tuple[Way, ...] = (abandoned, cancelled)


# ---- what such a client goes on to do


async def nothing(client: Mute) -> None:
    """Be silent."""


async def answers(client: Mute) -> None:
    """Send a close frame, as to one that it may have read."""
    await client.say(frame((1000).to_bytes(2, "big"), CLOSE))


async def goes_on(client: Mute) -> None:
    """Send whatever is taken, until the connection breaks."""
    with suppress(OSError):
        while True:
            await client.wire.write(frame(b"", PONG) + frame("still here"))
            await asyncio.sleep(0.01)


Then = Callable[[Mute], Coroutine[Any, Any, None]]
THEN: tuple[Then, ...] = (nothing, answers, goes_on)


# ---- nodes


@asynccontextmanager
async def standalone(redis_url: str, tls: ssl.SSLContext | None, **settings: Any) -> AsyncIterator[Place]:
    """Run a node of its own, where handshakes go the short way."""
    every = Settings(port=0, redis_url=redis_url, handler=f"{__name__}:Handler", **settings)
    async with running_node(every, patience=PATIENCE) as running:
        yield Place(running.service, running.address)


@asynccontextmanager
async def embedded(redis_url: str, tls: ssl.SSLContext | None, **settings: Any) -> AsyncIterator[Place]:
    """Run a node in an application, as aiohttp serves it."""
    app = web.Application()
    setup(app, redis_url=redis_url, **settings)
    service = app[NODE]
    service.patience = PATIENCE
    add_routes(app)
    place = Place(service, "", is_embedded=True)

    async def upgraded(request: web.Request) -> str:
        profile = await service.tokens.verify(request.headers["Authorization"].removeprefix("Bearer "))
        if profile.id.startswith("expiry"):  # sooner than the whole seconds of a token
            profile = replace(profile, expires=time.time() + 0.5)
        place.tasks[profile.id] = asyncio.current_task()  # type: ignore[assignment]
        return await service.upgrade(request, "lobby", profile, Handler())

    async def connect(request: web.Request) -> web.StreamResponse:
        return await service.read_loop(await upgraded(request))

    async def abandon(request: web.Request) -> web.StreamResponse:
        await upgraded(request)
        await place.abandoning.wait()
        return web.Response()

    app.router.add_get("/connect", connect)
    app.router.add_get("/abandon", abandon)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listening = socket.create_server((HOST, 0))
    await web.SockSite(runner, listening, ssl_context=tls).start()
    place.address = f"http{'s' if tls else ''}://{HOST}:{listening.getsockname()[1]}"
    try:
        yield place
    finally:
        async with asyncio.timeout(8):  # where what is left of a TLS connection was waited for, it took 27 s
            await runner.cleanup()


Run = Callable[..., AbstractAsyncContextManager[Place]]

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.SelectorEventLoop,
}
RUNS: dict[str, tuple[Run, str, bool]] = {
    "standalone": (standalone, "uvloop", False),
    "embedded": (embedded, "uvloop", False),
    "embedded on asyncio": (embedded, "asyncio", False),
    "tls": (embedded, "uvloop", True),
    "tls on asyncio": (embedded, "asyncio", True),
}


@pytest.fixture(scope="module")
def context() -> ssl.SSLContext:
    """A server's side of TLS."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA().issue_cert(HOST).configure_cert(made)
    return made


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest, redis: RedisServer, context: ssl.SSLContext) -> Callable[[Any], None]:
    """Run a coroutine function, which is given what makes a node, on a loop of its own."""
    make, loop, has_tls = RUNS[request.param]

    def run(test: Callable[[Run], Awaitable[None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(60):
                await test(partial(make, redis.url, context if has_tls else None))

        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(limited())

    return run


class Crowd:
    """Clients that read nothing, of which each is to end in a way of its own."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.users: list[str] = []
        self._wires: list[Wire] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def end(self, *ways: Way, then: tuple[Then, ...] = THEN) -> None:
        """Let one client for each way, and each thing to do then, come, fall behind and end."""
        cases = list(product(ways, then))
        clients = await self._come([f"{way.__name__}-{then.__name__}" for way, then in cases])
        for client, (way, _) in zip(clients, cases, strict=True):
            await way(self.place, client)
        self._go_on(clients, [then for _, then in cases])
        await self.place.emptied()

    async def drain(self) -> None:
        """Let clients come and fall behind, and the node end."""
        self._go_on(await self._come([then.__name__ for then in THEN]), THEN)
        await self.place.service.drain()
        assert not self.place.service.held.connections

    async def close(self) -> None:
        """Let them all be gone, here as well."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for wire in self._wires:
            wire.close()

    async def _come(self, names: list[str]) -> list[Mute]:
        self.users += names
        clients = []
        for name in names:
            path = "/abandon" if name.startswith("abandoned") else "/connect"
            clients.append(await self.place.connect(name, path, ttl=2 if name.startswith("expiry") else 600))
        self._wires += [client.wire for client in clients]
        await self.place.fill(len(clients))
        return clients

    def _go_on(self, clients: Sequence[Mute], then: Sequence[Then]) -> None:
        self._tasks += [asyncio.create_task(do(client)) for client, do in zip(clients, then, strict=True)]


@asynccontextmanager
async def crowd_of(place: Place) -> AsyncIterator[Crowd]:
    """Yield a crowd that is nowhere any more at the end of the `with`."""
    crowd = Crowd(place)
    try:
        yield crowd
    finally:
        await crowd.close()


def test_who_does_not_read_is_gone(run: Callable[[Any], None], redis: RedisServer) -> None:
    """Whatever ends it and whatever it does then: out of hub and sets, its user let in again, the node quick to end."""

    async def test(node: Run) -> None:
        async with node(**SETTINGS) as place, crowd_of(place) as crowd:
            await crowd.end(*WAYS, *(EMBEDDED if place.is_embedded else ()))
            async with redis.client() as client:
                await eventually(partial(_is_clean, client), what="the sets are clean")
            for user in crowd.users:
                (await place.connect(user)).wire.close()
            await place.emptied()
            await crowd.drain()

    run(test)


def test_who_does_not_read_is_missed(run: Callable[[Any], None]) -> None:
    """By the heartbeat, where the client says nothing more, or its host has left half of the connection open."""

    async def test(node: Run) -> None:
        async with node(**SETTINGS | {"heartbeat": 0.5}) as place, crowd_of(place) as crowd:
            await crowd.end(half, silence, then=(nothing,))
            assert place.service.counters.no_pong in (1, 2)  # once each; but half a plain connection is no secret

    run(test)


async def _is_clean(client: Any) -> bool:
    return await Sets.read(client) == Sets()
