"""Rubbish under every kind of key, in every type: nodes live, messages arrive, every list answers; it is counted."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest
from aiohttp import ClientSession
from redis.exceptions import ResponseError

from gateway.application.guest import Guest, settings_of
from gateway.redis.keys import SOLE_TYPES, TYPES, Keys
from tests.harness.admin import PASSWORD, log_in
from tests.harness.client import Client, Clients
from tests.harness.embedded import Embedded
from tests.harness.node import Node, Nodes
from tests.harness.redis import RedisServer
from tests.harness.sets import address
from tests.harness.wait import eventually

StartNodes = Callable[..., Awaitable[Nodes]]
Command = tuple[str | bytes | int, ...]

KEYS = Keys("gateway")
V1 = ["gateway.v1.json"]
API_KEY = "key-of-the-tests"
HISTORY = [{"match": "kept*", "history": 50}]

HUGE = b"9" * 5000
VALUES = (
    *(HUGE, b"9" * 30, b"-1", b"nan", b"inf", b"1e400", b"", b"\xff\xfe", b"\x1b[2J\r\n", b"x" * 100_000),
    *(b"[" * 50_000, b"[1,2]", json.dumps([" "] * 20_000).encode(), b"{}", b"null", b'"\\ud800"'),
)
MEMBERS = (b"", b"\xff", b"a b", b"x" * 10_000, b"\x00", b"~", b"nobody~1", b"*", HUGE)

WRITE: dict[str, Callable[[str], Command]] = {
    "string": lambda key: ("SET", key, "x"),
    "list": lambda key: ("RPUSH", key, "x"),
    "set": lambda key: ("SADD", key, "x"),
    "hash": lambda key: ("HSET", key, "x", "y"),
    "zset": lambda key: ("ZADD", key, 1, "x"),
    "stream": lambda key: ("XADD", key, "*", "x", "y"),
}
"""Makes a key of each type."""


@dataclass
class Scene:
    """A node, another one in this process, and a member of two channels on each."""

    redis: RedisServer
    node: Node
    operator: ClientSession
    embedded: Embedded
    members: list[Client]
    ids: list[str]
    number: int = 0

    def keys(self) -> dict[str, str]:
        """Return a key of each kind; of those that belong to a node or a connection, those of the node."""
        id, node = self.ids[0], self.node.id
        return {
            **{kind: f"gateway:{kind}" for kind in SOLE_TYPES},
            **{kind: f"gateway:{kind}:kept" for kind in TYPES},
            "node": KEYS.node(node),
            "node connections": KEYS.node_connections(node),
            "user connections": KEYS.user_connections("ada"),
            "connection": KEYS.connection(id),
            **{kind: f"gateway:{kind}:{node}" for kind in ("claim", "reaped", "rival")},
            "leaving somewhere": KEYS.leaving("kept"),
        }

    async def works(self) -> None:
        """Have messages pass both ways, and everything that lists answer."""
        self.number += 1
        one, two = self.members
        await asyncio.gather(*(client.send("ping", channel="hall") for client in self.members))
        await self.redis.publish("gateway:channel:hall", "by-hand", self.number)
        await self.embedded.service.write_channel("mark", self.number, "kept")
        for client in (one, two):
            await client.expect("by-hand", param=self.number)
            await client.expect("mark", param=self.number)
        await asyncio.gather(self.pages_answer(), self.service_answers())
        self.node.process.assert_running()

    async def pages_answer(self) -> None:
        """Open what an operator and his programs look at."""
        admin, id = "/admin/websocket", self.ids[0]
        paths = (
            *(f"{admin}{path}" for path in ("", "/connections", "/channels", "/users", "/audit", "/tap", "/broadcast")),
            *(f"{admin}/{path}" for path in (f"connections/{id}", f"nodes/{self.node.id}", "channels/kept")),
            *(f"/api/{name}" for name in ("status", "nodes", "channels", "connections", f"connections/{id}")),
            *("/metrics", "/readyz", "/api/channels/kept/history"),
        )
        for path in paths:
            headers = {"Authorization": f"Bearer {API_KEY}"}
            async with self.operator.get(self.node.url(path), headers=headers, allow_redirects=False) as answer:
                # Until the set of nodes is mended a node's own page may say that it does not know it.
                expected = (200, 404) if "/nodes/" in path else (200,)
                assert answer.status in expected, f"{path}: {answer.status} {(await answer.text())[:300]}"

    async def service_answers(self) -> None:
        """Ask all that an application may ask."""
        service = self.embedded.service
        await service.status()
        for listing in (
            service.get_connections(),
            service.get_connections_by_channel("kept"),
            service.get_online("kept"),
        ):
            async for each in listing:
                assert each
        await service.operations.series()
        for book in ("events", "audit"):
            await service.operations.read(book)
        await service.history("kept")

    async def rejected(self) -> int:
        """Count what both nodes have rejected."""
        found = re.search(r"^gateway_injections_rejected_total (\S+)$", (await self.node.get("/metrics")).text, re.M)
        assert found is not None
        return int(float(found[1])) + self.embedded.service.counters.rejected

    async def poison(self, *commands: Command) -> None:
        async with self.redis.client() as client, client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            await pipeline.execute(raise_on_error=False)

    async def move(self) -> None:
        """Have a member of each node leave and come back: what is written there meets what stands there."""
        for client in self.members:
            await client.request("$leave", channel="kept")
            await client.request("$join", channel="kept")


@pytest.fixture
async def scene(
    redis: RedisServer,
    start_nodes: StartNodes,
    connect: Clients,
    session: ClientSession,
    caplog: pytest.LogCaptureFixture,
) -> AsyncIterator[Scene]:
    """Two nodes at work; at the end neither has logged a traceback."""
    settings: dict[str, Any] = {"channels": HISTORY, "presence_grace": 1}
    own: dict[str, Any] = {"handler": "named:Named", "api_key": API_KEY, "admin_password": PASSWORD}
    [node] = await start_nodes(1, redis, **own, **settings)
    assert (await log_in(session, node)).status == 303
    embedded = Embedded(redis.url, **settings)
    await embedded.start()
    try:
        one = await connect(address(node, "ada", ["kept", "hall"]), protocols=V1)
        two = await embedded.connect(connect, "kept", user="bob", protocols=V1)
        await embedded.service.join(two.id, "hall")
        id = (await one.expect("$welcome"))["param"]["connection"]
        scene = Scene(redis, node, session, embedded, [one, two.client], [id, two.id])
        await scene.works()
        yield scene
        assert "Traceback" not in node.output
        assert [record for record in caplog.records if record.exc_info] == []
    finally:
        await embedded.stop()


# What a node keeps, and looks at often enough to find out.
KEPT = (
    *("nodes", "channels", "users", "members", "online", "tabs", "node", "node connections", "user connections"),
    *("connection", "claim", "reaped", "rival"),
)


async def test_a_key_of_any_other_type_is_survived_and_mended(scene: Scene) -> None:
    """Whatever stands where a node keeps something: it goes on, and what is its own is right again."""
    keys = scene.keys()
    assert [kind for kind, key in keys.items() if not KEYS.type_of(key)] == []
    for type, write in WRITE.items():
        wrong = [key for key in keys.values() if KEYS.type_of(key) != type]
        await scene.poison(*(command for key in wrong for command in (("DEL", key), write(key))))
        await scene.works()
        await scene.move()
    assert await scene.rejected() > 0
    await scene.works()

    async def is_right() -> bool:
        types = {keys[kind]: await scene.redis.command("TYPE", keys[kind]) for kind in KEPT}
        assert {key: found for key, found in types.items() if found not in ("none", KEYS.type_of(key))} == {}
        assert await scene.redis.command("SMEMBERS", KEYS.node_connections(scene.node.id)) == {scene.ids[0]}
        assert await scene.redis.command("SMEMBERS", KEYS.members("kept")) == set(scene.ids)
        return True

    await eventually(is_right, 20, tolerating=(ResponseError,))


def fields_of(key: str, names: tuple[str, ...]) -> Iterator[Command]:
    return (("HSET", key, name, value) for name in names for value in VALUES)


async def test_any_value_in_a_hash_or_a_set_is_survived(scene: Scene) -> None:
    """Numbers of 5,000 digits, no text, no end, no names: what is wrong reads as absent, and the rest is shown."""
    keys = scene.keys()
    lease = ("started", "connections", "memory", "lag", "state", "trouble", "host", "version", "process", "incarnation")
    hashes = {
        keys["node"]: lease,
        keys["connection"]: ("node", "user", "name", "channels", "started", "remote", "agent"),
        keys["tabs"]: ("ada", "bob", "x"),
        KEYS.connection(scene.ids[1]): ("node", "user", "name", "channels", "started", "remote"),
    }
    for key, names in hashes.items():
        for value in VALUES:
            await scene.poison(*(("HSET", key, name, value) for name in names))
            await scene.service_answers()
        await scene.works()
        await scene.move()
    before = await scene.rejected()
    sets = ("nodes", "channels", "users", "members", "online", "node connections", "user connections")
    for kind in sets:
        await scene.poison(("SADD", keys[kind], *MEMBERS, scene.ids[1]))
        await scene.works()
        await scene.move()
    await scene.poison(
        *(("ZADD", keys[kind], score, *MEMBERS[:1]) for kind in ("leaving",) for score in ("inf", "-inf", 1))
    )
    await scene.poison(
        *(("SET", keys[kind], value) for value in VALUES for kind in ("rules", "database", "claim", "rival"))
    )
    for book in ("events", "audit"):
        await scene.poison(
            *(("XADD", keys[book], "*", "entry", value) for value in VALUES), ("XADD", keys[book], "*", "a", "b")
        )
    await scene.works()
    assert await scene.rejected() > before
    found = [info async for info in scene.embedded.service.get_connections()]
    assert {info.id for info in found} == set(scene.ids)


async def test_the_connections_of_another_node_are_no_ghosts(scene: Scene) -> None:
    """Named by a hand among those of a node that registers anew, they lose nothing."""
    other = scene.ids[1]
    key = KEYS.node_connections(scene.node.id)
    await scene.poison(("SADD", key, other), ("DEL", KEYS.node(scene.node.id)))

    async def is_cleaned() -> bool:
        held = await scene.redis.command("SMEMBERS", key)
        return bool(held == {scene.ids[0]})

    await eventually(is_cleaned, 20)
    assert await scene.redis.command("SISMEMBER", KEYS.members("kept"), other)
    assert await scene.redis.command("EXISTS", KEYS.connection(other))
    assert "bob" in await scene.redis.command("SMEMBERS", KEYS.online("kept"))


POSITIONS: list[Command] = [
    *(("HSET", KEYS.position("kept"), field, value) for field in ("offset", "start", "epoch") for value in VALUES),
    ("HDEL", KEYS.position("kept"), "epoch"),
    ("XADD", KEYS.stream("kept"), "18446744073709551615-1", "x", "y"),
    ("XADD", KEYS.stream("kept"), "999999999999999-1", "message", '{"cmd":"x"}'),
]


async def test_a_position_that_was_poisoned_is_set_right_from_the_stream(scene: Scene) -> None:
    """What was kept stays, a new epoch goes on behind it, and every member hears what is written next."""
    await scene.redis.command("SET", KEYS.sent("kept", "somebody"), HUGE)
    for number, command in enumerate(POSITIONS):
        await scene.poison(command)
        at = await scene.embedded.service.write_channel("after", number, "kept")
        assert at is not None
        for client in scene.members:
            await client.expect("after", param=number)
    page = await scene.embedded.service.history("kept", limit=50)
    kept = [json.loads(message.payload) for message in page.messages]
    assert [message["param"] for message in kept if message["cmd"] == "after"][-5:] == [
        *range(len(POSITIONS) - 5, len(POSITIONS))
    ]
    assert len(kept) > 20
    await scene.works()
    await _is_not_waited_for(scene)


async def _is_not_waited_for(scene: Scene) -> None:
    """Publish what claims to be far ahead: history is read once to see, and was not there, so nobody has written it."""
    at = await scene.embedded.service.write_channel("x", 1, "kept")
    assert at is not None
    payload = b'{"channel":"kept","cmd":"forged","param":null}'
    for offset in (at.offset + 1000, 2**63, 0):
        await scene.redis.command("PUBLISH", "gateway:channel:kept", msgpack.packb([at.epoch, offset, 1, [payload]]))
    await scene.works()
    rereads = scene.embedded.service.counters.rereads
    await scene.works()
    assert scene.embedded.service.counters.rereads == rereads
    assert "forged" not in {message["cmd"] for client in scene.members for message in client.received}


async def test_somebody_who_is_no_node_sees_the_cluster_all_the_same(scene: Scene) -> None:
    """The command line, and publishers: what they read is as spoiled as what nodes read."""
    keys = ("gateway:rules", "gateway:nodes", "gateway:channels", "gateway:users", KEYS.node(scene.node.id))
    for command in (*WRITE.values(), lambda key: ("SET", key, HUGE)):
        await scene.poison(*(each for key in keys for each in (("DEL", key), command(key))))
        own = settings_of(scene.redis.url, prefix="gateway", publish_timeout=10)
        async with Guest(own).running() as guest:
            await guest.presence.count()
            await guest.presence.nodes()
            assert await guest.presence.rules() == ()
