"""Everything at once: what is left when it is quiet again must be of one mind."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tests.stress.arena import Arena
from tests.stress.checks import Wrong, eventually
from tests.stress.node import Node
from tests.stress.outages import all_served
from tests.stress.peer import Peer, Refused
from tests.stress.scenario import scenario

CHANNELS = ("hall", "kept-hall", "short-hall", "spared-hall")


async def wander(arena: Arena, number: int, stop: asyncio.Event) -> tuple[Peer, set[str]]:
    """Do what clients do, at random, and come back when cut off; return the last connection and where it is."""
    user = f"wanderer-{number % 10}" if number % 2 else ""
    peer, inside = await come(arena, user), set[str]()
    while not stop.is_set():
        channel = arena.random.choice(CHANNELS)
        try:
            match arena.random.randrange(8):
                case 0:
                    peer.abort()
                    await peer.wait_end()
                case 1:
                    await peer.close()
                case 2 | 3 | 4:
                    await peer.request("$join", None, channel)
                    inside.add(channel)
                case 5:
                    inside.discard(channel)
                    await peer.request("$leave", None, channel)
                case _:
                    await peer.request("say", {"by": peer.id}, channel)
        except (Refused, ConnectionError):
            pass  # Redis or the node is away
        if peer.code is not None:
            peer, inside = await come(arena, user), set()
        arena.count(steps=1)
        await asyncio.sleep(0.01)
    return peer, inside


async def come(arena: Arena, user: str) -> Peer:
    """Connect to some node that lets us in, however long there is none."""
    while True:
        with suppress(Refused, OSError, Wrong):
            return await arena.peer(None, user=user)
        await asyncio.sleep(0.05)


async def trouble(arena: Arena) -> None:
    """Make any trouble there is, a few times."""
    for turn in range(8):
        await asyncio.sleep(arena.random.random() * 0.5)
        match (turn + arena.random.randrange(2)) % 6:
            case 0:
                await arena.redis.kill_links()
            case 1:
                arena.redis.freeze()
                await asyncio.sleep(0.5)
                arena.redis.thaw()
            case 2:
                await restart(arena.any_node(), kindly=arena.random.random() < 0.5)
            case 3:
                await arena.redis.restart(keep=arena.random.random() < 0.5)
            case 4:
                await arena.redis.commands.flushall()
            case _:
                node = arena.any_node()
                node.freeze()
                await asyncio.sleep(0.5)
                node.thaw()
        arena.count(troubles=1)


async def restart(node: Node, *, kindly: bool) -> None:
    await (node.stop() if kindly else node.kill())
    await node.start()


@scenario()
async def everything_at_once(arena: Arena) -> None:
    """After random trouble with nodes, links and Redis under random clients, hubs, sets and delivery agree."""
    stop = asyncio.Event()
    wandering = [asyncio.create_task(wander(arena, number, stop)) for number in range(40)]
    try:
        await trouble(arena)
        await all_served(arena)
    finally:
        stop.set()
        found = await asyncio.gather(*wandering)
    for channel in CHANNELS:
        # What was unanswered when a connection to Redis broke may have been done: the node itself knows.
        here = [peer for peer, _ in found if peer.code is None]
        held = {peer.id for peer in here if channel in await peer.request("channels", channel="x")}
        sure = {peer.id for peer, inside in found if peer.code is None and channel in inside}
        arena.equal(f"who joined {channel} and is not there", set(), sure - held)
        await arena.set_becomes(f"members:{channel}", held)
        users = {peer.user or peer.id for peer, _ in found if peer.id in held}
        await arena.set_becomes(f"online:{channel}", users)
        await (await arena.peer()).request("say", {"by": f"end of {channel}"}, channel)
        for peer, _ in found:
            if peer.id in held:
                arena.equal(f"the end of {channel} at {peer}", [0], await peer.hears(f"end of {channel}", 1, channel))
    await eventually("the nodes", lambda: arena.redis.members("nodes"), {node.id for node in arena.nodes})
