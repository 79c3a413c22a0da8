"""Redis refuses, in every way for a while, under clients that go on: that is told, and nothing stays wrong."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from tests.stress.arena import Arena
from tests.stress.checks import eventually
from tests.stress.node import Node
from tests.stress.outages import all_served
from tests.stress.peer import Peer, Refused
from tests.stress.scenario import scenario


@dataclass(frozen=True)
class Way:
    """How Redis refuses, how that is ended, and the word by which nodes must tell it."""

    begin: str
    end: str
    word: str


WAYS = (
    Way("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
    Way("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS"),
    Way("ACL SETUSER default -hset", "ACL SETUSER default +hset", "NOPERM"),
    Way("ACL SETUSER default -publish", "ACL SETUSER default +publish", "NOPERM"),
    Way("ACL SETUSER default -evalsha", "ACL SETUSER default +evalsha", "NOPERM"),
    Way("ACL SETUSER default resetkeys ~other:*", "ACL SETUSER default allkeys", "NOPERM"),
)


async def reasons(node: Node) -> list[str]:
    _, body = await node.ask("GET", "/readyz")
    found: list[str] = body["reasons"]
    return found


async def tells(node: Node, word: str) -> bool:
    return any(word in reason for reason in await reasons(node))


async def go_on(peer: Peer, number: int) -> None:
    """Join, write and leave, whatever comes of it."""
    for verb, channel in (("$join", f"refused-{number % 5}"), ("say", "kept-refused"), ("$leave", "hall")):
        with suppress(Refused, TimeoutError):
            param = {"by": "meanwhile"} if verb == "say" else None
            await asyncio.wait_for(peer.request(verb, param, channel), 2)


@scenario()
async def what_redis_refuses_is_told_and_comes_to_an_end(arena: Arena) -> None:
    """However Redis refuses, every node says why; afterwards all reasons are gone, and sets and delivery right."""
    peers = await arena.peers(24, "hall", "kept-refused")
    for way in arena.random.sample(WAYS, 3):
        await arena.redis.do(way.begin)
        try:
            for node in arena.nodes:
                await eventually(f"{node} tells {way.word}", partial(tells, node, way.word))
            await asyncio.gather(*(go_on(peer, number) for number, peer in enumerate(peers)))
        finally:
            await arena.redis.do(way.end)
        await all_served(arena)
        for node in arena.nodes:
            await eventually(f"what {node} still complains of", partial(reasons, node), [])
        await arena.set_becomes("nodes", {node.id for node in arena.nodes})
        arena.count(ways=1)
    for channel in ("hall", *(f"refused-{number}" for number in range(5))):
        held = {peer.id for peer in peers if channel in await peer.request("channels", channel="x")}
        await arena.set_becomes(f"members:{channel}", held)
    await (await arena.peer()).request("say", {"by": "end"}, "kept-refused")
    for peer in peers:
        await peer.hears("end", 1, "kept-refused")
