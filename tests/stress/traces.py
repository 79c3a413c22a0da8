"""What nodes and Redis hold while nobody is connected: the same before and after every scenario."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from aiohttp import ClientSession

from tests.stress.checks import DEADLINE, Wrong, eventually
from tests.stress.node import Node
from tests.stress.peer import Peer
from tests.stress.redis import RedisServer

ZERO = (
    *("connections", "channels", "users", "outbox_bytes"),
    *("publish_queue_messages", "publish_queue_bytes"),
)
"""Metrics of a node without a client."""
STAYING = ("gateway:events", "gateway:audit", "gateway:seed")
"""Keys that appear when something happens, and stay: lists of bounded length, and what epochs follow from."""
PASSING = ("stream", "position", "sent", "reaped", "claim", "counted", "database", "rival")
"""Keys that may outlive what made them, and end by themselves."""
MORE = {"files": 3, "Connection": 1, "WebSocket": 1}
"""By how much something may grow once: files that are opened when first needed, what a loop looked at last."""

Look = dict[str, Any]


async def rest(nodes: Sequence[Node]) -> None:
    """Wait until no node has a client."""
    for node in nodes:
        await eventually(f"{node} holds nothing", partial(_not_zero, node), {})


async def look(redis: RedisServer, nodes: Sequence[Node], session: ClientSession) -> Look:
    """Note all of it."""
    found: Look = {
        "keys": await _lasting_keys(redis),
        "subscriptions": {f"{name} ({count})" for name, count in (await redis.subscriptions()).items()},
        "links": sorted(link["name"] for link in await redis.links()),
    }
    for node, held in zip(nodes, await asyncio.gather(*(_inspect(node, session) for node in nodes)), strict=True):
        found |= {f"{kind} of {node}": count for kind, count in held.items()}
    return found


async def returns(before: Look, redis: RedisServer, nodes: Sequence[Node], session: ClientSession) -> int:
    """Wait until it is again as it was before; return how much was compared. Raises `Wrong`."""
    await rest(nodes)
    ends = asyncio.get_running_loop().time() + DEADLINE
    while changes := _changes(before, await look(redis, nodes, session)):
        if asyncio.get_running_loop().time() > ends:
            raise Wrong(f"traces are left: {'; '.join(changes)}")
        await asyncio.sleep(0.1)
    await _forget_history(redis)
    return len(before) + len(ZERO) * len(nodes)


def _changes(before: Look, now: Look) -> list[str]:
    found = []
    for name, was in before.items():
        is_now = now[name]
        if isinstance(was, set):
            words = [f"{len(many)} {word} {sorted(many)[:5]}" for word, many in _split(was, is_now) if many]
            found += [f"{name}: {', '.join(words)}"] if words else []
        elif was != is_now and not (name.split()[0] in MORE and was < is_now <= was + MORE[name.split()[0]]):
            found.append(f"{name}: {was} before, {is_now} now")
    return found


def _split(was: set[str], now: set[str]) -> tuple[tuple[str, set[str]], ...]:
    return (("missing", was - now), ("too many", now - was))


async def _lasting_keys(redis: RedisServer) -> set[str]:
    """Return them; those of the clients that ask the nodes themselves may be on their way out."""
    lasting = set()
    for key in await redis.keys() - set(STAYING):
        if key.split(":")[1] not in PASSING or await redis.commands.ttl(key) == -1:
            lasting.add(key)
    return lasting


async def _forget_history(redis: RedisServer) -> None:
    keys = [key for key in await redis.keys() if key.split(":")[1] in PASSING]
    if keys:
        await redis.commands.delete(*keys)


async def _inspect(node: Node, session: ClientSession) -> dict[str, int]:
    peer = await Peer.connect(session, node)
    try:
        found: dict[str, int] = await peer.request("inspect")
        return found
    finally:
        await peer.close()


async def _not_zero(node: Node) -> dict[str, float]:
    metrics = await node.metrics()
    return {name: metrics[name] for name in ZERO if metrics[name]}
