"""Redis restarted, emptied, frozen and cut off, under every kind of work: nothing is lost that was promised."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from tests.stress.arena import NODES, Arena
from tests.stress.checks import eventually
from tests.stress.history import comes, offsets
from tests.stress.node import Node
from tests.stress.operators import Operator
from tests.stress.peer import Peer, Refused
from tests.stress.scenario import scenario


async def write_on(arena: Arena, channel: str, stop: asyncio.Event) -> dict[str, list[int]]:
    """Let a client of each node write until told to stop; return the numbers that each node took."""
    taken: dict[str, list[int]] = {}

    async def write(writer: Peer) -> None:
        number = 0
        while not stop.is_set():
            try:
                await writer.request("say", {"by": writer.id, "first": number}, channel)
                taken.setdefault(writer.id, []).append(number)
            except Refused as refused:
                arena.equal("the refusal", "unavailable", refused.code)
            number += 1
            arena.count(messages=1)

    await asyncio.gather(*[write(await arena.peer(node)) for node in arena.nodes])
    return taken


async def under_trouble(arena: Arena, channel: str, trouble: Callable[[], Awaitable[None]]) -> dict[str, list[int]]:
    """Write before, during and after some trouble; return what was taken."""
    stop = asyncio.Event()
    writing = asyncio.create_task(write_on(arena, channel, stop))
    try:
        await trouble()
        await all_served(arena)
    finally:
        stop.set()
    return await writing


async def all_served(arena: Arena) -> None:
    """Wait until every node hears and writes again."""
    for node in arena.all_nodes:
        probe = await arena.peer(node, "probe")
        await probe.request("say", {"by": probe.id}, "probe")
        await probe.hears(probe.id, 1, "probe")
        await probe.close()
        await eventually(f"{node} is well", partial(state, node), "ok")


async def state(node: Node) -> str:
    status, body = await node.ask("GET", "/readyz")
    return str(body["status"]) if status == 200 else str(status)


def complete(arena: Arena, members: list[Peer], channel: str, taken: dict[str, list[int]]) -> None:
    """Check that members have all that was taken, in order and once, and the same order everywhere."""
    first: list[Any] | None = None
    for member in members:
        by_offset = {m["offset"]: (m["param"]["by"], m["param"]["n"]) for m in member.got if "offset" in m}
        seen = offsets(member, channel)
        arena.equal(f"the order of offsets at {member}", sorted(seen), seen)
        order = [by_offset[offset] for offset in seen]
        for writer, numbers in taken.items():
            heard = [n for by, n in order if by == writer]
            arena.equal(f"{writer} at {member}, each once", sorted(set(heard)), heard)
            arena.equal(f"what was taken from {writer} and {member} missed", set(), set(numbers) - set(heard))
        first = order if first is None else first
        arena.equal(f"what {member} heard", first, order)


async def hear_out(arena: Arena, members: list[Peer], channel: str) -> None:
    """Let members hear everything up to now: a last word comes after all else."""
    last = await (await arena.peer()).request("say", {"by": "last", "cmd": "last"}, channel)
    for member in members:
        await comes(member, channel, last["offset"])


async def cut_links(arena: Arena) -> None:
    for _ in range(10):
        arena.count(links=await arena.redis.kill_links())
        await asyncio.sleep(arena.random.random() * 0.2)


@scenario(quick=True)
async def links_to_redis_are_cut_all_the_time(arena: Arena) -> None:
    """While every link to Redis is cut again and again, members of a history channel have all that was taken, once."""
    members = await arena.peers(12, "kept-cut")

    taken = await under_trouble(arena, "kept-cut", partial(cut_links, arena))
    await hear_out(arena, members, "kept-cut")
    complete(arena, members, "kept-cut", taken)


@scenario()
async def a_channel_without_history_tells_its_losses(arena: Arena) -> None:
    """While links are cut, plain channels keep order and double nothing; a node whose members missed any told a gap."""
    members = await arena.peers(12, "cut")

    taken = await under_trouble(arena, "cut", partial(cut_links, arena))
    await (await arena.peer()).request("say", {"cmd": "over"}, "cut")
    missed = 0
    for member in members:
        await member.wait_for("over")
        lost = 0
        for writer, numbers in taken.items():
            heard = member.numbers(writer, "cut")
            arena.equal(f"{writer} at {member}, each once and in order", sorted(set(heard)), heard)
            lost += len(set(numbers) - set(heard))
        arena.true(f"a gap told to {member}, which missed {lost}", not lost or member.params("$gap", "cut"))
        missed += lost
    arena.count(missed=missed)


@scenario()
async def redis_restarts_and_keeps_its_data(arena: Arena) -> None:
    """Through a restart of Redis that keeps its data nothing of a history is lost or doubled, nobody is announced."""
    members = await arena.peers(12, "kept-restart")
    await hear_out(arena, members, "kept-restart")
    for member in members:
        member.got.clear()

    async def restart() -> None:
        for _ in range(2):
            await asyncio.sleep(0.2)
            await arena.redis.restart(keep=True)

    taken = await under_trouble(arena, "kept-restart", restart)
    await hear_out(arena, members, "kept-restart")
    complete(arena, members, "kept-restart", taken)
    for member in members:
        arena.equal("announcements", [], member.params("online-update"))


@scenario(quick=True)
async def redis_loses_everything(arena: Arena) -> None:
    """After a restart without data, and after a flush, the nodes write all sets again and announce nobody."""
    peers = await arena.peers(24, "lobby", user="stayer")
    watcher = await arena.peer(None, "lobby")
    await arena.set_becomes("members:lobby", {peer.id for peer in [*peers, watcher]})
    for trouble in (arena.redis.restart, arena.redis.commands.flushall):
        await watcher.request("say", {"by": "before"}, "lobby")
        for peer in [*peers, watcher]:
            await peer.hears("before", 1)
            peer.got.clear()
        await trouble()
        await arena.set_becomes("members:lobby", {peer.id for peer in [*peers, watcher]})
        await arena.set_becomes("online:lobby", {"stayer", watcher.id})
        await arena.set_becomes("user:stayer:connections", {peer.id for peer in peers})
        await arena.set_becomes("nodes", {node.id for node in arena.nodes})
        await all_served(arena)
        await watcher.request("say", {"by": "w", "count": 20}, "lobby")
        for peer in [*peers, watcher]:
            arena.equal(f"what {peer} heard", list(range(20)), await peer.hears("w", 20, "lobby"))
            arena.equal(f"announcements to {peer}", [], peer.params("online-update", "lobby"))
            arena.equal(f"gaps of {peer} beyond one", [], peer.params("$gap", "lobby")[1:])


@scenario()
async def redis_stands_still(arena: Arena) -> None:
    """What is written while Redis is frozen waits and goes out in order: nothing is refused, lost or doubled."""
    members = await arena.peers(12, "ice", mixed=True)

    async def freeze() -> None:
        for _ in range(2):
            arena.redis.freeze()
            await asyncio.sleep(1)
            arena.redis.thaw()
            await asyncio.sleep(0.1)

    taken = await under_trouble(arena, "ice", freeze)
    await (await arena.peer()).request("say", {"cmd": "over"}, "ice")
    for member in members:
        await member.wait_for("over")
        for writer, numbers in taken.items():
            arena.equal(f"{writer} at {member}", numbers, member.numbers(writer, "ice"))


@scenario()
async def what_waits_for_redis_is_bounded(arena: Arena) -> None:
    """While Redis is away as much waits as may; the rest is refused at once and never comes, what waited comes once."""
    node = await arena.extra(publish_queue=100)
    member, writer = await arena.peer(node, "kept-bounded"), await arena.peer(node)
    await arena.redis.stop(keep=True)
    asking = asyncio.create_task(writer.request("say-at-once", {"by": "w", "count": 300}, "kept-bounded"))
    await eventually("what waits", lambda: node.metric("publish_queue_messages"), 100)
    await arena.redis.start()
    arena.equal("what became of it", {"Position": 100, "Unavailable": 200}, await asking)
    await writer.request("say", {"by": "after"}, "kept-bounded")
    await member.hears("after", 1)
    arena.equal("what came", list(range(100)), member.numbers("w"))
    arena.count(messages=301)


@scenario()
async def what_failed_is_never_sent(arena: Arena) -> None:
    """Writes and joins past publish_timeout fail with unavailable, and are not made when Redis is back."""
    node = await arena.extra(publish_timeout=1)
    member, writer = await arena.peer(node, "late"), await arena.peer(node)
    await arena.redis.stop(keep=True)
    said = await writer.request("say-at-once", {"by": "w", "count": 50}, "late")
    arena.equal("what became of it", {"Unavailable": 50}, said)
    await arena.refused("unavailable", writer.request("$join", None, "late"))
    await arena.refused("unavailable", writer.request("$join", None, "kept-late"))
    await arena.redis.start()
    await all_served(arena)
    await writer.request("say", {"by": "after"}, "late")
    await member.hears("after", 1)
    arena.equal("what came of what failed", [], member.numbers("w"))
    arena.equal("channels after failed joins", [], await writer.request("channels"))
    await arena.set_becomes("members:late", {member.id})


@scenario()
async def clients_come_and_go_while_redis_is_away(arena: Arena) -> None:
    """Clients that connect during an outage are let in and joined when it is over; who went is gone from all sets."""
    stay, go = await arena.peers(8, "open", user="stay"), await arena.peers(8, "open", user="go")
    await arena.redis.stop(keep=True)
    come = await arena.peers(8, "open", user="come", wait=False)
    for peer in go:
        await peer.close()
    passers = await arena.peers(8, "open", user="pass", wait=False)
    for peer in passers:
        peer.abort()
    await arena.redis.start()
    for peer in come:
        await peer.opened()
    await arena.set_becomes("members:open", {peer.id for peer in stay + come})
    await arena.set_becomes("online:open", {"stay", "come"})
    await arena.set_becomes("users", {"stay", "come"})
    await all_served(arena)
    await come[0].request("say", {"by": "w", "count": 20}, "open")
    for peer in stay + come:
        arena.equal(f"what {peer} heard", list(range(20)), await peer.hears("w", 20))


@scenario()
async def operators_during_an_outage(arena: Arena) -> None:
    """While Redis is away admin pages and the API answer, with 503 where Redis is needed; then all of it works."""
    node = await arena.extra(publish_timeout=1)
    operator = await Operator.enter(node)
    here, there = await arena.peer(node, "shop", user="here"), await arena.peer(arena.nodes[0], "shop", user="there")
    await arena.redis.stop(keep=True)
    pages = ("", "/connections", "/channels", "/channels/shop", f"/connections/{here.id}", "/users", "/tap", "/audit")
    for page in pages:
        status, _ = await operator.see(page)
        arena.true(f"an answer of the page {page or '/'}, got {status}", status in (200, 503))
    asked: list[tuple[str, str, object, tuple[int, ...]]] = [
        ("GET", "/healthz", None, (200,)),
        ("GET", "/readyz", None, (200,)),
        ("GET", "/metrics", None, (200,)),
        ("GET", "/api/status", None, (200, 503)),
        ("GET", "/api/nodes", None, (200, 503)),
        ("GET", "/api/connections", None, (200, 503)),
        ("GET", "/api/channels/kept-x/history", None, (503,)),
        ("POST", "/api/channels/shop/messages", {"cmd": "never"}, (503,)),
        ("POST", "/api/messages", {"cmd": "never"}, (503,)),
        ("PUT", f"/api/connections/{there.id}/channels/stall", None, (503,)),
        ("PUT", f"/api/connections/{here.id}/channels/stall", None, (503,)),
        ("DELETE", f"/api/connections/{there.id}", None, (503,)),
        ("DELETE", f"/api/connections/{here.id}", None, (204,)),
    ]
    for method, path, body, expected in asked:
        status, _ = await node.ask(method, path, body)
        arena.true(f"{expected} from {method} {path}, got {status}", status in expected)
    never = {"kind": "channel", "name": "shop", "cmd": "never"}
    arena.equal("an operator's message", 503, (await operator.act("send", **never))[0])
    arena.equal("an operator's end", 503, (await operator.act("disconnect", id=there.id))[0])
    arena.equal("an operator's end of a user", 503, (await operator.act("disconnect-user", user="there"))[0])
    arena.equal("the end of who is held here", 4410, await here.wait_end())
    await arena.redis.start()
    await all_served(arena)
    await arena.set_becomes("members:shop", {there.id})
    await arena.set_becomes("members:stall", ())
    await there.settled()
    arena.equal("messages that failed", [], there.params("never"))


@scenario()
async def joins_and_leaves_while_links_are_cut(arena: Arena) -> None:
    """Clients that join and leave at random while links to Redis are cut end where they were told they are."""
    peers, channels = await arena.peers(24), [f"hall-{number}" for number in range(4)]

    async def wander(number: int) -> set[str]:
        peer, inside = peers[number], set[str]()
        for _ in range(25):
            channel = arena.random.choice(channels)
            verb = arena.random.choice(("$join", "$leave"))
            try:
                await peer.request(verb, None, channel)
                (inside.add if verb == "$join" else inside.discard)(channel)
            except Refused as refused:
                arena.equal("the refusal", "unavailable", refused.code)
                inside.discard(channel)
            arena.count(commands=1)
        return inside

    async def cut() -> None:
        for _ in range(15):
            await arena.redis.kill_links(arena.random.choice(("", "presence", "node-1")))
            await asyncio.sleep(0.05)

    *inside, _ = await asyncio.gather(*map(wander, range(len(peers))), cut())
    for channel in channels:
        held = {peer.id for peer, found in zip(peers, inside, strict=False) if channel in (found or ())}
        await arena.set_becomes(f"members:{channel}", held)
        await arena.set_becomes(f"online:{channel}", held)
    await all_served(arena)
    for number, channel in enumerate(channels):
        await peers[number].request("tell-all", {"cmd": "before", "param": channel})
        await (await arena.peer()).request("say", {"by": "end"}, channel)
        for peer, found in zip(peers, inside, strict=False):
            if channel in (found or ()):
                await peer.hears("end", 1, channel)


@scenario()
async def redis_forgets_its_scripts_and_kills_at_random(arena: Arena) -> None:
    """SCRIPT FLUSH, cut links and short freezes in any order, under joins and writes to histories, lose nothing."""
    members = await arena.peers(8, "kept-mess")

    async def mess() -> None:
        for _ in range(10):
            match arena.random.randrange(3):
                case 0:
                    await arena.redis.commands.script_flush()
                case 1:
                    await arena.redis.kill_links()
                case _:
                    arena.redis.freeze()
                    await asyncio.sleep(0.3)
                    arena.redis.thaw()
            late = await arena.peer(None, "kept-mess")
            await late.close()

    taken = await under_trouble(arena, "kept-mess", mess)
    await hear_out(arena, members, "kept-mess")
    complete(arena, members, "kept-mess", taken)


async def join(peer: Peer, channel: str, at: dict[str, Any] | None) -> dict[str, Any]:
    """Try until Redis is there."""
    while True:
        with suppress(Refused):
            answer: dict[str, Any] = await peer.request("$join", {"since": at} if at else None, channel)
            return answer


@scenario()
async def a_history_survives_many_restarts_of_redis(arena: Arena) -> None:
    """Restarts of Redis, data kept, while many resume: whoever recovered has no hole."""
    channel = "kept-again"
    stop = asyncio.Event()
    writing = asyncio.create_task(write_on(arena, channel, stop))

    async def follow(number: int) -> tuple[list[int], int]:
        heard: list[int] = []
        at: dict[str, Any] | None = None
        told = 0
        for turn in range(4):
            peer = await arena.peer(arena.nodes[(number + turn) % NODES])
            answer = await join(peer, channel, at)
            await peer.has("n", 5)
            found = offsets(peer, channel)
            told += at is not None and not answer["recovered"]
            heard += found
            at = {"epoch": answer["epoch"], "offset": found[-1]}
            await peer.close()
        return heard, told

    following = asyncio.gather(*[asyncio.create_task(follow(number)) for number in range(16)])
    for _ in range(3):
        await asyncio.sleep(0.3)
        await arena.redis.restart(keep=True)
    for heard, told in await following:
        arena.equal("positions that were not recovered", 0, told)
        arena.equal("what was heard", list(range(heard[0], heard[0] + len(set(heard)))), list(dict.fromkeys(heard)))
    stop.set()
    await writing
