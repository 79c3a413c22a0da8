"""What an application's handler does wrong: its own client is told, and nobody else notices."""

from __future__ import annotations

import asyncio

from tests.stress.arena import Arena
from tests.stress.checks import eventually
from tests.stress.peer import Peer
from tests.stress.scenario import scenario

RAISED = (*("value", "exit", "interrupt", "cancelled", "generator", "memory", "group", "stop", "timeout"),)


@scenario(quick=True, complaints=("handler failed", "exception"))
async def whatever_a_handler_raises(arena: Arena) -> None:
    """Anything a handler raises, SystemExit too, is `internal` to its client; all nodes and other clients go on."""
    peers = await arena.peers(16, "work", mixed=False)

    async def suffer(peer: Peer) -> None:
        for how in arena.random.sample(RAISED, len(RAISED)):
            await arena.refused("internal", peer.request("fail", how))
            await peer.settled()
        await arena.refused("forbidden", peer.request("fail", "forbidden"))
        await arena.refused("internal", peer.request("recurse"))
        await arena.refused("internal", peer.request("unsayable"))
        await arena.refused("internal", peer.request("echo", 1, "raises-always"))
        await arena.refused("internal", peer.request("$join", None, "raises-always"))
        await peer.request("say", {"by": peer.id}, "work")
        arena.count(failures=len(RAISED) + 5)

    await asyncio.gather(*map(suffer, peers))
    for peer in peers:
        for other in peers:
            await peer.hears(other.id, 1)
    for node in arena.nodes:
        arena.equal(f"the state of {node}", 200, (await node.ask("GET", "/readyz"))[0])


@scenario(complaints=("handler failed",))
async def handlers_that_fail_to_open_or_close(arena: Arena) -> None:
    """A handler that fails in on_open or on_close leaves a connection that works and goes like any other."""
    opening = await arena.peers(8, "work", name="fails-to-open")
    closing = await arena.peers(8, "work", name="fails-to-close")
    watcher = await arena.peer(None, "work")
    for peer in opening + closing:
        await peer.settled()
    for peer in closing:
        peer.abort()
    await arena.set_becomes("members:work", {watcher.id, *(peer.id for peer in opening)})
    await watcher.request("say", {"by": "w"}, "work")
    for peer in opening:
        await peer.hears("w", 1)


@scenario()
async def every_farewell_is_said_once(arena: Arena) -> None:
    """on_close runs once for each connection, however it ended, and after the command in hand."""
    watcher = await arena.peer(None, "farewells")
    peers = await arena.peers(32, name="farewell")
    enders = [await arena.peer(node) for node in arena.nodes]
    for number, peer in enumerate(peers):
        await peer.send("sleep", 0.1)
        match number % 4:
            case 0:
                peer.abort()
            case 1:
                await peer.close()
            case 2:
                await enders[number % 3].request("end", {"id": peer.id})
            case _:
                await asyncio.gather(*(ender.send("end", {"id": peer.id}) for ender in enders))
    for peer in peers[2::4] + peers[3::4]:
        arena.equal(f"the end of {peer}", 4410, await peer.wait_end())
    await watcher.has("farewell", len(peers))
    for ender in enders:
        await ender.settled()
    arena.equal("farewells", sorted(peer.id for peer in peers), sorted(watcher.params("farewell")))


@scenario(complaints=("stood still", "blocked"))
async def a_handler_blocks_its_node(arena: Arena) -> None:
    """A handler that blocks the loop for longer than a lease delays its own node only, which nobody reaps."""
    node = arena.nodes[0]
    here, there = await arena.peer(node, "blocked", user="here"), await arena.peer(arena.nodes[1], "blocked")
    blocking = asyncio.create_task(here.request("block", 12))
    for number in range(10):
        await there.request("say", {"by": "w", "first": number}, "blocked")
    arena.equal("what the other node's client heard", list(range(10)), await there.hears("w", 10))
    await blocking
    arena.equal("what the blocked one heard", list(range(10)), await here.hears("w", 10))
    await arena.set_becomes("members:blocked", {here.id, there.id})
    arena.equal("announcements", [], [p for p in there.params("online-update") if not p["connected"]])
    stalls = await eventually("stalls that are counted", lambda: node.metric("loop_stalls_total"))
    arena.true("a stall", stalls)
