"""What a person publishes with redis-cli: it reaches whom it should, and whatever it is, it harms nobody."""

from __future__ import annotations

import json
import random

import msgpack
import pytest

from tests.harness.sets import address
from tests.harness.wait import eventually

HANDLER = "named:Named"


async def test_a_channel_is_reached_on_every_node(nodes, connect):
    """PUBLISH to a channel's topic reaches its members on both nodes, and nobody else."""
    ada = await connect(nodes[0], "by-hand")
    await ada.send("ping")
    await ada.expect("pong")
    bob = await connect(nodes[1], "by-hand")
    await ada.expect("online-update")
    other = await connect(nodes[0], "elsewhere")
    await nodes.redis.cli("PUBLISH", "gateway:channel:by-hand", '{"cmd":"chat","param":{"text":"hi"}}')
    for client in (ada, bob):
        message = await client.expect("chat")
        assert message == {"channel": "by-hand", "cmd": "chat", "param": {"text": "hi"}}
    await other.send("ping")
    await other.expect("pong")
    assert not any(message["cmd"] == "chat" for message in other.received)


async def test_from_and_exclude_are_honoured(nodes, connect):
    """`from` is passed on, and whose connection id is in `exclude` gets nothing."""
    ada = await connect(nodes[0], "excluding", protocols=["gateway.v1.json"])
    id = (await ada.expect("$welcome"))["param"]["connection"]
    bob = await connect(nodes[1], "excluding")
    await ada.expect("online-update")
    for number, exclude in ((1, [id]), (2, [])):
        payload = {"cmd": "chat", "param": number, "from": "ops", "exclude": exclude}
        await nodes.redis.cli("PUBLISH", "gateway:channel:excluding", json.dumps(payload))
    assert (await ada.expect("chat"))["param"] == 2
    assert (await bob.expect("chat"))["param"] == 1
    assert (await bob.expect("chat"))["from"] == "ops"


async def test_a_user_is_reached_on_every_connection(redis, start_nodes, connect):
    """PUBLISH to a user's topic reaches all connections of that user, with the channel it names."""
    nodes = await start_nodes(2, redis, handler=HANDLER)
    tabs = [await connect(address(node, "ada", [])) for node in nodes]
    bob = await connect(address(nodes[0], "bob", []))
    await bob.send("ping")
    await bob.expect("pong")
    payload = '{"cmd":"notice","param":1,"channel":"inbox"}'

    async def reached() -> bool:
        return await redis.command("PUBLISH", "gateway:user:ada", payload) == 2

    await eventually(reached)
    for tab in tabs:
        assert await tab.expect("notice") == {"channel": "inbox", "cmd": "notice", "param": 1}
    await redis.cli("PUBLISH", "gateway:user:bob", '{"cmd":"notice","param":2}')
    assert await bob.expect("notice") == {"channel": "", "cmd": "notice", "param": 2}
    assert [m["cmd"] for m in bob.received] == ["pong", "notice"]


async def test_everyone_and_one_connection_are_reached(redis, start_nodes, connect):
    """PUBLISH to `all` reaches everybody, to `direct` the one connection it names."""
    nodes = await start_nodes(2, redis)
    clients = [await connect(node, protocols=["gateway.v1.json"]) for node in nodes]
    ids = [(await client.expect("$welcome"))["param"]["connection"] for client in clients]
    await redis.cli("PUBLISH", "gateway:direct", json.dumps({"cmd": "psst", "connection": ids[1]}))
    await redis.cli("PUBLISH", "gateway:all", '{"cmd":"fire","param":[1,2]}')
    for client in clients:
        assert await client.expect("fire") == {"channel": "", "cmd": "fire", "param": [1, 2]}
    assert [[m["cmd"] for m in client.received] for client in clients] == [
        ["$welcome", "fire"],
        ["$welcome", "psst", "fire"],
    ]


RUBBISH = [
    b"",
    b"hello",
    b"{",
    b"{}",
    b"[]",
    b'{"cmd":1}',
    b'{"cmd":""}',
    b'{"cmd":"%s"}' % (b"x" * 129),
    b'{"cmd":null}',
    b'{"cmd":"$left","param":{"reason":"removed"}}',
    b'{"cmd":"x","param":NaN}',
    b'{"cmd":"x","param":"\xff"}',
    b'{"cmd":"x","param":18446744073709551616}',
    b'{"cmd":"x","from":7}',
    b'{"cmd":"x","from":"a b"}',
    b'{"cmd":"x","exclude":"me"}',
    b'{"cmd":"x","exclude":[1]}',
    b'{"cmd":"x","channel":5}',
    b'{"cmd":"x","connection":5}',
    b'{"cmd":"x","param":' + b"[" * 100_000,
    b'{"cmd":"x","param":' + b"[" * 800 + b"]" * 800 + b"}",
    b"\x00\x01\x02\x03",
    msgpack.packb([b"", "not a list"]),
    msgpack.packb(["x" * 10, 5, 5, 5, 5, 5, 5]),
    msgpack.packb({"ask": "join"}),
    msgpack.packb([1, 2, 3]),
    msgpack.packb([b'{"cmd":"x"}', ["a"], "b", 1, "e"])[:-3],
    b"\x93" * 10_000,
    b"\xdd\xff\xff\xff\xff",
]


@pytest.mark.parametrize("topic", ["channel:rubbish", "all", "direct", "user:ada", "node:node-x", "nodes", "tap"])
async def test_rubbish_is_dropped_and_nobody_notices(redis, start_nodes, connect, topic):
    """Whatever is published to any topic, the nodes live, their clients see nothing of it, and what follows arrives."""
    nodes = await start_nodes(2, redis, handler=HANDLER)
    topic = topic.replace("node-x", nodes[0].id)
    clients = [await connect(address(node, "ada", ["rubbish"])) for node in nodes]
    for client in clients:
        await client.send("ping")
        await client.expect("pong")
    generator = random.Random(7)
    noise = [generator.randbytes(generator.randrange(1, 300)) for _ in range(200)]
    for payload in (*RUBBISH, *noise):
        await redis.command("PUBLISH", f"gateway:{topic}", payload)
    await redis.cli("PUBLISH", "gateway:channel:rubbish", '{"cmd":"after"}')
    for client in clients:
        await client.expect("after")
        assert {m["cmd"] for m in client.received} <= {"after", "pong", "online-update"}
    for node in nodes:
        node.process.assert_running()
        assert node.output.count("rejected what was published") <= 10
