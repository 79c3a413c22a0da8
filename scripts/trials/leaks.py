"""Much of the same again and again: what nodes hold must not grow with it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from trials.arena import NODES, Arena, in_turn
from trials.node import Node
from trials.scenario import eventually, scenario

ROUNDS = 4
GROWTH = 12 << 20
"""Bytes that a node may grow by after the first rounds: allocators keep some, what leaks is several times more."""


def resident(node: Node) -> int:
    """Return the memory of a node; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    pages = Path(f"/proc/{node.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def does_not_grow(arena: Arena, before: list[int]) -> None:
    for node, was in zip(arena.nodes, before, strict=True):
        grown = resident(node) - was
        arena.true(f"{node} to grow by less than {GROWTH:,} bytes, got {grown:,}", grown < GROWTH)


@scenario()
async def thousands_of_short_connections(arena: Arena) -> None:
    """Thousands of connections in and out of channels of their own, closed in all ways, leave memory as it was."""
    before: list[int] = []
    for turn in range(ROUNDS):

        async def visit(number: int) -> None:
            names = (f"once-{turn}-{number}", f"kept-once-{number % 50}", "all")  # noqa: B023
            peer = await arena.peer(arena.nodes[number % NODES], *names, user=f"u-{number}" if number % 2 else "")
            await peer.request("$leave", None, names[0])
            if number % 3:
                await peer.close()
            else:
                peer.abort()

        await in_turn(visit, range(400))
        await eventually("everybody gone", lambda: arena.redis.members("members:all"), set())
        before = before or [resident(node) for node in arena.nodes]
    await does_not_grow(arena, before)


@scenario()
async def a_long_conversation(arena: Arena) -> None:
    """Tens of thousands of messages of all kinds through a few connections leave memory as it was."""
    peers = await arena.peers(16, "long", "kept-long", user="talker", mixed=True)
    writers = await arena.peers(4)
    before: list[int] = []
    for turn in range(ROUNDS):

        async def talk(number: int) -> None:
            writer, by = writers[number], f"{turn}-{number}"  # noqa: B023
            await writer.request("say", {"by": by, "count": 150, "also": {"x": "y" * 1000}}, "long")
            await writer.request("say", {"by": by, "count": 50}, "kept-long")
            for peer in peers:
                await writer.send("tell-user", {"cmd": "u", "to": "talker"})
                if peer.id:
                    await writer.send("tell", {"cmd": "d", "to": peer.id})
            await writer.settled()

        await asyncio.gather(*map(talk, range(4)))
        for peer in peers:
            for number in range(4):
                await peer.hears(f"{turn}-{number}", 150, "long")
            peer.got.clear()
        arena.count(messages=4 * 200)
        before = before or [resident(node) for node in arena.nodes]
    await does_not_grow(arena, before)


@scenario()
async def refusals_without_end(arena: Arena) -> None:
    """Thousands of refused handshakes, joins and requests leave nothing: no place taken, no task, no memory."""
    before: list[int] = []
    for _ in range(ROUNDS):

        async def knock(number: int) -> None:
            node = arena.nodes[number % NODES]
            match number % 4:
                case 0:
                    await arena.refused("400", arena.peer(node, "{illegal}"))
                case 1:
                    await arena.refused("403", arena.peer(node, "closed-1"))
                case 2:
                    await arena.refused("401", arena.peer(node, shown="nonsense"))
                case _:
                    status, _ = await node.ask("POST", "/api/connections/nobody~1/messages", {"cmd": "x"})
                    arena.equal("the API's answer", 404, status)

        await in_turn(knock, range(400))
        peers = await arena.peers(4)
        for peer in peers:
            await asyncio.gather(
                *(arena.refused("forbidden", peer.request("$join", None, f"secret-{n}")) for n in range(60))
            )
            await peer.close()
        arena.count(refused=400 + 240)
        before = before or [resident(node) for node in arena.nodes]
    await does_not_grow(arena, before)
