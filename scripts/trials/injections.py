"""What people and programs put into Redis by hand: messages reach everybody, rubbish harms nobody."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgpack

from trials.arena import Arena
from trials.operators import Operator
from trials.scenario import eventually, scenario

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
