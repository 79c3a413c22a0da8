"""Whatever Redis refuses, wherever: a reason in `/readyz`, a line when it begins and one when it ends, a count."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.harness.admin import PASSWORD, log_in
from tests.harness.client import Clients
from tests.harness.node import Node, gateway
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

pytestmark = pytest.mark.redis

StartNode = Callable[..., Awaitable[Node]]
StartRedis = Callable[..., Awaitable[RedisServer]]
V1 = ["gateway.v1.json"]
KEPT = [{"match": "kept", "history": 10}]


@dataclass(frozen=True)
class Case:
    """Something that Redis refuses for a while."""

    name: str
    begin: Callable[[RedisServer], Awaitable[object]]
    end: Callable[[RedisServer], Awaitable[object]]
    words: tuple[str, ...]
    reason: str
    # What has to be asked for before Redis refuses it; the rest meets even a node that does nothing.
    act: tuple[str, str] | None = None


def command(*words: str | int) -> Callable[[RedisServer], Awaitable[object]]:
    return lambda redis: redis.command(*words)


def acl(*rules: str) -> Callable[[RedisServer], Awaitable[object]]:
    return command("ACL", "SETUSER", "default", *rules)


async def resubscribe(redis: RedisServer) -> None:
    await redis.command("ACL", "SETUSER", "default", "resetchannels", "&gateway:beat:*")
    await redis.command("CLIENT", "KILL", "TYPE", "pubsub")


CASES = [
    Case("oom", command("CONFIG", "SET", "maxmemory", 1), command("CONFIG", "SET", "maxmemory", 0), ("OOM",), "oom"),
    Case("misconf", RedisServer.break_saving, RedisServer.mend_saving, ("MISCONF",), "misconf"),
    Case(
        "too few replicas",
        command("CONFIG", "SET", "min-replicas-to-write", 1),
        command("CONFIG", "SET", "min-replicas-to-write", 0),
        ("NOREPLICAS",),
        "noreplicas",
    ),
    Case("no HSET", acl("-hset"), acl("+hset"), ("NOPERM", "HSET in EVALSHA (script renew)"), "noperm"),
    Case("no scripts", acl("-evalsha"), acl("+evalsha"), ("NOPERM", "EVALSHA", "gateway:node:*"), "noperm"),
    Case("no publishing", acl("-publish"), acl("+publish"), ("NOPERM", "PUBLISH on gateway:beat:*"), "noperm"),
    Case("other keys", acl("resetkeys", "~other:*"), acl("allkeys"), ("NOPERM", "gateway:node:*"), "noperm"),
    Case("other topics", resubscribe, acl("allchannels"), ("NOPERM", "SUBSCRIBE on gateway:node:*"), "noperm"),
    Case(
        "no stream",
        acl("-xadd"),
        acl("+xadd"),
        ("NOPERM", "XADD in EVALSHA (script append)"),
        "noperm",
        ("kept", "chat"),
    ),
    Case(
        "a key of ours that is none",
        command("SET", "gateway:members:spoilt", 1),
        command("DEL", "gateway:members:spoilt"),
        ("WRONGTYPE", "SADD in EVALSHA (script join)", "gateway:members:*"),
        "wrongtype",
        ("spoilt", "$join"),
    ),
]


async def reasons(node: Node) -> list[str]:
    answer = await node.get("/readyz")
    assert answer.status == 200, answer.text
    told: list[str] = answer.json["reasons"]
    assert answer.json["status"] == ("degraded" if told else "ok")
    return told


async def is_well(node: Node) -> bool:
    return not await reasons(node)


def lines_of(node: Node, since: int, *words: str) -> list[str]:
    return [line for line in node.output[since:].splitlines() if all(word in line for word in words)]


async def count_of(node: Node, name: str) -> float:
    lines = (await node.get("/metrics")).text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_refusal_is_told_until_it_is_over(
    start_redis: StartRedis, start_node: StartNode, connect: Clients, case: Case
) -> None:
    """By a node that has no clients, too: within seconds when it begins, and when it ends."""
    redis = await start_redis()
    node = await start_node(redis, channels=KEPT)
    await eventually(lambda: is_well(node))
    client = await connect(node, "kept", protocols=V1) if case.act else None
    if client is not None:
        await client.send("chat", {"text": "kept"})
        await client.expect("chat")
    since = len(node.output)
    await case.begin(redis)
    if client is not None and case.act is not None:
        channel, cmd = case.act
        await client.send(cmd, {"text": "hi"}, channel=channel)

    async def told() -> list[str]:
        return [line for line in await reasons(node) if all(word in line for word in case.words)]

    assert len(await eventually(told, 5, what=f"a reason with {case.words}")) == 1
    assert await count_of(node, f'gateway_redis_refusals_total{{reason="{case.reason}"}}') > 0
    assert await count_of(node, 'gateway_state{state="degraded"}') == 1
    await case.end(redis)
    await eventually(lambda: is_well(node), 15, what="no reasons")
    assert await count_of(node, 'gateway_state{state="ok"}') == 1
    assert client is None or await redis.command("XLEN", "gateway:stream:kept") == 1  # nothing was taken for damage
    lines = lines_of(node, since, *case.words)
    assert len(lines) == 2, lines
    assert lines[-1].endswith((": over", ": works again"))


async def test_no_node_is_no_good_news(
    start_redis: StartRedis, start_node: StartNode, connect: Clients, session: ClientSession
) -> None:
    """Where no lease can be renewed pages and `gateway status` name the node and the cause; nothing is green."""
    redis = await start_redis()
    node = await start_node(redis, id="only", admin_password=PASSWORD)
    await connect.many(3, node, "lobby")
    assert (await log_in(session, node)).status == 303
    healthy = await picture(session, node)
    assert [each["state"] for each in healthy["nodes"]] == ["ok"]
    assert healthy["notes"] == []
    assert (await status(redis))[0] == 0
    await redis.command("CONFIG", "SET", "maxmemory", 1)
    await redis.command("DEL", "gateway:node:only")  # as after ten seconds

    async def told() -> dict[str, Any]:
        now = await picture(session, node)
        assert [each["state"] for each in now["nodes"]] == ["unregistered"]
        assert any("OOM" in line for line in now["nodes"][0]["trouble"])
        assert any("OOM" in line for line in now["notes"])
        return now

    assert (await eventually(told))["totals"]["nodes"] == 0
    code, text = await status(redis)
    assert code == 1
    assert text.startswith("0 nodes, 3 connections")
    assert "TROUBLE: only is unregistered" in text
    assert "OOM" in text
    code, text = await status(redis, "--json")
    assert (code, json.loads(text)["well"]) == (1, False)
    assert [each["id"] for each in json.loads(text)["unregistered"]] == ["only"]
    await redis.command("CONFIG", "SET", "maxmemory", 0)

    async def well() -> bool:
        return (await status(redis))[0] == 0

    await eventually(well, 20)
    assert [each["state"] for each in (await picture(session, node))["nodes"]] == ["ok"]


async def test_a_redis_that_may_throw_everything_away_is_told(start_redis: StartRedis, start_node: StartNode) -> None:
    """One warning with what to set instead; nothing where it may not be asked."""
    redis = await start_redis(maxmemory_policy="allkeys-lru")
    await redis.command("ACL", "SETUSER", "default", "-config|get")  # INFO tells it as well
    node = await start_node(redis)
    lines = lines_of(node, 0, "maxmemory-policy allkeys-lru")
    assert len(lines) == 1
    assert " WARNING " in lines[0]
    await redis.command("ACL", "SETUSER", "default", "-info")
    assert not lines_of(await start_node(redis), 0, "maxmemory-policy")


async def test_a_node_that_waits_for_redis_says_so(start_redis: StartRedis, start_node: StartNode) -> None:
    """Its port answers: probes as ever, everybody else with 503; the log names what it waits for; then it is up."""
    redis = await start_redis()
    redis.freeze()
    node = Node(redis, startup_timeout=60)
    try:
        node.process.start()
        assert (await node.answers("/healthz", 200, deadline=30)).json["status"] == "ok"
        waiting = await node.answers("/readyz", 503)
        assert waiting.json["status"] == "starting"
        assert waiting.json["reasons"][0].startswith("starting: waiting for Redis to be reached")
        metrics = (await node.get("/metrics")).text
        assert metrics.count("gateway_state{") == 5
        assert 'gateway_state{state="ok"} 0.0' in metrics
        for path in ("/connect?ch=lobby", "/admin/websocket", "/api/status"):
            answer = await node.get(path)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            assert "waiting for Redis" in answer.text
        await eventually(lambda: "starting: waiting for Redis to be reached" in node.output)
        redis.thaw()
        assert (await node.answers("/readyz", 200, deadline=20)).json["status"] == "ok"
        assert (await node.get("/example")).status == 200
    finally:
        node.close()


async def picture(session: ClientSession, node: Node) -> dict[str, Any]:
    """Return what the overview shows."""
    async with session.get(node.url("/admin/websocket")) as answer:
        found = re.search(r'id="picture">(.*?)</script>', await answer.text(), re.DOTALL)
        assert found is not None
        told: dict[str, Any] = json.loads(found[1])
        return told


async def status(redis: RedisServer, *arguments: str) -> tuple[int, str]:
    """Run `gateway status`; return its exit code and what it printed."""
    process = gateway("status", "--redis-url", redis.url, *arguments)
    try:
        process.start()
        return await process.wait(deadline=30), process.output
    finally:
        process.close()
