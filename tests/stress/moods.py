"""A Redis that answers, but not as usual: full, read-only, forgetful, or tired of a reader."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.stress.arena import NODES, Arena
from tests.stress.checks import eventually
from tests.stress.history import offsets, write
from tests.stress.outages import all_served, write_on
from tests.stress.peer import Peer
from tests.stress.scenario import scenario


async def each_once(arena: Arena, members: list[Peer], channel: str, taken: dict[str, list[int]]) -> None:
    """Check that nothing came twice or out of order, and that who missed anything was told of a gap."""
    for member in members:
        for writer, numbers in taken.items():
            heard = list(dict.fromkeys(member.numbers(writer, channel)))
            arena.equal(f"the order of {writer} at {member}", sorted(heard), heard)
            missed = set(numbers) - set(heard)
            gaps = member.params("$gap", channel)
            arena.true(f"a gap told to {member}, which missed {sorted(missed)[:5]} of {writer}", not missed or gaps)


async def during(arena: Arena, channel: str, trouble: Callable[[], Awaitable[None]]) -> dict[str, list[int]]:
    """Write before, in and after some trouble; return what was taken, the last of it when all is well again."""
    stop = asyncio.Event()
    writing = asyncio.create_task(write_on(arena, channel, stop))
    await asyncio.sleep(0.2)
    await trouble()
    await all_served(arena)
    await asyncio.sleep(0.2)
    stop.set()
    return await writing


async def last_words(arena: Arena, members: list[Peer], channel: str) -> None:
    """Write something when all is well: it must come to everybody."""
    for node in arena.nodes:
        writer = await arena.peer(node)
        await writer.request("say", {"by": f"end of {node}", "count": 3}, channel)
    for member in members:
        for node in arena.nodes:
            heard = await member.hears(f"end of {node}", 3, channel)
            arena.equal(f"the last words of {node} at {member}", [0, 1, 2], heard)


@scenario()
async def a_stream_over_a_flush(arena: Arena) -> None:
    """When Redis is emptied again and again under a stream with history, what was lost is told and the rest comes."""
    members = await arena.peers(12, "kept-flushed")

    async def flush() -> None:
        for _ in range(4):
            await arena.redis.commands.flushall()
            await asyncio.sleep(arena.random.random() * 0.3)

    taken = await during(arena, "kept-flushed", flush)
    await last_words(arena, members, "kept-flushed")
    await each_once(arena, members, "kept-flushed", taken)


@scenario()
async def a_stream_over_restarts_without_data(arena: Arena) -> None:
    """When Redis loses its data by restarts under streams, what was lost is told and the rest comes, in order."""
    members = await arena.peers(12, "kept-lost", "lost")

    async def restart() -> None:
        for _ in range(2):
            await arena.redis.restart()
            await asyncio.sleep(arena.random.random() * 0.3)

    kept, plain = await asyncio.gather(during(arena, "kept-lost", restart), during(arena, "lost", _nothing))
    for channel, taken in (("kept-lost", kept), ("lost", plain)):
        await last_words(arena, members, channel)
        await each_once(arena, members, channel, taken)


async def _nothing() -> None:
    await asyncio.sleep(1)


@scenario()
async def histories_that_expire(arena: Arena) -> None:
    """Members of a channel whose history ran out hear what is written next, once; who resumes has no hidden hole."""
    channel = "brief-news"
    members = await arena.peers(8, channel)
    at = await write(arena, channel, 40)
    for turn in range(1, 4):
        key = f"gateway:stream:{channel}"
        await eventually("the history runs out", lambda: arena.redis.commands.exists(key), 0)  # noqa: B023
        since = {"since": {"epoch": at["epoch"], "offset": at["offset"]}}
        back = await arena.peer()
        answer = await back.request("$join", since, channel)
        fresh = await write(arena, channel, 40)
        for member in members:
            await member.has("n", 40 * (turn + 1))
            arena.equal(f"messages of {member}", 40 * (turn + 1), len(member.params("n")))
        await back.has("n", 40)
        arena.equal(f"messages of {back}", 40, len(back.params("n")))
        same_epoch = fresh["epoch"] == at["epoch"]
        arena.true("a position that was recovered to go on", not answer["recovered"] or same_epoch)
        if same_epoch:
            arena.equal("offsets", list(range(at["offset"] + 1, fresh["offset"] + 1)), offsets(back, channel))
        at = fresh


@scenario()
async def redis_drops_a_reader_that_is_behind(arena: Arena) -> None:
    """A node whose subscription Redis ends because it read too slowly recovers histories and tells of other gaps."""
    node, commands = arena.nodes[1], arena.redis.commands
    await commands.config_set("client-output-buffer-limit", "pubsub 300000 300000 0")
    here, others = [await arena.peer(node, "kept-wide", "wide") for _ in range(4)], await arena.peers(4, "kept-wide")
    writer = await arena.peer(arena.nodes[0])
    node.freeze()
    before = len([link for link in await arena.redis.links() if node.id in link["name"]])
    said = 0
    while len([link for link in await arena.redis.links() if node.id in link["name"]]) == before:
        for channel in ("wide", "kept-wide"):
            await writer.request("say", {"by": "w", "first": said, "count": 10, "also": {"x": "y" * 20_000}}, channel)
        said += 10
        arena.count(messages=20)
    node.thaw()
    await all_served(arena)
    await commands.config_set("client-output-buffer-limit", "pubsub 33554432 8388608 60")
    for channel in ("wide", "kept-wide"):
        await writer.request("say", {"by": "end"}, channel)
    for peer in here + others:
        arena.equal(f"the history at {peer}", list(range(said)), await peer.hears("w", said, "kept-wide"))
        await peer.hears("end", 1, "kept-wide")
    for peer in here:
        await peer.hears("end", 1, "wide")
        heard = peer.numbers("w", "wide")
        arena.equal(f"the order at {peer}", sorted(set(heard)), heard)
        arena.true(f"a gap told to {peer}", len(heard) == said or peer.params("$gap", "wide"))


async def are_of_one_mind(arena: Arena, members: list[Peer], comers: list[Peer], channels: tuple[str, ...]) -> None:
    """Check that those who were there and those who came meanwhile are stored and hear what is written."""
    for peer in comers:
        await peer.opened()
    for channel in channels:
        await arena.set_becomes(f"members:{channel}", {peer.id for peer in members + comers})
        await last_words(arena, members + comers, channel)


@scenario(complaints=("Redis refused", "OOM"))
async def redis_is_full(arena: Arena) -> None:
    """While Redis takes no more data clients are told, or wait; when it does, joins and histories are right."""
    members = await arena.peers(8, "kept-full", "full")
    commands = arena.redis.commands

    async def fill() -> None:
        await commands.config_set("maxmemory", 1)
        await asyncio.sleep(1)
        comers.extend(await arena.peers(8, "kept-full", "full", wait=False))
        await asyncio.sleep(0.5)
        await commands.config_set("maxmemory", 0)

    comers: list[Peer] = []
    taken = await during(arena, "kept-full", fill)
    await are_of_one_mind(arena, members, comers, ("kept-full", "full"))
    await each_once(arena, members, "kept-full", taken)


@scenario(complaints=("Redis refused", "READONLY"))
async def redis_is_read_only(arena: Arena) -> None:
    """While Redis is somebody's replica and takes no writes, these wait; after that all is stored and delivered."""
    members = await arena.peers(8, "kept-read", "read")
    commands = arena.redis.commands

    async def demote() -> None:
        await commands.config_set("replica-read-only", "yes")
        await commands.replicaof("127.0.0.1", "1")
        comers.extend(await arena.peers(8, "kept-read", "read", wait=False))
        await asyncio.sleep(1)
        await commands.replicaof("NO", "ONE")

    comers: list[Peer] = []
    taken = await during(arena, "kept-read", demote)
    await are_of_one_mind(arena, members, comers, ("kept-read", "read"))
    await each_once(arena, members, "kept-read", taken)


@scenario()
async def one_node_is_cut_off_again_and_again(arena: Arena) -> None:
    """While one node's links alone are cut, members on the others miss nothing at all, and its own recover."""
    node, stop = arena.nodes[2], asyncio.Event()
    others = [await arena.peer(each, "one", "kept-one") for each in arena.nodes if each is not node for _ in range(3)]
    own = [await arena.peer(node, "kept-one") for _ in range(4)]
    writers = [await arena.peer(each) for each in arena.nodes if each is not node]

    async def speak(writer: Peer) -> int:
        number = 0
        while not stop.is_set():
            await writer.request("say", {"by": writer.id, "first": number}, "one")
            await writer.request("say", {"by": writer.id, "first": number}, "kept-one")
            number += 1
        arena.count(messages=2 * number)
        return number

    speaking = [asyncio.create_task(speak(writer)) for writer in writers]
    for _ in range(10):
        arena.count(links=await arena.redis.kill_links(f"{node.id}"))
        await asyncio.sleep(arena.random.random() * 0.3)
    stop.set()
    counts = await asyncio.gather(*speaking)
    for writer, count in zip(writers, counts, strict=True):
        for peer in others:
            arena.equal(f"{writer} at {peer}", list(range(count)), await peer.hears(writer.id, count, "one"))
        for peer in others + own:
            await peer.hears(writer.id, count, "kept-one")
            heard = list(dict.fromkeys(peer.numbers(writer.id, "kept-one")))
            arena.equal(f"{writer} at {peer}, history", list(range(count)), heard)
    arena.equal("nodes", NODES, len(await arena.redis.members("nodes")))
