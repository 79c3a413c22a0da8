"""Clients that have stopped reading, and end: each in a way of its own, in time, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import product

from tests.stress.arena import Arena
from tests.stress.checks import eventually
from tests.stress.node import Node
from tests.stress.peer import JSON, token
from tests.stress.scenario import scenario
from tests.stress.slow import BUFFER, flood
from tests.stress.wire import CLOSE, PONG, TEXT, Wire, frame

GOODBYE = frame((1000).to_bytes(2, "big"), CLOSE)
SAID = {
    "protocol": frame("not masked", mask=None),
    "too big": frame("x" * 70_000),
    "no utf-8": frame(b"\xff", TEXT),
    "abuse": frame("no message") * 120,
    "close": GOODBYE,
}
"""What ends a connection, sent by its client."""
MESSAGES, BEHIND = 800, 500_000
"""Messages that make more than kernels hold for who does not read, and bytes that wait for each then."""
IN_TIME = 15.0
"""Seconds: three times what an end may take, on a machine where everything else runs as well."""


async def silent(wire: Wire) -> None:
    """Do nothing more."""


async def answering(wire: Wire) -> None:
    """Send a close frame, as if it had read one."""
    with suppress(OSError):
        await wire.write(GOODBYE)


async def sending(wire: Wire) -> None:
    """Send on, until nobody takes it."""
    with suppress(OSError):
        while True:
            await wire.write(frame(b"", PONG) * 10)
            await asyncio.sleep(0.01)


THEN: tuple[Callable[[Wire], Awaitable[None]], ...] = (silent, answering, sending)
WAYS = (*SAID, "end of stream", "operator", "token")


async def come(arena: Arena, node: Node, user: str, *, ttl: float = 600) -> tuple[Wire, str]:
    """Connect a user who reads until he is welcome, and nothing more; return the id of his connection, too."""
    headers = {"Authorization": f"Bearer {token(user, ttl=ttl)}"}
    url = node.url("news")
    wire = arena.keep(await Wire.connect(url, protocols=[JSON], headers=headers, receive_buffer=BUFFER))
    return wire, (await wire.read_message())["param"]["connection"]


async def end(arena: Arena, node: Node, way: str, wire: Wire, id: str) -> None:
    """End a connection; that of a token ends by itself."""
    if way in SAID:
        with suppress(OSError):
            await wire.write(SAID[way])
    elif way == "end of stream":
        wire.finish()
    elif way == "operator":
        status, _ = await node.ask("DELETE", f"/api/connections/{id}")
        arena.equal("the API's answer", 204, status)


@scenario()
async def who_has_stopped_reading_is_gone(arena: Arena) -> None:
    """However a client ends that reads nothing, it is out of all sets in time, its user back in, nobody disturbed."""
    node = await arena.extra(outbox_bytes=32 << 20, max_connections_per_user=1)
    healthy = [await arena.peer(node, "news") for _ in range(4)]
    cases = [(f"{way}-{then.__name__}".replace(" ", "-"), way, then) for way, then in product(WAYS, THEN)]
    arena.random.shuffle(cases)
    ttl = {"token": 5.0}
    came = [await come(arena, node, user, ttl=ttl.get(way, 600)) for user, way, _ in cases]
    await flood(arena, "news", MESSAGES, healthy)
    arena.true("them to be behind", await node.metric("outbox_bytes") > BEHIND * len(cases) / 2)
    for (_, way, _), (wire, id) in zip(cases, came, strict=True):
        await end(arena, node, way, wire, id)
    going_on = [asyncio.create_task(_run(then, wire)) for (_, _, then), (wire, _) in zip(cases, came, strict=True)]
    left = {peer.id for peer in healthy}
    await eventually("members", lambda: arena.redis.members("members:news"), left, deadline=IN_TIME)
    await eventually("connections", lambda: node.metric("connections"), len(left), deadline=IN_TIME)
    arena.equal("what waits", 0, await node.metric("outbox_bytes"))
    await asyncio.gather(*going_on)
    for user, _, _ in cases:
        wire, _ = await come(arena, node, user)
        wire.close()
    for peer in healthy:
        arena.equal(f"what {peer} heard", list(range(MESSAGES)), await peer.hears("w", MESSAGES))
        await peer.settled()
    arena.count(ends=len(cases))


@scenario()
async def who_has_stopped_reading_holds_up_no_drain(arena: Arena) -> None:
    """A node whose heartbeat and drain end clients that read nothing is done in time, and leaves nothing of them."""
    node = await arena.extra(outbox_bytes=32 << 20, heartbeat=1, drain_seconds=1)
    mute, restless = [[(await come(arena, node, f"{kind}-{n}"))[0] for n in range(4)] for kind in ("mute", "restless")]
    going_on = [asyncio.create_task(sending(wire)) for wire in restless]
    await flood(arena, "news", MESSAGES)
    await eventually("members", lambda: node.metric("connections"), len(restless), deadline=IN_TIME)
    await eventually("pongs missed", lambda: node.metric("pongs_missed_total"), len(mute), deadline=IN_TIME)
    arena.true("the others to be behind", await node.metric("outbox_bytes") > BEHIND * len(restless) / 2)
    arena.equal("the exit code", 0, await node.stop())
    await arena.set_becomes("members:news", ())
    await asyncio.gather(*going_on)


async def _run(then: Callable[[Wire], Awaitable[None]], wire: Wire) -> None:
    await then(wire)
