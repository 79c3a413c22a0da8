"""Users with many tabs, on many nodes: reached in each, announced once, ended from anywhere."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from functools import partial

from tests.stress.arena import NODES, Arena, in_turn
from tests.stress.checks import eventually
from tests.stress.node import Node
from tests.stress.peer import Peer, Refused
from tests.stress.scenario import scenario


def updates(watcher: Peer, channel: str) -> dict[str, list[bool]]:
    """Return what was announced of each user."""
    found: dict[str, list[bool]] = defaultdict(list)
    for param in watcher.params("online-update", channel):
        found[param["userID"]].append(param["connected"])
    return found


def alternates(told: list[bool]) -> bool:
    """Tell whether somebody came, went, came, ... each once."""
    return told == [turn % 2 == 0 for turn in range(len(told))]


@scenario()
async def every_tab_hears_what_its_user_is_told(arena: Arena) -> None:
    """What is written to a user, by any node, comes to each of its tabs once, and to nobody else's."""
    users = [f"user-{number}" for number in range(12)]
    tabs = {user: await arena.peers(arena.random.randrange(1, 7), user=user) for user in users}
    writers = [await arena.peer(node) for node in arena.nodes]
    for number in range(10):
        told = {"cmd": "mail", "param": number}
        await asyncio.gather(
            *(writers[(number + i) % NODES].request("tell-user", told | {"to": user}) for i, user in enumerate(users))
        )
    arena.count(messages=10 * len(users))
    for peers in tabs.values():
        for peer in peers:
            await peer.has("mail", 10)
    await asyncio.gather(*(peer.settled() for peers in tabs.values() for peer in peers))
    for user, peers in tabs.items():
        for peer in peers:
            arena.equal(f"mail of {user} at {peer}", list(range(10)), sorted(peer.params("mail")))


@scenario(quick=True)
async def tabs_open_and_close_all_at_once(arena: Arena) -> None:
    """However the tabs of users come and go, each user is announced once per coming and going, and ends up right."""
    channel, users = "desk", [f"tabber-{number}" for number in range(10)]
    watchers = await arena.peers(4, channel)
    final: dict[str, list[Peer]] = {user: [] for user in users}

    async def use(number: int) -> None:
        user = users[number % len(users)]
        peer = await arena.peer(None, channel, user=user)
        for _ in range(arena.random.randrange(4)):
            await peer.request("$leave", None, channel)
            await peer.request("$join", None, channel)
        if number % 3:
            peer.abort() if number % 2 else await peer.close()
        else:
            final[user].append(peer)

    await in_turn(use, range(90))
    online = {user for user, peers in final.items() if peers}
    await arena.set_becomes(f"online:{channel}", online | {watcher.id for watcher in watchers})
    for user, peers in final.items():
        await arena.set_becomes(f"user:{user}:connections", {peer.id for peer in peers})
    await watchers[0].request("say", {"by": "end"}, channel)
    for watcher in watchers:
        await watcher.hears("end", 1)
        told = updates(watcher, channel)
        for user in users:
            arena.true(f"{user} to come and go in turn at {watcher}, got {told[user]}", alternates(told[user]))
            arena.equal(f"whether {user} is there, at {watcher}", user in online, len(told[user]) % 2 == 1)


@scenario()
async def one_connection_is_reached_from_every_node(arena: Arena) -> None:
    """What one node writes to a connection of another comes there alone, in order; who is gone is not found."""
    peers = await arena.peers(16, mixed=False)
    writers = [await arena.peer(node) for node in arena.nodes]

    async def write(writer: Peer) -> None:
        for number in range(20):
            for peer in peers:
                told = {"by": writer.id, "n": number, "for": peer.id}
                await writer.send("tell", {"cmd": "n", "param": told, "to": peer.id})
        await writer.settled()

    await asyncio.gather(*map(write, writers))
    arena.count(messages=20 * len(peers) * len(writers))
    for peer in peers:
        for writer in writers:
            arena.equal(f"{peer} from {writer}", list(range(20)), await peer.hears(writer.id, 20))
        arena.equal(f"for whom {peer} heard", {peer.id}, {param["for"] for param in peer.params("n")})
    gone = peers[0]
    await gone.close()
    for writer in writers:
        await eventually("it is gone", partial(refusal, writer, gone.id), "invalid-param")
        await arena.refused("invalid-param", writer.request("tell", {"cmd": "n", "to": "no-node~1234567890"}))
        await arena.refused("invalid-param", writer.request("tell", {"cmd": "n", "to": "nonsense"}))


async def refusal(writer: Peer, id: str) -> str:
    try:
        await writer.request("tell", {"cmd": "n", "to": id})
    except Refused as refused:
        return refused.code
    return ""


@scenario(quick=True)
async def connections_are_ended_from_other_nodes(arena: Arena) -> None:
    """Connections ended by the API of any node close with the code asked for, once, and are found no more."""
    peers = await arena.peers(24, "court", user="defendant")
    codes = [4410, 1012, 4000, 1008]

    async def end(number: int) -> None:
        peer, code = peers[number], codes[number % len(codes)]
        path = f"/api/connections/{peer.id}" + ("" if code == 4410 else f"?code={code}&reason=over")
        asked = await asyncio.gather(*(node.ask("DELETE", path) for node in arena.nodes))
        arena.true("one node to end it and the others to end it or not find it", {s for s, _ in asked} <= {204, 404})
        arena.true("one to have ended it", 204 in {status for status, _ in asked})
        arena.equal(f"close code of {peer}", code, await peer.wait_end())
        for node in arena.nodes:
            await eventually("404", partial(not_found, node, peer.id))

    await in_turn(end, range(len(peers)))
    await arena.set_becomes("members:court", ())
    arena.count(ended=len(peers))


async def not_found(node: Node, id: str) -> bool:
    status, _ = await node.ask("GET", f"/api/connections/{id}")
    return bool(status == 404)


@scenario()
async def everybody_but_some_hears_a_broadcast(arena: Arena) -> None:
    """What is written to everyone comes to each connection of all nodes once, those excluded excepted."""
    peers = await arena.peers(48, mixed=True)
    writers = [await arena.peer(node) for node in arena.nodes]
    out = {peer.id for peer in arena.random.sample([p for p in peers if p.id], 8)}
    for number in range(20):
        told = {"cmd": "n", "param": {"by": "all", "n": number}, "exclude": sorted(out)}
        await writers[number % NODES].request("tell-all", told)
    await writers[0].request("tell-all", {"cmd": "over"})
    for peer in peers:
        await peer.wait_for("over")
        if peer.id not in out:
            await peer.hears("all", 20)
        arena.equal(f"what {peer} heard", [] if peer.id in out else list(range(20)), sorted(peer.numbers("all")))
    arena.count(messages=21)


@scenario()
async def a_user_may_have_so_many_connections(arena: Arena) -> None:
    """Of many connections that a user opens at once on two nodes, exactly as many are let in as may be."""
    nodes = [await arena.extra(max_connections_per_user=5) for _ in range(2)]
    for turn in range(3):
        admitted: list[Peer] = []

        async def connect(number: int) -> str:
            try:
                admitted.append(await arena.peer(nodes[number % 2], "few", user="greedy"))  # noqa: B023
                return "101"
            except Refused as refused:
                return refused.code

        codes = await asyncio.gather(*map(connect, range(30)))
        arena.equal(f"refusals in round {turn}", ["101"] * 5 + ["429"] * 25, sorted(codes))
        await arena.set_becomes("user:greedy:connections", {peer.id for peer in admitted})
        await asyncio.gather(*(peer.close() for peer in admitted))
        await arena.set_becomes("user:greedy:connections", ())
        arena.count(refused=25)


@scenario()
async def places_of_a_dead_node_are_free_again(arena: Arena) -> None:
    """A user whose connections were on a node that was killed may have as many again once it is reaped, no more."""
    nodes = [await arena.extra(max_connections_per_user=4) for _ in range(2)]
    for _ in range(4):
        await arena.peer(nodes[0], "few", user="mover")
    await arena.refused("429", arena.peer(nodes[1], "few", user="mover"))
    await nodes[0].kill()
    await arena.set_becomes("user:mover:connections", ())
    inside = [await arena.peer(nodes[1], "few", user="mover") for _ in range(4)]
    await arena.refused("429", arena.peer(nodes[1], "few", user="mover"))
    await arena.set_becomes("members:few", {peer.id for peer in inside})


@scenario()
async def lost_users_have_a_grace(arena: Arena) -> None:
    """With a grace, who breaks off and comes back is not announced; who leaves is at once, who stays away is later."""
    nodes = [await arena.extra(presence_grace=2) for _ in range(2)]
    watcher = await arena.peer(nodes[0], "porch")
    names = [f"guest-{number}" for number in range(12)]
    guests = {name: await arena.peer(nodes[n % 2], "porch", user=name) for n, name in enumerate(names)}
    await watcher.has("online-update", 12)
    returning, leaving, lost = names[:4], names[4:8], names[8:]
    for name in returning:
        guests[name].abort()
        await arena.peer(nodes[0], "porch", user=name)
    for name in lost:
        guests[name].abort()
    for name in leaving:
        await guests[name].request("$leave", None, "porch")
    await arena.set_becomes("online:porch", {watcher.id, *returning})
    await watcher.has("online-update", 20)
    await eventually("nobody leaves any more", lambda: arena.redis.keys("gateway:leaving*"), set())
    told = updates(watcher, "porch")
    for name in names:
        arena.equal(f"announced of {name}", [True] if name in returning else [True, False], told[name])
    await arena.close_all()
    await eventually("nobody leaves any more", lambda: arena.redis.keys("gateway:leaving*"), set())


@scenario()
async def a_crowd_is_counted_not_named(arena: Arena) -> None:
    """Above presence_max a channel tells a count instead of names, and the last count is right."""
    nodes = [await arena.extra(presence_max=10) for _ in range(2)]
    watcher = await arena.peer(nodes[0], "stadium")
    crowd = await in_turn(lambda n: arena.peer(nodes[n % 2], "stadium", user=f"fan-{n}"), range(60))
    await watcher.until("a count of 61", lambda: {"count": 61} in watcher.params("online-count"))
    arena.true("few counts for many joins", len(watcher.params("online-count")) <= 60)
    arena.true("no more names than presence_max", len(watcher.params("online-update")) <= 10)
    answer = await watcher.request("$presence", None, "stadium")
    arena.equal("presence of a crowd", {"count": 61}, answer)
    for fan in crowd[:55]:
        fan.abort()
    await arena.set_becomes("members:stadium", {watcher.id, *(fan.id for fan in crowd[55:])})
    answer = await watcher.request("$presence", None, "stadium")
    arena.equal("presence of the rest", 6, len(answer["users"]))
