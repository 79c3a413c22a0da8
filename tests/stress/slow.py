"""Clients that read too slowly, or not at all: each channel's rule decides, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.stress.arena import Arena
from tests.stress.checks import eventually
from tests.stress.node import Node
from tests.stress.peer import Peer
from tests.stress.scenario import scenario
from tests.stress.wire import CLOSE, PING, Wire

BUFFER = 4096
"""The receive buffer of who does not read: what the kernels hold is little beside what is written."""
PADDING = "x" * 8000
AT_ONCE = 10
"""Messages: of that size fewer bytes than the smallest outbox here takes."""


async def flood(arena: Arena, channel: str, count: int, readers: Sequence[Peer] = ()) -> None:
    """Write more than any buffer between node and client holds, but no more at once than readers keep up with."""
    writer = await arena.peer()
    for first in range(0, count, AT_ONCE):
        said = {"by": "w", "first": first, "count": AT_ONCE, "also": {"x": PADDING}}
        await writer.request("say", said, channel)
        for reader in readers:
            await reader.hears("w", first + AT_ONCE, channel)
    arena.count(messages=count)


async def read_all(wire: Wire, last: str = "over") -> list[dict[str, Any]]:
    """Read up to the last word, or to the end."""
    found: list[dict[str, Any]] = []
    while (message := await wire.read_message())["cmd"] not in (last, ""):
        found.append(message)
    return [*found, message]


async def say_over(arena: Arena, channel: str) -> None:
    await (await arena.peer()).request("say", {"cmd": "over"}, channel)


@scenario()
async def who_does_not_read_is_closed(arena: Arena) -> None:
    """Without a rule, who lets more than outbox_bytes wait is closed with 4008; members beside it miss nothing."""
    node = await arena.extra(outbox_bytes=200_000)
    slow = [await arena.wire(node, "news", buffer=BUFFER, protocol=p) for p in ("gateway.v1.json", "") * 2]
    quick = [await arena.peer(node, "news") for _ in range(4)]
    await flood(arena, "news", 800, quick)
    for peer in quick:
        arena.equal(f"what {peer} heard", list(range(800)), await peer.hears("w", 800))
    await eventually("who was closed", lambda: node.metric("slow_consumers_total"), 4)
    for wire in slow:
        heard = await read_all(wire)
        numbers = [m["param"]["n"] for m in heard if m["cmd"] == "n"]
        arena.equal("a run from the start", list(range(len(numbers))), numbers)
        arena.true(f"an end with 4008 or a reset, got {heard[-1]}", heard[-1].get("code") in (4008, 1006))
    arena.equal("what waits", 0, await node.metric("outbox_bytes"))


@scenario(quick=True)
async def the_oldest_are_dropped(arena: Arena) -> None:
    """With drop-oldest a slow reader keeps its connection, is told of a gap, and gets the newest in order."""
    node = await arena.extra(outbox_bytes=200_000)
    slow = [await arena.wire(node, "spared-news", buffer=BUFFER, protocol=p) for p in ("gateway.v1.json", "") * 2]
    quick = await arena.peer(node, "spared-news")
    await flood(arena, "spared-news", 800, [quick])
    await say_over(arena, "spared-news")
    arena.equal(f"what {quick} heard", list(range(800)), await quick.hears("w", 800))
    await quick.wait_for("over")
    dropped = 0
    for number, wire in enumerate(slow):
        heard = await read_all(wire)
        arena.equal("the last message", "over", heard[-1]["cmd"])
        numbers = [m["param"]["n"] for m in heard if m["cmd"] == "n"]
        arena.equal("the order", sorted(set(numbers)), numbers)
        arena.true(f"the newest, got up to {numbers[-1]}", numbers[-1] == 799)
        arena.equal("gaps told", number % 2 == 0, any(m["cmd"] == "$gap" for m in heard))
        dropped += 800 - len(numbers)
    arena.true("something to have been dropped", dropped)
    arena.equal("messages that were dropped", dropped, int(await node.metric("messages_dropped_total")))


@scenario()
async def the_latest_of_each_is_kept(arena: Arena) -> None:
    """With keep-latest a slow reader gets the last value of every symbol, however many came before."""
    node = await arena.extra(outbox_bytes=400_000)
    slow = [await arena.wire(node, "latest-prices", buffer=BUFFER, protocol="gateway.v1.json") for _ in range(3)]
    writer = await arena.peer(node)
    symbols = [f"S{number}" for number in range(10)]
    for number in range(900):
        also = {"symbol": symbols[arena.random.randrange(10)], "x": PADDING}
        await writer.send("say", {"by": "w", "first": number, "also": also}, "latest-prices")
    for symbol in symbols:
        await writer.request("say", {"by": "last", "also": {"symbol": symbol}}, "latest-prices")
    await say_over(arena, "latest-prices")
    arena.count(messages=910)
    for wire in slow:
        heard = await read_all(wire)
        arena.equal("the last message", "over", heard[-1]["cmd"])
        latest = {m["param"]["symbol"]: m["param"]["by"] for m in heard if m["cmd"] == "n"}
        arena.equal("the latest of each symbol", dict.fromkeys(symbols, "last"), latest)
    arena.true("some to have been dropped", await node.metric("messages_dropped_total"))


@scenario()
async def who_catches_up_misses_nothing(arena: Arena) -> None:
    """Readers that pause and go on, within what may wait, get everything in order, and nothing waits in the end."""
    node = await arena.extra(outbox_bytes=16 << 20)
    wires = [await arena.wire(node, "pausing", buffer=BUFFER, protocol="gateway.v1.json") for _ in range(6)]
    flooding = asyncio.create_task(flood(arena, "pausing", 600))

    async def read(wire: Wire, seed: int) -> list[int]:
        numbers: list[int] = []
        while len(numbers) < 600:
            message: dict[str, Any] = await wire.read_message()
            if message["cmd"] == "n":
                numbers.append(message["param"]["n"])
            if len(numbers) % (50 + seed) == 0:
                await asyncio.sleep(0.05)
        return numbers

    for numbers in await asyncio.gather(*(read(wire, seed) for seed, wire in enumerate(wires))):
        arena.equal("what came", list(range(600)), numbers)
    await flooding
    await eventually("what waits", lambda: node.metric("outbox_bytes"), 0)


@scenario()
async def who_answers_no_ping_is_ended(arena: Arena) -> None:
    """Connections that send no pong are closed with 4408; those that answer, and those that talk, stay."""
    node = await arena.extra(heartbeat=1)
    silent = [await arena.wire(node, "pulse", protocol="gateway.v1.json") for _ in range(8)]
    alive = [await arena.peer(node, "pulse") for _ in range(8)]

    async def first_ping(wire: Wire) -> None:
        while (await wire.read_frame()).opcode not in (PING, CLOSE):
            pass

    await asyncio.gather(*map(first_ping, silent))
    for wire in silent:
        arena.equal("the end of who is silent", 4408, await wire.read_code())
    await eventually("pongs missed", lambda: node.metric("pongs_missed_total"), len(silent))
    await arena.set_becomes("members:pulse", {peer.id for peer in alive})
    for peer in alive:
        await peer.settled()


@scenario()
async def a_slow_client_of_a_hundred_channels(arena: Arena) -> None:
    """One client that stops reading, in many channels of all rules, ends alone; nothing of it is left waiting."""
    node = await arena.extra(outbox_bytes=100_000)
    names = [f"{kind}-{number}" for kind in ("spared", "latest", "plain", "kept") for number in range(5)]
    slow = await arena.wire(node, *names, buffer=BUFFER, protocol="gateway.v1.json")
    quick = await arena.peer(node, *names)
    for name in names:
        await flood(arena, name, 40, [quick])
    for name in names:
        arena.equal(f"the order in {name}", list(range(40)), quick.numbers("w", name))
    await closed_slow(node)
    heard = await read_all(slow)
    arena.true(f"an end, got {heard[-1]}", heard[-1]["cmd"] == "")
    await eventually("what waits", lambda: node.metric("outbox_bytes"), 0)


async def closed_slow(node: Node) -> None:
    await eventually("who was closed", lambda: node.metric("slow_consumers_total"), 1)
