"""Every limit of the settings: what is within it is served, what is beyond is refused, and nothing more."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.stress.arena import Arena, in_turn
from tests.stress.checks import eventually
from tests.stress.peer import MSGPACK, Peer, Refused
from tests.stress.scenario import scenario
from tests.stress.wire import Wire, frame, say


@scenario(quick=True)
async def a_full_node_refuses(arena: Arena) -> None:
    """Of many that knock at once a node lets in max_connections; the others get 503, and a place when one is free."""
    node = await arena.extra(max_connections=10)
    inside: list[Peer] = []

    async def knock(_: int) -> str:
        try:
            inside.append(await arena.peer(node, "full"))
            return "in"
        except Refused as refused:
            return refused.code

    arena.equal("who got in", ["503"] * 30 + ["in"] * 10, sorted(await in_turn(knock, range(40))))
    for peer in inside[:5]:
        await peer.close()
    await arena.set_becomes("members:full", {peer.id for peer in inside[5:]})
    arena.equal("who got in then", ["503"] * 5 + ["in"] * 5, sorted(await in_turn(knock, range(10))))


@scenario()
async def messages_as_large_as_may_be(arena: Arena) -> None:
    """Messages of exactly max_message_bytes pass, in text and msgpack, to all nodes; one byte more ends with 1009."""
    members = await arena.peers(12, "wide", mixed=True)
    node = arena.any_node()
    empty = len(say("say", {"by": "w", "also": {"x": ""}}, channel="wide")) - 8
    for number, size in enumerate((0, 1, 125, 126, 127, 4000, 65_000, 65_536 - empty - 30)):
        wire = await arena.wire(node, protocol="gateway.v1.json")
        await wire.write(say("say", {"by": "w", "first": number, "also": {"x": "y" * size}}, channel="wide", id=1))
        arena.equal(f"the answer to {size} more bytes", "$reply", (await wire.read_message())["cmd"])
        for member in members:
            await member.hears("w", number + 1)
            arena.equal("the text", "y" * size, member.params("n")[-1]["x"])
    text = '{"cmd":"echo","id":1,"param":"' + "z" * (65_536 - 32) + '"}'
    arena.equal("the size of what just fits", 65_536, len(text))
    fits, too_big = await arena.wire(node, protocol="gateway.v1.json"), await arena.wire(node)
    await fits.write(frame(text))
    arena.equal("the answer to what just fits", "$reply", (await fits.read_message())["cmd"])
    await too_big.write(frame(text + " "))
    arena.equal("the end of what does not", 1009, await too_big.read_code())
    packed = await arena.peer(node, protocol=MSGPACK)
    arena.equal("what msgpack brings back", b"z" * 60_000, (await packed.request("echo", "z" * 60_000)).encode())


@scenario()
async def no_more_than_the_rate(arena: Arena) -> None:
    """Of a burst as many messages are handled as may be; each of the others is told when to come again."""
    node = await arena.extra(message_rate=5, message_burst=20, abuse_limit=0)
    writer = await arena.peer(node, "paced")

    async def ask(number: int) -> str:
        try:
            await writer.request("say", {"by": "w", "first": number}, "paced")
            return "handled"
        except Refused as refused:
            arena.true("a time to wait", 0 < refused.param["retry_after"] <= 10)
            return refused.code

    found = await asyncio.gather(*map(ask, range(60)))
    handled = [number for number, answer in enumerate(found) if answer == "handled"]
    arena.equal("other answers", {"handled", "rate-limited"}, set(found))
    arena.true(f"20 or a few more to be handled, got {len(handled)}", 20 <= len(handled) < 60)
    arena.equal("what was said", handled, await writer.hears("w", len(handled)))


@scenario()
async def names_of_all_kinds(arena: Arena) -> None:
    """Names of 200 bytes in any script work everywhere: sets, topics, API, delivery; illegal ones are refused."""
    legal = [
        "é" * 100,
        "😀" * 50,
        "a",
        "x" * 200,
        "a:b:c",
        "a/b=c&d#e",
        "%2F%00",
        "-",
        "channel",
        "ßǅK",
        "\u202eabc",
        "~",
    ]
    illegal = [
        "é" * 101,
        "x" * 201,
        "a b",
        "a\tb",
        "a\nb",
        "\x00",
        "\x7f",
        "\x85",
        "\u00a0",
        "\u2028",
        *"{}*?[]\\",
        "\ud800",
    ]
    peers = await arena.peers(8, *legal, user="名前-é😀")
    for number, name in enumerate(legal):
        node = arena.nodes[number % 4]
        quoted = "".join(f"%{byte:02X}" for byte in name.encode())
        status, _ = await node.ask(
            "POST", f"/api/channels/{quoted}/messages", {"cmd": "n", "param": {"by": name, "n": 0}}
        )
        arena.equal(f"the API's answer for {name!r}", 202, status)
        status, page = await node.ask("GET", f"/api/channels/{quoted}")
        arena.equal(f"the API's page of {name!r}", (200, name, 8), (status, page.get("name"), page.get("members")))
        await arena.set_becomes(f"members:{name}", {peer.id for peer in peers})
        await arena.set_becomes(f"online:{name}", {"名前-é😀"})
        for peer in peers:
            arena.equal(f"messages of {name!r}", [0], await peer.hears(name, 1, name))
    for name in illegal[:-1]:
        await arena.refused("invalid-channel", peers[0].request("$join", None, name))
        await arena.refused("invalid-channel", peers[1].request("echo", 1, name))
    for user in ("a b", "x" * 201, "{}", "\u2028"):
        await arena.refused("401", arena.peer(None, user=user))
    arena.count(names=len(legal) + len(illegal))


@scenario()
async def rules_hold_for_everybody(arena: Arena) -> None:
    """Channels that only users may join, nobody may join or send to, or that tell no presence, keep to that."""
    for node in arena.nodes:
        anonymous, user = await arena.peer(node), await arena.peer(node, user="member")
        await arena.refused("forbidden", anonymous.request("$join", None, "users-1"))
        await user.request("$join", None, "users-1")
        for peer in (anonymous, user):
            await arena.refused("forbidden", peer.request("$join", None, "closed-1"))
            await arena.refused("forbidden", peer.request("$join", None, "secret-1"))
            await peer.request("$join", None, "mute-1")
            await arena.refused("forbidden", peer.request("say", {}, "mute-1"))
            await peer.request("$join", None, "silent-1")
            await arena.refused("forbidden", peer.request("$presence", None, "silent-1"))
            await arena.refused("forbidden", peer.request("$history", None, "silent-1"))
            await arena.refused("forbidden", peer.request("$presence", None, "not-mine"))
        await arena.refused("403", arena.peer(node, "closed-1"))
        await user.request("put", {"id": anonymous.id, "channel": "closed-1"})
        arena.true("the server to put it there", "closed-1" in await anonymous.request("channels", channel="closed-1"))


@scenario()
async def a_backlog_of_commands_keeps_its_order(arena: Arena) -> None:
    """Far more commands than may wait behind a slow one are all answered, once each and in order, and block nobody."""
    wires = [await arena.wire(node, protocol="gateway.v1.json") for node in arena.nodes]

    async def pile(wire: Wire) -> list[Any]:
        commands = [say("sleep", 0.2, id=0), *(say("echo", number, id=number) for number in range(1, 1500))]
        writing = asyncio.create_task(wire.write(b"".join(commands)))
        answers = [(await wire.read_message())["id"] for _ in commands]
        await writing
        return answers

    beside = await arena.peers(4)
    for answers in await asyncio.gather(*map(pile, wires)):
        arena.equal("the answers", list(range(1500)), answers)
        arena.count(commands=1500)
    for peer in beside:
        await peer.settled()


@scenario()
async def so_many_bytes_may_wait_for_redis(arena: Arena) -> None:
    """While Redis is away so many bytes wait as publish_queue_bytes says; the rest is refused, what waited comes."""
    node = await arena.extra(publish_queue_bytes=100_000)
    member, writer = await arena.peer(node, "kept-heavy"), await arena.peer(node)
    await arena.redis.stop(keep=True)
    asking = asyncio.create_task(writer.request("say-at-once", {"by": "w", "count": 60, "size": 5000}, "kept-heavy"))
    await eventually("what waits", lambda: node.metric("publish_queue_bytes"))
    arena.true("no more to wait than may", await node.metric("publish_queue_bytes") <= 100_000)
    await arena.redis.start()
    answers = await asking
    taken = answers["Position"]
    arena.true(f"about 20 of 5,000 bytes to be taken, got {answers}", 15 <= taken <= 20)
    arena.equal("the others", {"Position": taken, "Unavailable": 60 - taken}, answers)
    await writer.request("say", {"by": "end"}, "kept-heavy")
    await member.hears("end", 1)
    arena.equal("what came", list(range(taken)), member.numbers("w"))


@scenario()
async def draining_waits_no_longer_than_it_may(arena: Arena) -> None:
    """Clients that do not answer the close are cut off after drain_seconds; the node ends with 0 and leaves nothing."""
    node = await arena.extra(drain_seconds=2)
    stubborn = [await arena.wire(node, "last", protocol="gateway.v1.json") for _ in range(10)]
    deaf = [await arena.wire(node, "last", buffer=4096, protocol="gateway.v1.json") for _ in range(4)]
    await (await arena.peer()).request("say", {"count": 60, "also": {"x": "y" * 10_000}}, "last")
    arena.equal("the exit code", 0, await node.stop())
    for wire in stubborn + deaf:
        arena.true("an end", await wire.read_code() in (1001, 1012, 1006))
    await arena.set_becomes("members:last", ())
