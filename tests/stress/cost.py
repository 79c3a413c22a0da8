"""What strangers cost: names they make up, requests that are short and answers that are long, coming and going."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.stress.arena import Arena, in_turn
from tests.stress.checks import eventually
from tests.stress.peer import Peer, Refused
from tests.stress.scenario import scenario

NAMES = 400
BURST = 65_536
"""Bytes at once where `byte_rate` is small: what the largest message may have."""
PAIR = 4096
"""Bytes that a history counts beside its messages."""


async def tried(peer: Peer, cmd: str, param: object, channel: str) -> str:
    """Ask, and return how it went: nothing, or the code of the refusal."""
    try:
        await peer.request(cmd, param, channel)
    except Refused as refused:
        return refused.code
    return ""


@scenario(quick=True)
async def names_that_strangers_make_up(arena: Arena) -> None:
    """Joining channels that keep a history, coming back and reading them leaves no key behind but one for all."""
    before = await arena.redis.keys() | {"gateway:seed"}
    strangers = await arena.peers(4)

    async def visit(number: int) -> None:
        stranger, channel = strangers[number % 4], f"kept-made-up-{number}"
        answer = await stranger.request("$join", None, channel)
        since = {"epoch": answer["epoch"], "offset": 0}
        for peer in (stranger, strangers[(number + 1) % 4]):
            again = await peer.request("$join", {"since": since}, channel)
            arena.equal(f"whether {channel} is recovered", True, again["recovered"])
            page = await peer.request("$history", {"since": since}, channel)
            arena.equal(f"what {channel} holds", [], page["messages"])
            await peer.request("$leave", None, channel)

    await in_turn(visit, range(NAMES))
    arena.count(names=NAMES)
    await arena.close_all()

    async def left() -> set[str]:
        return await arena.redis.keys() - before

    await eventually("the keys that are left", left, set())


@scenario(complaints=("history_total_bytes",))
async def histories_without_end(arena: Arena) -> None:
    """Strangers who write to ever more channels are kept to history_total_bytes; what went is missing, not wrong."""
    rules = [{"match": "*", "history": 100, "ttl": 300, "history_bytes": 20_000}]
    node = await arena.extra(history_total_bytes=50 * PAIR, channels=rules)
    strangers = [await arena.peer(node) for _ in range(4)]
    ends: dict[str, dict[str, object]] = {}

    async def write_to(number: int) -> None:
        channel = f"made-up-{number}"
        said = {"by": "w", "count": 1 + number % 3, "also": {"x": "y" * (number % 7) * 300}}
        ends[channel] = await strangers[number % 4].request("say", said, channel)

    await in_turn(write_to, range(NAMES))
    kept = await arena.redis.keys("gateway:stream:made-up-*")
    arena.true(f"at most 50 histories, and more than 10, got {len(kept)}", 10 < len(kept) <= 50)
    arena.equal("histories dropped", NAMES - len(kept), int(await node.metric("histories_dropped_total")))
    reader = strangers[0]
    for channel, end in ends.items():
        answer = await reader.request("$join", {"since": {"epoch": end["epoch"], "offset": 0}}, channel)
        is_kept = f"gateway:stream:{channel}" in kept
        arena.equal(f"where {channel} stands", (end["offset"], is_kept), (answer["offset"], answer["recovered"]))
        await reader.request("$leave", None, channel)
    writer = await arena.peer(node)
    await writer.request("say", {"by": "w", "count": 100, "also": {"x": "y" * 1000}}, "large")
    entries: Any = await arena.redis.commands.xrange("gateway:stream:large")
    size = sum(len(fields["message"]) for _, fields in entries)
    arena.true(f"nearly 20,000 bytes of one channel, got {size:,}", 18_000 < size <= 20_000)


@scenario(quick=True)
async def short_requests_with_long_answers(arena: Arena) -> None:
    """A client that asks for much again and again is answered as much as byte_rate says, and harms nobody beside it."""
    node = await arena.extra(byte_rate=1, abuse_limit=0)
    writer = await arena.peer(node, "kept-dear")
    await writer.request("say", {"by": "w", "count": 100, "also": {"x": "y" * 200}}, "kept-dear")
    greedy, beside = await arena.peer(node, "kept-dear"), await arena.peer(node, "kept-dear")
    answers = await asyncio.gather(*(tried(greedy, "$history", None, "kept-dear") for _ in range(300)))
    arena.equal("how it went", {"", "rate-limited"}, set(answers))
    size = len(str((await beside.request("$history", None, "kept-dear"))["messages"]))
    arena.true(
        f"2 or 3 answers of {size:,} bytes, got {answers.count('')}", 1 < answers.count("") <= BURST // 25_000 + 1
    )
    await writer.request("say", {"by": "end"}, "kept-dear")
    await beside.hears("end", 1)


@scenario(quick=True)
async def coming_and_going(arena: Arena) -> None:
    """A client that joins and leaves all the time is announced as often as may be; others join as ever."""
    most = 8
    node = await arena.extra(message_rate=1, message_burst=1000, max_channels_per_connection=most, abuse_limit=0)
    watcher = await arena.peer(node, "doors")
    restless = await arena.peer(node)
    began, answers = time.monotonic(), []
    for _ in range(100):
        answers += [await tried(restless, cmd, None, "doors") for cmd in ("$join", "$leave")]
    done = answers.count("")
    arena.equal("how it went", {"", "rate-limited"}, set(answers))
    at_most = 2 * most + 2 + (time.monotonic() - began) / 10
    arena.true(f"at least {2 * most} and at most {at_most:.0f} to be done, got {done}", 2 * most <= done <= at_most)
    await restless.close()
    announced = done + done % 2
    await watcher.has("online-update", announced)
    arena.equal("what was announced", [True, False] * (announced // 2), _connected(watcher))
    others = [await arena.peer(node) for _ in range(most)]
    arena.equal("others", {""}, {await tried(other, "$join", None, "doors") for other in others})


def _connected(watcher: Peer) -> list[bool]:
    return [param["connected"] for param in watcher.params("online-update")]
