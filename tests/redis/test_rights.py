"""The rights that a node needs in Redis are those that the documentation names, and no more."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.harness.client import Clients
from tests.harness.http import request
from tests.harness.node import Nodes
from tests.harness.ports import HOST
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

ROOT = Path(__file__).parents[2]
V1 = ["gateway.v1.json"]
KEY = "key-of-the-api"
WITHOUT_DANGEROUS = "gateway on >PASSWORD ~gateway:* &gateway:* +@all -@dangerous -@admin"


def documented() -> str:
    """Return the rules in the documentation, from the name of the user on."""
    text = (ROOT / "docs" / "redis-rights.md").read_text()
    found = re.search(r"^ACL SETUSER (gateway .*)$", text, re.MULTILINE)
    assert found is not None
    return found[1]


def test_every_command_of_the_sources_is_documented() -> None:
    """Those of scripts as well, and of work that is seldom done, such as cleaning up after a dead node."""
    named: set[str] = set()
    for file in (ROOT / "gateway").rglob("*.lua"):
        named.update(re.findall(r"(?:call\(|pcall\(|entries\()'([A-Z]+)'", file.read_text()))
    for package in ("presence", "backplane"):
        for file in (ROOT / "gateway" / package).glob("*.py"):
            named.update(re.findall(r'(?:ask|write|call|request|inquire)\([^()]*\(?"([A-Z]{3,})"', file.read_text()))
    elsewhere = {"AUTH", "CLUSTER", "SLOTS", "SENTINEL", "CLIENT", "SETNAME", "CONFIG", "SCRIPT", "LOAD", "MISCONF"}
    assert {"HSET", "EXISTS", "XREVRANGE"} <= named
    assert sorted(name for name in named - elsewhere if f"+{name.lower()} " not in f"{documented()} ") == []


@pytest.mark.redis
@pytest.mark.parametrize("rules", [documented(), WITHOUT_DANGEROUS], ids=["least", "without dangerous"])
async def test_a_node_lives_with_these_rights(
    own_redis: RedisServer, start_nodes: Callable[..., Awaitable[Nodes]], connect: Clients, rules: str
) -> None:
    """It starts, joins, publishes, keeps, lists, counts, heals and ends, and nothing is refused."""
    await own_redis.command("ACL", "SETUSER", *rules.replace("PASSWORD", "pw").split())
    channels = [{"match": "kept", "history": 5}]
    url = f"redis://gateway:pw@{HOST}:{own_redis.port}/0"
    nodes = await start_nodes(
        2, url, channels=channels, api_key=KEY, max_connections_per_user=5, presence_grace=1, presence_max=1
    )
    clients = [await connect(node, "kept", "lobby", protocols=V1) for node in nodes]
    for client in clients:
        await client.expect("$welcome")

    async def reach() -> None:
        for channel in ("lobby", "kept"):
            await clients[0].send("chat", {"text": "hi"}, channel=channel)
            for client in clients:
                await client.expect("chat", channel=channel)

    await reach()
    headers = {"Authorization": f"Bearer {KEY}"}
    for path in ("status", "nodes", "connections", "channels", "channels/kept", "channels/kept/history"):
        answer = await request("GET", nodes[1].url(f"/api/{path}"), headers=headers)
        assert answer.status == 200, answer.text
    assert len((await clients[0].request("$history", channel="kept"))["param"]["messages"]) == 1
    await own_redis.command("FLUSHALL")
    for kind in ("pubsub", "normal"):
        await own_redis.command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    await eventually(lambda: own_redis.command("SCARD", "gateway:members:lobby"), 20)
    await clients[0].request("$leave", channel="kept")
    await clients[0].request("$join", channel="kept")
    await eventually(lambda: _are_well(nodes), 20)
    await reach()
    await clients[1].drop()
    for node in nodes:
        refused = re.findall(r"gateway_redis_refusals_total\{.*\} (\S+)", (await node.get("/metrics")).text)
        assert set(refused) == {"0.0"}, node.output
    assert await nodes.stop() == [0, 0]
    lacking = [line for line in nodes[0].output.splitlines() if "does without" in line]
    assert len(lacking) == (rules == WITHOUT_DANGEROUS), nodes[0].output


async def _are_well(nodes: Nodes) -> bool:
    return all([(await node.get("/readyz")).json["status"] == "ok" for node in nodes])
