"""Nodes drained, killed, frozen and started again: clients go elsewhere, and what is left is cleaned up once."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

from gateway.client import connect
from tests.stress.arena import NODES, Arena, in_turn
from tests.stress.checks import eventually
from tests.stress.node import Node
from tests.stress.peer import Peer, Refused, token
from tests.stress.scenario import scenario
from tests.stress.users import alternates, updates

FOREIGN = "another process calls itself node"


async def clean_of(arena: Arena, node: Node) -> None:
    """Wait until Redis holds nothing of a node."""
    await eventually(f"what {node} left", lambda: leftovers(arena, node), set())


async def leftovers(arena: Arena, node: Node) -> set[str]:
    found = await arena.redis.keys(f"gateway:connection:{node.id}~*")
    found |= await arena.redis.keys(f"gateway:node:{node.id}:*")
    for key in await arena.redis.keys("gateway:members:*"):
        members = await arena.redis.members(key.removeprefix("gateway:"))
        found |= {member for member in members if member.startswith(f"{node.id}~")}
    return found


@scenario(quick=True)
async def a_node_drains_while_clients_join(arena: Arena) -> None:
    """A node that is stopped under a rush of clients closes all with 1012 or refuses with 503, and leaves nothing."""
    node = arena.nodes[1]
    watcher = await arena.peer(arena.nodes[0], "rush")
    settled = [await arena.peer(node, "rush", user=f"settled-{number}") for number in range(20)]
    coming: list[Peer] = []
    refused: Counter[str] = Counter()

    async def rush(number: int) -> None:
        await asyncio.sleep(arena.random.random() * 0.3)
        try:
            peer = await arena.peer(node, "rush", user=f"rusher-{number}")
            coming.append(peer)
            await peer.request("$join", None, "rush-too")
        except Refused as refusal:
            refused[refusal.code] += 1
        except OSError:
            refused["no port"] += 1

    rushing = asyncio.gather(*map(rush, range(60)))
    await eventually("some who are in", lambda: len(coming) > arena.random.randrange(30))
    stopping = asyncio.create_task(node.stop())
    await rushing
    arena.equal("the exit code", 0, await stopping)
    for peer in settled + coming:
        arena.equal(f"the end of {peer}", 1012, await peer.wait_end())
        arena.true(f"a time to come back, got {peer.reason!r}", "retry_after=" in peer.reason)
    arena.true(f"refusals with 503, got {dict(refused)}", set(refused) <= {"503", "no port", "closed 1012"})
    await clean_of(arena, node)
    await arena.set_becomes("online:rush", {watcher.id})
    await watcher.request("say", {"by": "end"}, "rush")
    await watcher.hears("end", 1, "rush")
    for user, told in updates(watcher, "rush").items():
        arena.true(f"{user} to come and go once each, got {told}", told == [True, False])
    arena.count(refused=sum(refused.values()))


async def sees_all(watcher: Peer, users: list[str]) -> None:
    await watcher.until("everybody", lambda: set(users) <= set(updates(watcher, "wake")))


@scenario()
async def two_nodes_die_and_two_reap(arena: Arena) -> None:
    """Of two nodes killed at once the two others remove everything, and each user is announced gone once."""
    dead, alive = arena.nodes[:2], arena.nodes[2:]
    watchers = [await arena.peer(node, "wake") for node in alive]
    users = [f"soul-{number}" for number in range(30)]
    for number, user in enumerate(users):
        await arena.peer(dead[number % 2], "wake", user=user)
        if number % 3 == 0:
            await arena.peer(dead[(number + 1) % 2], "wake", user=user)
    saved = [await arena.peer(alive[number % 2], "wake", user=users[number]) for number in range(0, 30, 5)]
    for watcher in watchers:
        await sees_all(watcher, users)
    await asyncio.gather(*(node.kill() for node in dead))
    await arena.set_becomes("nodes", {node.id for node in alive})
    for node in dead:
        await clean_of(arena, node)
    await arena.set_becomes("online:wake", {*(w.id for w in watchers), *users[::5]})
    await watchers[0].request("say", {"by": "end"}, "wake")
    for watcher in watchers:
        await watcher.hears("end", 1)
        told = updates(watcher, "wake")
        for number, user in enumerate(users):
            arena.equal(f"told of {user}", [True] if number % 5 == 0 else [True, False], told[user])
    for peer in saved:
        await peer.settled()
    await asyncio.gather(*(node.start() for node in dead))


@scenario()
async def a_node_id_is_used_again_at_once(arena: Arena) -> None:
    """A node killed and started again under its id removes its ghosts, announces them gone once, and serves."""
    node = arena.nodes[0]
    watcher = await arena.peer(arena.nodes[1], "again")
    for turn in range(3):
        users = [f"ghost-{turn}-{number}" for number in range(10)]
        for user in users:
            await arena.peer(node, "again", user=user)
        await arena.set_becomes("online:again", {watcher.id, *users})
        await node.kill()
        await node.start()
        await clean_of(arena, node)
        fresh = await arena.peer(node, "again", user=users[0])
        await fresh.request("say", {"by": users[0]}, "again")
        await watcher.hears(users[0], 1)
        await fresh.close()
        await arena.set_becomes("online:again", {watcher.id})
        await (await arena.peer()).request("say", {"by": f"end-{turn}"}, "again")
        await watcher.hears(f"end-{turn}", 1)
        for user in users:
            told = updates(watcher, "again")[user]
            twice = [True, False] * (2 if user == users[0] else 1)
            arena.equal(f"told of {user}", twice, told)


@scenario(complaints=(FOREIGN,))
async def two_nodes_of_one_id(arena: Arena) -> None:
    """A second process of the same id does not start, and harms nothing; one that took over a frozen node's id lives
    beside it when that one thaws, and neither removes what the other holds."""
    node = arena.nodes[2]
    peers = [await arena.peer(node, "twins", user=f"twin-{number}") for number in range(10)]
    refused = await arena.extra(id=node.id, wait=False)
    arena.equal("the exit code of the second", 1, await refused.ended())
    node.freeze()
    await eventually("the lease of a frozen node runs out", partial(_is_gone, arena, f"gateway:node:{node.id}"))
    other = await arena.extra(id=node.id)
    stranger = await arena.peer(other, "twins")
    node.thaw()
    members = {peer.id for peer in peers} | {stranger.id}
    await arena.set_becomes("members:twins", members)
    await arena.set_becomes(f"node:{node.id}:connections", members)
    for each in (node, other):
        await eventually(f"{each} says so", partial(_says_so, each))
    arena.equal("the exit code of the other", 0, await other.stop())
    await arena.set_becomes("members:twins", {peer.id for peer in peers})
    await eventually("the nodes", lambda: arena.redis.members("nodes"), {each.id for each in arena.nodes})
    await (await arena.peer()).request("say", {"by": "end"}, "twins")
    for peer in peers:
        arena.equal(f"the end at {peer}", [0], await peer.hears("end", 1))


async def _is_gone(arena: Arena, key: str) -> bool:
    return not await arena.redis.commands.exists(key)


async def _says_so(node: Node) -> bool:
    return FOREIGN in str((await node.ask("GET", "/readyz"))[1])


@scenario()
async def a_frozen_node_comes_back(arena: Arena) -> None:
    """A node that stands still past its lease is reaped; when it goes on it is whole, and its users are told back."""
    node = arena.nodes[3]
    watcher = await arena.peer(arena.nodes[0], "winter")
    sleepers = [await arena.peer(node, "winter", user=f"sleeper-{number}") for number in range(10)]
    users = [f"sleeper-{number}" for number in range(10)]
    await arena.set_becomes("online:winter", {watcher.id, *users})
    node.freeze()
    await arena.set_becomes("online:winter", {watcher.id})
    node.thaw()
    await arena.set_becomes("online:winter", {watcher.id, *users})
    await arena.set_becomes("members:winter", {watcher.id, *(peer.id for peer in sleepers)})
    await watcher.request("say", {"by": "w", "count": 10}, "winter")
    for peer in [*sleepers, watcher]:
        arena.equal(f"what {peer} heard", list(range(10)), await peer.hears("w", 10))
    for user in users:
        arena.true(f"{user} to come and go in turn", alternates(updates(watcher, "winter")[user]))
        arena.equal(f"told of {user}", [True, False, True], updates(watcher, "winter")[user])


@scenario()
async def followers_through_rolling_restarts(arena: Arena) -> None:
    """While one node after the other is drained and killed, clients that come back by themselves miss nothing."""
    channel, done = "kept-rolling", asyncio.Event()
    alive = arena.nodes[0]

    async def write() -> int:
        writer, number = await arena.peer(alive), 0
        while not done.is_set():
            await writer.request("say", {"by": "w", "first": number}, channel)
            number += 1
            await asyncio.sleep(0.01)
        await writer.request("say", {"by": "w", "first": -1}, channel)
        arena.count(messages=number + 1)
        return number

    async def follow(number: int) -> list[int]:
        nodes = arena.nodes[1 + number % 3 :] + arena.nodes[: 1 + number % 3]
        turn = iter(range(10_000))

        def shown() -> str:
            return token(f"follower-{number}", channels=["*"])

        client = connect(nodes[next(turn) % NODES].url(), token=shown, first_delay=0.05, max_delay=0.2)
        async with client:
            messages = client.messages(channel, limit=100_000)
            await client.join(channel)
            started.append(number)
            heard: list[int] = []
            async for message in messages:
                if message.cmd == "$gap":
                    heard.append(-2)
                elif message.cmd == "n" and message.param["n"] < 0:
                    break
                elif message.cmd == "n":
                    heard.append(message.param["n"])
            return heard

    started: list[int] = []
    following = [asyncio.create_task(follow(number)) for number in range(12)]
    await eventually("followers", lambda: len(started), 12)
    writing = asyncio.create_task(write())
    for node in arena.nodes[1:]:
        if arena.random.random() < 0.5:
            await node.kill()
        else:
            arena.equal("the exit code", 0, await node.stop())
        await node.start()
    done.set()
    last = await writing
    for heard in await asyncio.gather(*following):
        arena.equal("what a follower heard", list(range(last)), heard)


@scenario()
async def nodes_come_while_others_go(arena: Arena) -> None:
    """Under traffic two nodes are added and taken away again; members of those that stay miss nothing."""
    members = await arena.peers(12, "scaling")
    writer = await arena.peer(arena.nodes[0])
    stop = asyncio.Event()

    async def write() -> int:
        number = 0
        while not stop.is_set():
            await writer.request("say", {"by": "w", "first": number, "count": 5}, "scaling")
            number += 5
        return number

    writing = asyncio.create_task(write())
    for _ in range(2):
        extra = await asyncio.gather(arena.extra(), arena.extra())
        guests = await in_turn(lambda n: arena.peer(extra[n % 2], "scaling"), range(10))  # noqa: B023
        for guest in guests:
            await guest.has("n", 10)
            heard = guest.numbers("w")
            arena.equal(f"holes at {guest}", list(range(heard[0], heard[0] + len(heard))), heard)
        arena.equal("exit codes", [0, 0], list(await asyncio.gather(*(node.stop() for node in extra))))
        for guest in guests:
            arena.equal(f"the end of {guest}", 1012, await guest.wait_end())
    stop.set()
    count = await writing
    arena.count(messages=count)
    for member in members:
        arena.equal(f"what {member} heard", list(range(count)), await member.hears("w", count))


@scenario(complaints=("Redis is away",))
async def a_node_stops_while_redis_is_away(arena: Arena) -> None:
    """A node that is drained while Redis is gone or frozen ends with 0; the others remove what it could not."""
    watcher = await arena.peer(arena.nodes[0], "leaving")
    for node, is_frozen in ((arena.nodes[1], True), (arena.nodes[2], False)):
        peers = [await arena.peer(node, "leaving", user=f"{node.id}-{number}") for number in range(5)]
        if is_frozen:
            arena.redis.freeze()
        else:
            await arena.redis.stop(keep=True)
        arena.equal("the exit code", 0, await node.stop())
        for peer in peers:
            arena.equal(f"the end of {peer}", 1012, await peer.wait_end())
        if is_frozen:
            arena.redis.thaw()
        else:
            await arena.redis.start()
        await clean_of(arena, node)
    await arena.set_becomes("nodes", {arena.nodes[0].id, arena.nodes[3].id})
    await arena.set_becomes("online:leaving", {watcher.id})


@scenario(complaints=("no Redis at",))
async def a_node_starts_before_redis(arena: Arena) -> None:
    """A node that is started while Redis is away serves once it is there; one whose patience ends exits with 1."""
    await arena.redis.stop(keep=True)
    early = await arena.extra(wait=False)
    hasty = await arena.extra(wait=False, startup_timeout=1)
    arena.equal("the exit code of the hasty one", 1, await hasty.ended())
    arena.true("the other to wait", early.is_running)
    await arena.redis.start()
    await early.ready()
    peer = await arena.peer(early, "dawn")
    await arena.set_becomes("members:dawn", {peer.id})
