"""Messages to channels: all of them, once, in order, whoever comes and goes."""

from __future__ import annotations

import asyncio
import itertools

from tests.stress.arena import NODES, Arena
from tests.stress.peer import JSON, MSGPACK, Peer, Refused
from tests.stress.scenario import scenario


async def write_everywhere(arena: Arena, channel: str, count: int) -> list[str]:
    """Let one client of each node write numbered messages to a channel, all at the same time; return who wrote."""
    writers = [await arena.peer(node) for node in arena.nodes]
    await asyncio.gather(*(writer.request("say", {"by": writer.id, "count": count}, channel) for writer in writers))
    arena.count(messages=count * NODES)
    return [writer.id for writer in writers]


async def have_all(arena: Arena, members: list[Peer], channel: str, by: list[str], count: int) -> None:
    """Check that each member has every message of every writer once, in the writer's order."""
    for member in members:
        for writer in by:
            heard = await member.hears(writer, count, channel)
            arena.equal(f"what {member} heard of {writer}", list(range(count)), heard)


def sequence(member: Peer, channel: str) -> list[tuple[str, int]]:
    """Return who wrote what, in the order in which it came."""
    return [(param["by"], param["n"]) for param in member.params("n", channel)]


@scenario(quick=True)
async def everyone_hears_everything_once(arena: Arena) -> None:
    """Members of all nodes and protocols hear every message of four writers once, and all in the same order."""
    members = await arena.peers(36, "lobby", mixed=True)
    by = await write_everywhere(arena, "lobby", 100)
    await have_all(arena, members, "lobby", by, 100)
    first = sequence(members[0], "lobby")
    for member in members:
        arena.equal(f"order at {member.id}", first, sequence(member, "lobby"))


@scenario(quick=True)
async def members_stay_while_others_come_and_go(arena: Arena) -> None:
    """Who is in a channel misses nothing while others join, leave, connect and break off all the time."""
    members = await arena.peers(12, "busy", mixed=True)
    stop = asyncio.Event()

    async def churn(number: int) -> None:
        for turn in itertools.count():
            if stop.is_set():
                return
            passer = await arena.peer(arena.nodes[(number + turn) % NODES], *(("busy",) if turn % 2 else ()))
            await passer.request("$join", None, "busy")
            if turn % 3 == 0:
                await passer.request("$leave", None, "busy")
            if turn % 3 == 1:
                passer.abort()
            else:
                await passer.close()

    churning = [asyncio.create_task(churn(number)) for number in range(6)]
    try:
        by = await write_everywhere(arena, "busy", 150)
        await have_all(arena, members, "busy", by, 150)
    finally:
        stop.set()
        await asyncio.gather(*churning)


@scenario()
async def who_joins_hears_a_run_without_holes(arena: Arena) -> None:
    """Who joins a stream and leaves it hears a run without holes, from the answer to the join on."""
    writer = await arena.peer(arena.nodes[0])
    done = asyncio.Event()

    async def write() -> None:
        for first in itertools.count(0, 10):
            await writer.request("say", {"by": "w", "first": first, "count": 10}, "flow")
            if done.is_set():
                return arena.count(messages=first + 10)

    async def visit(number: int) -> None:
        guest = await arena.peer(arena.nodes[number % NODES], protocol=(JSON, MSGPACK)[number % 2])
        for _ in range(5):
            guest.got.clear()
            await guest.request("$join", None, "flow")
            await guest.wait_for("n")
            await guest.request("$leave", None, "flow")
            heard = guest.numbers("w")
            arena.equal(f"what {guest.id} heard", list(range(heard[0], heard[0] + len(heard))), heard)
            left = len(guest.got)
            await guest.settled()
            arena.equal("messages after leaving", left, len(guest.got))

    writing = asyncio.create_task(write())
    await asyncio.gather(*(visit(number) for number in range(16)))
    done.set()
    await writing


@scenario(quick=True)
async def joining_and_leaving_at_speed_ends_as_the_last_word(arena: Arena) -> None:
    """Clients that join and leave the same channels without waiting end where their last command says."""
    peers = await arena.peers(16)

    async def hesitate(peer: Peer) -> set[str]:
        wanted: set[str] = set()
        for _ in range(60):
            channel = f"door-{arena.random.randrange(5)}"
            verb = arena.random.choice(("$join", "$leave"))
            (wanted.add if verb == "$join" else wanted.discard)(channel)
            await peer.send(verb, None, channel)
        await peer.settled()
        arena.count(commands=60)
        return wanted

    wanted = await asyncio.gather(*map(hesitate, peers))
    for peer, channels in zip(peers, wanted, strict=True):
        arena.equal(f"channels of {peer.id}", channels, set(await peer.request("channels")))
    for number in range(5):
        channel = f"door-{number}"
        inside = {peer.id for peer, channels in zip(peers, wanted, strict=True) if channel in channels}
        await arena.set_becomes(f"members:{channel}", inside)
        await peers[0].request("say", {"by": "end"}, channel)
    for peer, channels in zip(peers, wanted, strict=True):
        for number in range(5):
            channel = f"door-{number}"
            if channel in channels:
                await peer.hears("end", 1, channel)
            else:
                arena.equal(f"messages of {channel}, which {peer.id} left", [], peer.numbers("end", channel))


@scenario()
async def server_and_client_move_the_same_connection(arena: Arena) -> None:
    """The client's joins and leaves beside those of three other nodes leave hub, Redis and delivery of one mind."""
    peers = await arena.peers(8)
    movers = [await arena.peer(node) for node in arena.nodes]
    channels = ["tug", "tug-of-war", "kept-tug"]

    async def tug(peer: Peer, seed: int) -> None:
        for turn in range(40):
            channel, joins = channels[(seed + turn) % 3], arena.random.random() < 0.5
            try:
                if turn % 2:
                    await peer.request("$join" if joins else "$leave", None, channel)
                else:
                    mover = arena.random.choice(movers)
                    await mover.request("put" if joins else "take", {"id": peer.id, "channel": channel})
            except Refused as refused:  # a leave was quicker than the join
                arena.true(f"a join that was overtaken, got {refused}", "left before" in str(refused))
            arena.count(commands=1)

    await asyncio.gather(*(tug(peer, seed) for peer in peers for seed in range(3)))
    for channel in channels:
        held = {peer.id for peer in peers if channel in await peer.request("channels")}
        await arena.set_becomes(f"members:{channel}", held)
        await movers[0].request("say", {"by": "end"}, channel)
        await movers[0].request("tell-all", {"cmd": "over", "param": channel})
        for peer in peers:
            await peer.wait_for("over", channel)
            arena.equal(f"{peer.id} in {channel}", [0] * (peer.id in held), peer.numbers("end", channel))


@scenario(quick=True)
async def a_join_is_answered_when_it_holds(arena: Arena) -> None:
    """However many join the same connection at once, each is answered when messages come and the set has it."""
    peers = await arena.peers(6)
    movers = [await arena.peer(node) for node in arena.nodes]

    async def join(peer: Peer, channel: str, number: int) -> None:
        if number == len(movers):
            await peer.request("$join", None, channel)
        else:
            await movers[number].request("put", {"id": peer.id, "channel": channel})
        stored = peer.id in await arena.redis.members(f"members:{channel}")
        arena.equal(f"{peer.id} stored in {channel} when join {number} was answered", True, stored)
        word = f'{{"cmd":"at-once","param":"{peer.id} {number}"}}'
        await arena.redis.commands.publish(f"gateway:channel:{channel}", word)
        await peer.wait_for("at-once", f"{peer.id} {number}")

    for turn in range(10):
        order = arena.random.sample(range(len(movers) + 1), len(movers) + 1)
        await asyncio.gather(*(join(peer, f"five-{turn}", number) for peer in peers for number in order))
        arena.count(joins=len(order) * len(peers))


@scenario()
async def the_excluded_hear_nothing(arena: Arena) -> None:
    """A stream that leaves out other connections with every message reaches exactly the others, in order."""
    members = await arena.peers(24, "but", mixed=False)
    writer = await arena.peer(protocol=MSGPACK)
    expected: dict[str, list[int]] = {member.id: [] for member in members}
    for number in range(150):
        left_out = arena.random.sample(sorted(expected), arena.random.randrange(12))
        await writer.send("say", {"by": "w", "first": number, "exclude": left_out}, "but")
        for id in expected.keys() - set(left_out):
            expected[id].append(number)
    await writer.request("say", {"by": "end"}, "but")
    arena.count(messages=151)
    for member in members:
        await member.hears("end", 1)
        arena.equal(f"what {member.id} heard", expected[member.id], member.numbers("w"))


@scenario()
async def a_hundred_channels_each(arena: Arena) -> None:
    """Clients in as many channels as may be hear exactly those; one more is refused, and one left makes room."""
    names = [f"shelf-{number}" for number in range(160)]
    wanted = [arena.random.sample(names, 128) for _ in range(8)]
    peers = await arena.peers(8)
    await asyncio.gather(
        *(peer.request("$join", None, c) for peer, channels in zip(peers, wanted, strict=True) for c in channels)
    )
    for peer, channels in zip(peers, wanted, strict=True):
        other = next(name for name in names if name not in channels)
        await arena.refused("too-many-channels", peer.request("$join", None, other))
        await peer.request("$leave", None, channels[0])
        await peer.request("$join", None, other)
        channels[0] = other
    writer = await arena.peer()
    for name in names:
        await writer.send("say", {"by": "w"}, name)
    await writer.request("tell-all", {"cmd": "over"})
    arena.count(messages=len(names))
    for peer, channels in zip(peers, wanted, strict=True):
        await peer.wait_for("over")
        await peer.has("n", 128)
        heard = {message["channel"] for message in peer.got if message["cmd"] == "n"}
        arena.equal(f"channels that {peer.id} heard", set(channels), heard)
