"""What ends is freed at once: nothing of the gateway's is left for the garbage collector, which a node runs seldom."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from gateway.config import Rule, Settings
from gateway.errors import Unavailable
from gateway.node.service import NodeService
from gateway.server.running import Standalone, running_node
from tests.harness.client import Clients
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually
from tests.harness.wire import CLOSE, Wires

TIMES = 5
"""How often each thing happens: what happens once may be left by something that is made once."""

Part = Callable[[Clients, Wires, str], Awaitable[None]]


@contextmanager
def leaving_nothing() -> Iterator[None]:
    """Fail if something of the gateway's was unreachable at the end of the `with`, and yet there."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = Counter(type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("gateway"))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not found


@asynccontextmanager
async def node(redis_url: str = "memory://") -> AsyncIterator[Standalone]:
    """Run a node in this process, and end it before anything is counted as left."""
    kept = Rule(match="kept-*", history=9)
    settings = Settings(port=0, redis_url=redis_url, node_id="own", max_message_bytes=1000, channels=[kept])
    async with running_node(settings) as running:
        yield running


def url_of(own: Standalone) -> str:
    return own.address.replace("http", "ws", 1) + "/connect"


async def closes(connect: Clients, wire: Wires, url: str) -> None:
    """Join, leave, ask for what is there and for what is not, and close."""
    client = await connect(url, protocols=["gateway.v1.json"])
    for cmd in ("$join", "$history", "$leave", "nonsense"):
        for channel in ("lobby", "kept-1", "no name"):
            await client.request(cmd, channel=channel)
    await client.close()


async def vanishes(connect: Clients, wire: Wires, url: str) -> None:
    """Join, and be gone without a word."""
    await (await connect(url, "lobby")).drop()


async def breaks_the_rules(connect: Clients, wire: Wires, url: str) -> None:
    """Send what is too big."""
    client = await wire(url)
    await client.send("x" * 2000)
    assert (await client.read_close()).opcode == CLOSE
    client.close()


async def is_refused(connect: Clients, wire: Wires, url: str) -> None:
    """Ask for a channel that cannot be."""
    client = await wire.open(url + "?ch=no%20name")
    await client.write(client.upgrade())
    assert (await client.read_head()).status == 400
    client.close()


@pytest.mark.parametrize("part", [closes, vanishes, breaks_the_rules, is_refused])
async def test_connections(connect: Clients, wire: Wires, part: Part) -> None:
    """However a connection ends, or does not begin."""
    async with node() as own:
        with leaving_nothing():
            for _ in range(TIMES):
                await part(connect, wire, url_of(own))
            await eventually(lambda: own.service.held.connections == 0)


async def test_links_to_redis(own_redis: RedisServer, connect: Clients) -> None:
    """However a link to Redis breaks, with messages, joins and questions under way."""
    async with node(own_redis.url) as own:
        with leaving_nothing():
            for _ in range(TIMES):
                await _break_links(own, own_redis, connect)
            await own_redis.restart()
            await eventually(lambda: own.service.readiness.status == "ok")


async def _break_links(own: Standalone, redis: RedisServer, connect: Clients) -> None:
    asked = [asyncio.create_task(_ask(own.service)) for _ in range(20)]
    joins = [asyncio.create_task(connect(url_of(own), "lobby")) for _ in range(5)]
    await asyncio.sleep(0)
    await redis.command("CLIENT", "KILL", "SKIPME", "yes")
    await asyncio.gather(*asked)
    for client in await asyncio.gather(*joins):
        await client.close()


async def _ask(service: NodeService) -> None:
    with suppress(Unavailable):
        await service.write_channel("hello", None, "lobby")
    with suppress(Unavailable):
        await service.status()
