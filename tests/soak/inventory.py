"""What Redis holds, and what it should hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from gateway.protocol.message import node_of
from gateway.redis.keys import Keys

KEYS = Keys("gateway")
LASTING = ("gateway:stream:", "gateway:position:", "gateway:events", "gateway:audit", "gateway:rules", "gateway:seed")
"""What stays when nobody is connected; anything else has to expire."""


@dataclass(frozen=True)
class Expected:
    """Who is connected, and where."""

    nodes: set[str]
    members: Mapping[str, int]
    """How many connections are in each channel."""
    online: Mapping[str, int]
    """How many users, an anonymous connection being one of its own."""
    users: Mapping[str, int]
    """How many connections each identified user has."""
    connections: int


async def differences(redis: Redis, expected: Expected) -> list[str]:
    """Return in what Redis is not as it should be while everybody is connected."""
    wrong = [
        *_unequal("nodes", await _names(redis, KEYS.nodes), expected.nodes),
        *_unequal("channels", await _names(redis, KEYS.channels), set(expected.members)),
        *_unequal("users", await _names(redis, KEYS.users), set(expected.users)),
    ]
    pipeline = redis.pipeline(transaction=False)
    sizes = {
        **{KEYS.members(channel): count for channel, count in expected.members.items()},
        **{KEYS.online(channel): count for channel, count in expected.online.items()},
        **{KEYS.user_connections(user): count for user, count in expected.users.items()},
    }
    for key in sizes:
        pipeline.scard(key)
    found = dict(zip(sizes, await pipeline.execute(), strict=True))
    wrong += [f"{key} has {found[key]}, not {size}" for key, size in sizes.items() if found[key] != size]
    held = [await redis.scard(KEYS.node_connections(node)) for node in sorted(expected.nodes)]
    if sum(held) != expected.connections:
        wrong.append(f"the nodes have {held} connections, not {expected.connections}")
    hashes = sum([1 async for _ in redis.scan_iter("gateway:connection:*", count=1000)])
    if hashes != expected.connections:
        wrong.append(f"there are {hashes} hashes of connections, not {expected.connections}")
    return wrong + await _subscriptions(redis, list(expected.members), list(expected.users))


async def leftovers(redis: Redis, *, nodes: int) -> list[str]:
    """Return what is there though nobody is connected any more, to so many nodes."""
    wrong = await _subscriptions(redis, [], [])
    if (found := await redis.scard(KEYS.nodes)) != nodes:
        wrong.append(f"{found} nodes, not {nodes}")
    async for key in redis.scan_iter("gateway:*", count=1000):
        if nodes and (key == KEYS.nodes or key.startswith("gateway:node:")):
            continue
        if not key.startswith(LASTING) and await redis.ttl(key) == -1:
            wrong.append(f"{key} is still there")
    return wrong


async def _subscriptions(redis: Redis, channels: Sequence[str], users: Sequence[str]) -> list[str]:
    """Compare who is subscribed: each node to the channels and users of its connections, and to no others."""
    wanted: dict[str, int] = {}
    for kind, names, members in (("channel", channels, KEYS.members), ("user", users, KEYS.user_connections)):
        for name in names:
            wanted[f"gateway:{kind}:{name}"] = len({node_of(id) for id in await _names(redis, members(name))})
    topics = [*await redis.pubsub_channels("gateway:channel:*"), *await redis.pubsub_channels("gateway:user:*")]
    counts = {str(topic): int(count) for topic, count in await redis.pubsub_numsub(*topics)} if topics else {}
    return [
        f"{counts.get(topic, 0)} nodes are subscribed to {topic}, not {wanted.get(topic, 0)}"
        for topic in sorted(wanted.keys() | counts.keys())
        if counts.get(topic, 0) != wanted.get(topic, 0)
    ]


def _unequal(what: str, found: set[str], wanted: set[str]) -> list[str]:
    if found == wanted:
        return []
    return [f"{what}: {sorted(found - wanted)[:5]} too many, {sorted(wanted - found)[:5]} missing"]


async def _names(redis: Redis, key: str) -> set[str]:
    return set(map(str, await redis.smembers(key)))
