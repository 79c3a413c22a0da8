"""What people and programs put into Redis by hand: messages reach everybody, rubbish harms nobody."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import msgpack
from redis.exceptions import ResponseError

from tests.stress.arena import Arena
from tests.stress.checks import eventually
from tests.stress.node import Node
from tests.stress.operators import Operator
from tests.stress.scenario import scenario

WRONG_JSON: list[object] = [
    *({}, {"cmd": ""}, {"cmd": 7}, {"cmd": None}, {"cmd": "x" * 129}, {"param": 1}),
    *({"cmd": "x", "from": 7}, {"cmd": "x", "exclude": "x"}, {"cmd": "x", "exclude": [1]}, {"cmd": "x", "channel": []}),
]
RUBBISH = [
    *(b"", b"{", b"{}", b"[]", b"null", b"\x00", b"\xff" * 100, b"{" * 5000, b'{"cmd":"x"', b'{"cmd":"\xff"}'),
    *(
        b'{"cmd":"x"}}',
        b'{"cmd":"x","param":' + b"[" * 3000 + b"]" * 3000 + b"}",
        b'{"cmd":"x","param":1e999}',
        b"\xc1",
    ),
    *(msgpack.packb(value) for value in (None, 7, "x", [], {}, [1, 2, 3], {"ask": 1}, {"x": "y" * 1000})),
    *(msgpack.packb(value) for value in ({"ask": "join"}, {"answer": 1}, {"answer": -1, "result": {}})),
    *(
        msgpack.packb({"ask": "no-such-verb", "number": 1, "from": "nobody"}),
        msgpack.packb({"ask": "write", "number": 1}),
    ),
    *(json.dumps(value).encode() for value in WRONG_JSON),
]


@scenario(quick=True, complaints=("no message", "dropped", "rejected"))
async def rubbish_on_every_topic(arena: Arena) -> None:
    """Rubbish on every topic that there is, internal ones too, is counted and dropped; streams beside it are whole."""
    members = await arena.peers(16, "clean", user="cleaner", mixed=True)
    kept = await arena.peers(8, "kept-clean")
    writer = await arena.peer()
    topics = sorted(await arena.redis.subscriptions())
    arena.true(f"topics of all sorts, got {len(topics)}", len(topics) > 12)
    before = sum([await node.metric("injections_rejected_total") for node in arena.nodes])

    async def throw() -> None:
        for payload in arena.random.sample(RUBBISH, len(RUBBISH)):
            for topic in topics:
                data = bytearray(payload)
                if data and arena.random.random() < 0.2:
                    data[arena.random.randrange(len(data))] ^= 1 << arena.random.randrange(8)
                await arena.redis.commands.publish(topic, bytes(data))
                arena.count(rubbish=1)

    throwing = asyncio.create_task(throw())
    for number in range(20):
        await writer.request("say", {"by": "w", "first": number * 10, "count": 10}, "clean")
        await writer.request("say", {"by": "w", "first": number * 10, "count": 10}, "kept-clean")
        await asyncio.sleep(0)
    await throwing
    for member in members:
        arena.equal(f"what {member} heard", list(range(200)), await member.hears("w", 200, "clean"))
    for member in kept:
        arena.equal(f"what {member} heard", list(range(200)), await member.hears("w", 200, "kept-clean"))
    after = sum([await node.metric("injections_rejected_total") for node in arena.nodes])
    arena.true("the rubbish to be counted", after - before > len(RUBBISH))
    for node in arena.nodes:
        arena.equal(f"the state of {node}", 200, (await node.ask("GET", "/readyz"))[0])


@scenario()
async def messages_by_hand_reach_everybody(arena: Arena) -> None:
    """JSON published on the four topics comes to the members, the user, everyone and the one, but for the excluded."""
    peers = await arena.peers(16, "hand", user="handy", mixed=True)
    others = await arena.peers(4)
    named = [peer for peer in peers if peer.id]
    one, out = arena.random.sample(named, 2)
    publish = arena.redis.commands.publish
    for number in range(20):
        word: dict[str, Any] = {"cmd": "n", "from": "redis-cli", "exclude": [out.id]}
        await publish("gateway:channel:hand", json.dumps(word | {"param": {"by": "channel", "n": number}}))
        await publish("gateway:user:handy", json.dumps(word | {"param": {"by": "user", "n": number}}))
        await publish("gateway:all", json.dumps(word | {"param": {"by": "all", "n": number}}))
        direct = word | {"param": {"by": "direct", "n": number}, "connection": one.id}
        await publish("gateway:direct", json.dumps(direct))
    await publish("gateway:all", json.dumps({"cmd": "over"}))
    arena.count(messages=80)
    for peer in peers + others:
        await peer.wait_for("over")
        for by in ("channel", "user", "all", "direct"):
            hears = peer is not out and (
                by == "all" or (peer in peers and by != "direct") or (by == "direct" and peer is one)
            )
            if hears:
                await peer.hears(by, 20)
            arena.equal(f"{by} at {peer}", list(range(20)) if hears else [], peer.numbers(by))


@scenario(complaints=("Redis refused",))
async def a_hand_in_the_keys(arena: Arena) -> None:
    """Keys of the wrong type and nonsense in the sets are survived: messages go where they must, and all is cleaned."""
    commands = arena.redis.commands
    peers = await arena.peers(8, "touched", user="touched")
    await commands.sadd("gateway:members:touched", "no-node~1", "nonsense", "", "x" * 1000)
    await commands.sadd("gateway:online:touched", "nobody-there", "\x00")
    await commands.sadd("gateway:channels", "never-was", "")
    await commands.hset(f"gateway:connection:{peers[0].id}", mapping={"channels": "no json", "started": "7"})
    await commands.hset("gateway:tabs:touched", mapping={"touched": 3})
    await (await arena.peer()).request("say", {"by": "w", "count": 20}, "touched")
    for peer in peers:
        arena.equal(f"what {peer} heard", list(range(20)), await peer.hears("w", 20))
    for node in arena.nodes:
        for path in (
            "/api/status",
            "/api/channels",
            "/api/channels/touched",
            "/api/connections",
        ):
            status, _ = await node.ask("GET", path)
            arena.equal(f"{path} of {node}", 200, status)
        status, _ = await (await Operator.enter(node)).see("/channels")
        arena.equal(f"the page of channels of {node}", 200, status)
    await peers[0].request("$presence", None, "touched")
    await commands.set("gateway:members:wrong", "a string")
    for peer in peers[:4]:
        await peer.request("$join", None, "wrong")
    await peers[0].request("say", {"by": "wrong"}, "wrong")
    for peer in peers[:4]:
        await peer.hears("wrong", 1)
    await commands.delete("gateway:members:wrong")
    await arena.close_all()
    await commands.srem("gateway:members:touched", "no-node~1", "nonsense", "", "x" * 1000)
    await commands.srem("gateway:channels", "never-was", "", "touched", "wrong")
    await commands.delete(
        "gateway:online:touched", "gateway:tabs:touched", "gateway:online:wrong", "gateway:tabs:wrong"
    )


WRONG_VALUES = ("9" * 5000, "-1", "nan", "", "\x1b[2J", "x" * 50_000, "[" * 50_000, "{}", "[1]")
WRONG_NAMES = ("", "a b", "\x00", "x" * 1000, "nobody~1")


@scenario(quick=True)
async def rubbish_in_every_key(arena: Arena) -> None:
    """Rubbish in every key that there is, of the wrong type or in its fields, is survived and mended."""
    commands, members = arena.redis.commands, await arena.peers(8, "soiled", "kept-soiled", user="soiled")
    writer, before = await arena.peer(), await arena.redis.keys()
    for turn, spoil in enumerate((spoil_values, spoil_types)):
        for key in sorted(before & await arena.redis.keys()):
            await spoil(arena, key)
            arena.count(keys=1)
        for channel in ("soiled", "kept-soiled"):
            await writer.request("say", {"by": f"{channel}-{turn}", "count": 10}, channel)
            for member in members:
                heard = await member.hears(f"{channel}-{turn}", 10, channel)
                arena.equal(f"what {member} heard", list(range(10)), heard)
        for node in arena.nodes:
            for path in ("/api/status", "/api/nodes", "/api/channels", "/api/connections", "/admin/websocket"):
                arena.equal(f"{path} of {node}", 200, (await node.ask("GET", path))[0])
        for member in members:
            await member.request("$leave", None, "soiled")
            await member.request("$join", None, "soiled")
    held = {member.id for member in members}
    for node in arena.nodes:
        own = {id for id in (*held, writer.id) if id.startswith(f"{node.id}~")}
        await eventually(f"what {node} holds", partial(_members, arena, f"node:{node.id}:connections"), own)
    await eventually("the nodes", partial(_members, arena, "nodes"), {node.id for node in arena.nodes})
    rejected = sum([await node.metric("injections_rejected_total") for node in arena.nodes])
    arena.true("the rubbish to be counted", rejected > 0)
    await arena.close_all()
    for key in await arena.redis.keys() - before | {"gateway:channels", "gateway:users"}:
        await commands.delete(key)
    for pattern in ("soiled", "kept-soiled"):
        await commands.delete(*(f"gateway:{kind}:{pattern}" for kind in ("members", "online", "tabs", "leaving")))


async def _members(arena: Arena, key: str) -> set[str]:
    """Return the members of a set, none while it is not one."""
    try:
        return await arena.redis.members(key)
    except ResponseError:
        return set()


async def spoil_values(arena: Arena, key: str) -> None:
    """Put among what a key holds what no node writes."""
    commands, value = arena.redis.commands, arena.random.choice(WRONG_VALUES)
    match await commands.type(key):
        case "set":
            await commands.sadd(key, *WRONG_NAMES)
        case "hash":
            fields = await commands.hkeys(key)
            await commands.hset(key, mapping=dict.fromkeys(set(fields) - {"incarnation"}, value))
        case "stream":
            await commands.xadd(key, {"entry": value})
        case "string":
            await commands.set(key, value)


async def spoil_types(arena: Arena, key: str) -> None:
    """Put something of another type where a node keeps something."""
    commands = arena.redis.commands
    await commands.delete(key)
    await (commands.rpush(key, "x") if arena.random.random() < 0.5 else commands.geoadd(key, (1, 1, "x")))


@scenario()
async def commands_that_nobody_signed(arena: Arena) -> None:
    """Where nodes share a secret, drains, ends, joins and answers by strangers do nothing, and those of nodes do."""
    secret: dict[str, Any] = {"cluster_secret": "a secret of the arena's own", "prefix": "signed"}
    nodes = [await arena.extra(**secret) for _ in range(2)]
    peers = [await arena.peer(node, "signed") for node in nodes]
    for node, peer in zip(nodes, peers, strict=True):
        asked: list[dict[str, Any]] = [
            {"ask": "drain"},
            {"ask": "disconnect", "connection": peer.id, "code": 4410, "reason": ""},
            {"ask": "join", "connection": peer.id, "channel": "forged"},
            *({"answer": number, "result": None} for number in range(1, 20)),
        ]
        for fields in asked:
            said = msgpack.packb({"number": 1, "from": "stranger", **fields})
            arena.equal("who heard", 1, await arena.redis.commands.publish(f"signed:node:{node.id}", said))
        await arena.redis.commands.publish(f"signed:beat:{node.id}", "9" * 5000)
        rejected = partial(_has_rejected, node, len(asked) + 1)
        await eventually("what was rejected", rejected)
        arena.equal(f"the channels of {peer}", ["signed"], await peer.request("channels"))
    await arena.redis.commands.publish(
        "signed:channel:signed", json.dumps({"cmd": "n", "param": {"by": "hand", "n": 0}})
    )
    for peer in peers:
        await peer.hears("hand", 1)
    status, _ = await nodes[0].ask("PUT", f"/api/connections/{peers[1].id}/channels/ours")
    arena.equal("a join by a node that has the secret", 200, status)
    for node in nodes:
        arena.equal("the state", 200, (await node.ask("GET", "/readyz"))[0])
    await arena.close_all()
    for node in nodes:
        await node.stop()
    await arena.redis.commands.delete(*await arena.redis.keys("signed:*"))


async def _has_rejected(node: Node, count: int) -> bool:
    return await node.metric("injections_rejected_total") >= count


@scenario(complaints=("no message",))
async def rubbish_in_a_history(arena: Arena) -> None:
    """Entries of a stream that no node wrote are passed over; whoever reads the history gets all that is real."""
    channel = "kept-soiled"
    members, writer = await arena.peers(4, channel), await arena.peer()
    for number in range(10):
        await writer.request("say", {"by": "w", "first": number}, channel)
        fields: dict[Any, Any] = arena.random.choice(
            [{"x": "y"}, {"m": "rubbish"}, {"m": b"\xff\x00"}, {"": ""}, {"e": "1", "o": "2", "p": "3"}]
        )
        await arena.redis.commands.xadd(f"gateway:stream:{channel}", fields)
    reader = await arena.peer(None, channel)
    page = await reader.request("$history", None, channel)
    arena.equal("the history", list(range(10)), [message["param"]["n"] for message in page["messages"]])
    for member in members:
        arena.equal(f"what {member} heard", list(range(10)), await member.hears("w", 10))
    first = page["messages"][0]["offset"]
    back = await arena.peer()
    since = {"since": {"epoch": page["epoch"], "offset": first}}
    await back.request("$join", since, channel)
    await writer.request("say", {"by": "w", "first": 10}, channel)
    await eventually("what came back", lambda: back.numbers("w")[-1:], [10])
