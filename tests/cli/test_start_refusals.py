"""A node that cannot start: one line, which names the cause, the command, the key or topic, and what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.harness.cluster import RedisCluster
from tests.harness.node import gateway
from tests.harness.numbered import running
from tests.harness.ports import HOST
from tests.harness.redis import RedisServer
from tests.harness.sentinel import Sentinel

pytestmark = pytest.mark.redis

StartRedis = Callable[..., Awaitable[RedisServer]]
RULES = ("on", ">pw", "resetkeys", "resetchannels", "-@all")


async def start(url: str, seconds: float = 6) -> str:
    """Run a node that must not start; return its only line."""
    process = gateway("serve", "--port", "0", "--redis-url", url, "--startup-timeout", str(seconds))
    try:
        process.start()
        assert await process.wait(deadline=30) == 1, process.output
        lines = [line for line in process.output.splitlines() if " starting: " not in line]
        assert len(lines) == 1, process.output
        return lines[0]
    finally:
        process.close()


@dataclass(frozen=True)
class Acl:
    """Rules of a user with which no node can start, and what it must say."""

    name: str
    rules: tuple[str, ...]
    words: tuple[str, ...]


ACLS = [
    Acl("no keys", ("&*", "+@all"), ("NOPERM", "HMGET on gateway:node:*")),
    Acl("other keys", ("~other:*", "&*", "+@all"), ("NOPERM", "HMGET on gateway:node:*")),
    Acl("no topics", ("~*", "+@all"), ("NOPERM", "SUBSCRIBE on gateway:beat:*")),
    Acl("no subscribing", ("~*", "&*", "+@all", "-subscribe"), ("NOPERM", "SUBSCRIBE on gateway:beat:*")),
    Acl("no hashes", ("~*", "&*", "+@all", "-hset"), ("NOPERM", "HSET in EVALSHA (script take) on gateway:node:*")),
    Acl("no scripts", ("~*", "&*", "+@all", "-@scripting"), ("NOPERM", "SCRIPT LOAD")),
    Acl("no lists of members", ("~*", "&*", "+@all", "-sscan"), ("NOPERM", "SSCAN on gateway:node:*")),
    Acl("nothing", (), ("NOPERM", "SUBSCRIBE on gateway:beat:*")),
]


async def test_what_the_rules_forbid_is_named(redis: RedisServer) -> None:
    """The command, and the kind of key or topic."""

    async def forbidden(acl: Acl) -> None:
        user = acl.name.replace(" ", "-")
        await redis.command("ACL", "SETUSER", user, *RULES, *acl.rules)
        line = await start(f"redis://{user}:pw@{HOST}:{redis.port}/0")
        assert all(word in line for word in acl.words), (acl.name, line)
        assert "no Redis at" not in line
        assert ":pw@" not in line

    try:
        await asyncio.gather(*map(forbidden, ACLS))  # waiting is most of it
    finally:
        await redis.command("ACL", "DELUSER", *(acl.name.replace(" ", "-") for acl in ACLS))


async def test_a_wrong_password_is_named_at_once(redis: RedisServer) -> None:
    assert "WRONGPASS" in await start(f"redis://gw:wrong@{HOST}:{redis.port}/0", 60)


SERVERS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"rename_command": 'SSCAN ""'}, ("UNKNOWN", "renamed", "SSCAN on gateway:node:*")),
    ({"rename_command": 'EVALSHA "other"'}, ("UNKNOWN", "renamed", "EVALSHA (script claim) on gateway:claim:*")),
    ({"rename_command": 'SUBSCRIBE ""'}, ("UNKNOWN", "SUBSCRIBE on gateway:beat:*")),
    ({"maxmemory": 1}, ("OOM", "maxmemory", "SET in EVALSHA (script claim) on gateway:claim:*")),
    ({"min_replicas_to_write": 1}, ("NOREPLICAS", "replicas")),
]


async def test_what_a_server_refuses_is_named(start_redis: StartRedis) -> None:
    """Whatever it was configured to."""

    servers = [await start_redis(**options) for options, _ in SERVERS]

    async def refuses(redis: RedisServer, words: tuple[str, ...]) -> None:
        line = await start(redis.url)
        assert all(word in line for word in words), line
        assert "no Redis at" not in line

    await asyncio.gather(*(refuses(redis, words) for redis, (_, words) in zip(servers, SERVERS, strict=True)))


async def test_data_that_are_being_loaded_are_named(start_redis: StartRedis) -> None:
    """However short the time that the node was given."""
    redis = await start_redis()
    await redis.command("DEBUG", "POPULATE", 20_000)
    redis.configure(key_load_delay=1000, loading_process_events_interval_bytes=1024)
    await redis.stop(keep_data=True)
    redis.process.start()
    assert "LOADING" in await start(redis.url, 1.5)


async def test_a_server_of_another_kind_is_named(redis: RedisServer, small_cluster: RedisCluster) -> None:
    """With the URL that it wants."""
    async with watching() as sentinel:
        places = {"redis": redis.port, "member": small_cluster.servers[0].port, "sentinel": sentinel.port}

        async def meets(url: str, *words: str) -> None:
            line = await start(url.format(**places))
            assert all(word in line for word in words), line

        await asyncio.gather(
            meets("redis://127.0.0.1:{member}/0", "MOVED", "redis+cluster://"),
            meets("redis+cluster://127.0.0.1:{redis}", "no Redis Cluster", "CLUSTER INFO"),
            meets("redis+sentinel://127.0.0.1:{sentinel}/gateway/0", "knows no master 'gateway'"),
            meets("redis://127.0.0.1:{sentinel}/0", "this is a sentinel"),
            meets("redis+sentinel://127.0.0.1:{redis}/gateway/0", "SENTINEL", "no sentinel"),
            meets("rediss://127.0.0.1:{redis}/0", "no TLS"),
        )


@asynccontextmanager
async def watching() -> AsyncIterator[Sentinel]:
    sentinel = Sentinel(sentinel=f"monitor other {HOST} 1 1")
    try:
        await sentinel.start()
        yield sentinel
    finally:
        sentinel.close()


async def test_a_sentinel_may_have_a_password_of_its_own(redis: RedisServer) -> None:
    """`sentinel_password` in the URL; without it, or with a wrong one, that is said at once."""
    sentinel = Sentinel(sentinel=f"monitor gateway {HOST} {redis.port} 1", requirepass="of-sentinel")
    try:
        await sentinel.start()
        url = f"redis+sentinel://{HOST}:{sentinel.port}/gateway/0"
        async with running(f"{url}?sentinel_password=of-sentinel") as backplane:
            assert not backplane.trouble
        wrong, none = await asyncio.gather(start(f"{url}?sentinel_password=wrong", 60), start(url, 60))
        assert "WRONGPASS" in wrong
        assert "sentinel_password=***" in wrong
        assert "NOAUTH" in none
    finally:
        sentinel.close()
