"""Much of the same again and again: what nodes hold must not grow with it."""

from __future__ import annotations

import asyncio

from tests.stress.arena import NODES, Arena, in_turn
from tests.stress.checks import eventually
from tests.stress.scenario import scenario

ROUNDS = 4
GROWTH = 8000
"""Blocks of memory in use that a node may gain after the first round, in which it does 100 of what a scenario does,
and then 300 more. Caches of names, which are bounded, take 16 for each channel that is new, 4,800 in all; 14 for each
connection, were it kept, would be 4,200 more."""


async def alive(arena: Arena) -> list[int]:
    """Return how many blocks of memory Python's objects use in each node."""
    return [int(await node.metric("memory_blocks")) for node in arena.nodes]


async def does_not_grow(arena: Arena, before: list[int]) -> None:
    for node, was, now in zip(arena.nodes, before, await alive(arena), strict=True):
        arena.true(f"{node} to grow by at most {GROWTH:,} blocks of memory, got {now - was:,}", now - was <= GROWTH)


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
        before = before or await alive(arena)
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
        before = before or await alive(arena)
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
        before = before or await alive(arena)
    await does_not_grow(arena, before)
