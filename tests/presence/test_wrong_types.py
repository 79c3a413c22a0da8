"""Hands in the keys: whatever a person has written over the sets, no node dies of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import ClientSession

from gateway.connections.counters import Counters
from gateway.operations.journal_store import KEPT
from gateway.presence.registry import FIELDS, info_of
from gateway.protocol.message import make_id
from gateway.redis.keys import Keys
from gateway.redis.records import Record, Rejections, values
from tests.harness.admin import log_in_by_link
from tests.harness.client import Clients
from tests.harness.node import Node
from tests.harness.presence import PresenceNode
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

KEYS = Keys("gateway")
NO_KEYS = ("topic", "beat", "type_of", "book", "sent")
"""Topics, and keys that take something else than a name."""


def test_a_connection_is_read_whatever_stands_in_its_hash() -> None:
    """What cannot be read is as good as absent: whoever cleans up needs the rest."""
    found: list[bytes | None] = [b"n", b"ada", b"\xff", b"[1", b"soon", None]
    info = info_of(make_id("n", "1"), Record("key", values(FIELDS, found), Rejections(Counters())))
    assert (info.node, info.user, info.channels, info.started, info.remote) == ("n", "ada", (), 0, "")


NONSENSE: dict[str, tuple[str | bytes, ...]] = {
    "a node that has no name": ("SADD", KEYS.nodes, b"\xff"),
    "a dead node": ("SADD", KEYS.nodes, "dead"),
    "a channel that is no set": ("SET", KEYS.members("odd"), "x"),
}


async def test_a_node_outlives_nonsense_in_the_sets(
    own_redis: RedisServer, start_node: Callable[..., Awaitable[Node]], connect: Clients, session: ClientSession
) -> None:
    """It goes on reaping what is dead, too."""
    node = await start_node(own_redis)
    for command in NONSENSE.values():
        await own_redis.command(*command)
    dead = make_id("gone", "1")
    await own_redis.command("SADD", KEYS.nodes, "gone")
    await own_redis.command("SADD", KEYS.node_connections("gone"), dead)
    await own_redis.command("HSET", KEYS.connection(dead), "started", "soon", "channels", "[1", "user", b"\xff")

    async def is_reaped() -> bool:
        return not await own_redis.command("EXISTS", KEYS.connection(dead))

    await eventually(is_reaped, deadline=25)
    client = await connect(node, "odd")
    await client.send("ping")
    await client.expect("pong")
    assert "crashed" not in node.output
    async with await log_in_by_link(session, node) as answer:
        assert answer.status == 303
    async with session.get(node.url("/admin/websocket")) as overview:
        assert overview.status == 200


async def test_who_was_refused_writes_again_also_where_another_node_was_faster(redis: RedisServer) -> None:
    """What was in the way is gone before this node comes to it: the other one has written its own alone."""
    async with PresenceNode(redis.url).running() as node:
        ada = await node.somebody("ada", "first", "hall")
        for channel in ("first", "hall"):
            await redis.command("SET", KEYS.members(channel), "no set")
            await ada.leave(channel)  # the first one is mended at once, and the next a second later
            await ada.join(channel)
        await redis.command("DEL", KEYS.members("hall"))

        async def is_there() -> bool:
            return bool(await redis.command("SISMEMBER", KEYS.members("hall"), ada.id))

        await eventually(is_there, 10)


def test_every_kind_of_key_is_known_by_its_type() -> None:
    """One that is not would stay what a hand has made it."""
    kinds = (getattr(KEYS, name) for name in vars(Keys) if not name.startswith("_"))
    single = [KEYS.nodes, KEYS.channels, KEYS.users, KEYS.rules, KEYS.leaving_channels, KEYS.database]
    named = [kind("x") for kind in kinds if callable(kind) and kind.__name__ not in NO_KEYS]
    keys = [*single, *named, *map(KEYS.book, KEPT), KEYS.sent("x", "y")]
    assert [key for key in keys if not KEYS.type_of(key)] == []
