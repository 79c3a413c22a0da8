"""Channels that keep history: who comes back has every message once, or is told that it has not."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.stress.arena import NODES, Arena
from tests.stress.peer import JSON, MSGPACK, Peer
from tests.stress.scenario import scenario

Position = dict[str, Any]


def offsets(peer: Peer, channel: str) -> list[int]:
    """Return the positions of the messages that came, each once: on the wire one may come again."""
    found = [m["offset"] for m in peer.got if m.get("channel") == channel and "offset" in m]
    return list(dict.fromkeys(found))


async def comes(peer: Peer, channel: str, offset: int) -> None:
    """Wait until a client has the message of an offset."""
    await peer.until(f"offset {offset}", lambda: offset in offsets(peer, channel))


async def enter(peer: Peer, channel: str, since: Position | None = None) -> dict[str, Any]:
    """Join, from a position on if there is one."""
    answer: dict[str, Any] = await peer.request("$join", None if since is None else {"since": since}, channel)
    return answer


async def write(arena: Arena, channel: str, count: int, first: int = 0) -> Position:
    """Let a client of each node write a part; return the last position."""
    writers = [await arena.peer(node) for node in arena.nodes]
    said = await asyncio.gather(
        *(w.request("say", {"by": w.id, "first": first, "count": count // NODES}, channel) for w in writers)
    )
    arena.count(messages=count // NODES * NODES)
    return max(said, key=lambda at: at["offset"])


@scenario(quick=True)
async def a_storm_of_resuming_clients(arena: Arena) -> None:
    """Clients that are all cut off in the middle of a stream and come back to other nodes have it complete."""
    channel = "kept-storm"
    first = [await arena.peer(arena.nodes[n % NODES], protocol=(JSON, MSGPACK)[n // NODES % 2]) for n in range(80)]
    starts = await asyncio.gather(*(enter(peer, channel) for peer in first))
    writing = asyncio.create_task(write(arena, channel, 1200))
    for peer in first:
        await peer.has("n", arena.random.randrange(20, 60))
        peer.abort()
    back = await arena.peers(len(first))

    async def resume(number: int) -> dict[str, Any]:
        heard = offsets(first[number], channel)
        since = {"epoch": starts[number]["epoch"], "offset": heard[-1]}
        return await enter(back[number], channel, since)

    answers = await asyncio.gather(*map(resume, range(len(first))))
    end = (await writing)["offset"]
    for before, after, start, answer in zip(first, back, starts, answers, strict=True):
        arena.equal(f"whether {after} recovered", True, answer["recovered"])
        if offsets(before, channel)[-1] < end:
            await comes(after, channel, end)
        heard = offsets(before, channel) + offsets(after, channel)
        arena.equal(f"what {before} and then {after} heard", list(range(start["offset"] + 1, end + 1)), heard)


@scenario(quick=True)
async def history_is_trimmed_while_clients_resume(arena: Arena) -> None:
    """Who comes back to a short history has all that it missed, or is told that it has not; never a silent hole."""
    channel, outcomes = "short-run", {True: 0, False: 0}
    await write(arena, channel, 100)
    done = asyncio.Event()

    async def keep_writing() -> None:
        while not done.is_set():
            await write(arena, channel, 40)

    async def visit(number: int) -> None:
        at: Position | None = None
        for turn in range(8):
            peer = await arena.peer(arena.nodes[(number + turn) % NODES])
            answer = await enter(peer, channel, at)
            await peer.has("n", 10)
            await peer.request("$leave", None, channel)
            heard = offsets(peer, channel)
            arena.equal(f"holes in what {peer} heard", list(range(heard[0], heard[0] + len(heard))), heard)
            if at is not None:
                outcomes[answer["recovered"]] += 1
                missed = heard[0] - at["offset"] - 1
                arena.true(f"no hole of {missed} where it recovered", not (answer["recovered"] and missed))
            at = {"epoch": answer["epoch"], "offset": heard[-1]}
            await peer.close()

    writing = asyncio.create_task(keep_writing())
    await asyncio.gather(*map(visit, range(8)))
    done.set()
    await writing
    arena.count(recovered=outcomes[True], told=outcomes[False])


@scenario()
async def joining_a_running_history_has_no_seam(arena: Arena) -> None:
    """Whoever joins while many write hears every offset from then on, in order and without a hole."""
    channel = "kept-seam"
    writing = asyncio.create_task(write(arena, channel, 1600))

    async def join(number: int) -> tuple[Peer, int]:
        peer = await arena.peer(arena.nodes[number % NODES], protocol=(JSON, MSGPACK)[number % 2])
        await asyncio.sleep(0)
        return peer, (await enter(peer, channel))["offset"]

    joined = [await join(number) for number in range(40)]
    end = (await writing)["offset"]
    for peer, start in joined:
        if start < end:
            await comes(peer, channel, end)
        heard = offsets(peer, channel)  # some may have come before the answer, which then is beyond them
        first = min(heard[0], start + 1) if heard else end + 1
        arena.equal(f"what {peer} heard", list(range(first, end + 1)), heard)


@scenario()
async def all_read_the_same_history(arena: Arena) -> None:
    """Pages of history on four nodes, read while it is written, together are every message, in one order."""
    channel = "kept-pages"
    readers = await arena.peers(8, channel)
    writing = asyncio.create_task(write(arena, channel, 800))

    async def read_all(peer: Peer) -> list[Any]:
        at, found = {"epoch": "", "offset": 0}, list[Any]()
        while len(found) < 800:
            page = await peer.request("$history", {"since": at, "limit": 37} if at["epoch"] else {"limit": 0}, channel)
            found += page["messages"]
            last = page["messages"][-1]["offset"] if page["messages"] else at["offset"]
            at = {"epoch": page["epoch"], "offset": last}
            arena.count(pages=1)
        return [(m["offset"], m["param"]["by"], m["param"]["n"]) for m in found]

    books = await asyncio.gather(*map(read_all, readers))
    await writing
    for peer, book in zip(readers, books, strict=True):
        arena.equal(f"offsets that {peer} read", list(range(1, 801)), [offset for offset, _, _ in book])
        arena.equal(f"what {peer} read", books[0], book)
        await peer.has("n", 800)
        heard = [(m["offset"], m["param"]["by"], m["param"]["n"]) for m in peer.got if m["cmd"] == "n"]
        arena.equal(f"what {peer} heard live", book, heard)


@scenario()
async def positions_that_never_were(arena: Arena) -> None:
    """A position beyond the end, of a foreign epoch, or of nonsense is not recovered or refused; live goes on."""
    channel = "kept-odd"
    end = await write(arena, channel, 40)
    odd: list[tuple[Any, str]] = [
        ({"epoch": end["epoch"], "offset": end["offset"] + 1}, ""),
        ({"epoch": end["epoch"], "offset": 1 << 62}, ""),
        ({"epoch": end["epoch"], "offset": 1 << 63}, ""),
        ({"epoch": "another", "offset": 3}, ""),
        ({"epoch": "", "offset": 0}, ""),
        ({"epoch": "\x00{}*", "offset": 1}, ""),
        ({"epoch": "e" * 5000, "offset": 1}, ""),
        ({"epoch": end["epoch"], "offset": -1}, "invalid-param"),
        ({"epoch": end["epoch"], "offset": True}, "invalid-param"),
        ({"epoch": end["epoch"], "offset": 1.5}, "invalid-param"),
        ({"epoch": 7, "offset": 1}, "invalid-param"),
        ({"offset": 1}, "invalid-param"),
        ([], "invalid-param"),
        ("x", "invalid-param"),
    ]
    peers = await arena.peers(len(odd))
    for peer, (since, code) in zip(peers, odd, strict=True):
        if code:
            await arena.refused(code, enter(peer, channel, since))
            await enter(peer, channel)
        else:
            answer = await enter(peer, channel, since)
            arena.equal(f"whether {since} is recovered", False, answer["recovered"])
            arena.equal(f"where {since} leads", end["offset"], answer["offset"])
    await write(arena, channel, 40)
    for peer in peers:
        await peer.has("n", 40)
        arena.equal(f"what {peer} heard", list(range(end["offset"] + 1, end["offset"] + 41)), offsets(peer, channel))


@scenario()
async def a_history_that_vanishes_is_told(arena: Arena) -> None:
    """When Redis loses a history under its members, each is told of the new epoch once, and hears what follows."""
    channel = "kept-gone"
    members = await arena.peers(16, channel)
    end = await write(arena, channel, 80)
    for member in members:
        await member.has("n", 80)
    await arena.redis.commands.delete(f"gateway:stream:{channel}", f"gateway:position:{channel}")
    fresh = await write(arena, channel, 40)
    arena.true("a new epoch", fresh["epoch"] != end["epoch"])
    for member in members:
        await member.has("n", 120)
        later = [m["offset"] for m in member.got if m["cmd"] == "n"][80:]
        arena.equal(f"what {member} heard in the new epoch", list(range(1, 41)), later)
        gaps = [gap for gap in member.params("$gap", channel) if gap.get("epoch") == fresh["epoch"]]
        arena.equal(f"gaps that {member} was told", [end["offset"]], [gap["since"]["offset"] for gap in gaps])
