"""What the page for broadcasts says to type: it arrives, on one Redis and in a Redis Cluster, under any prefix."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.backplane import ALL, DIRECT, Target
from gateway.redis.keys import Keys
from gateway.server.admin.views import picture_of
from tests.harness.client import Clients
from tests.harness.cluster import RedisCluster
from tests.harness.embedded import Embedded
from tests.harness.redis import RedisServer

README = Path(__file__).parents[3] / "README.md"
PREFIX = "of.others"
TOPICS = {"channel": "channel:lobby", "user": "user:ada", "connection": "direct", "all": "all"}


def test_the_readme_has_the_same_topics_and_command() -> None:
    """As they are on one Redis, without a prefix of one's own."""
    keys = Keys("gateway")
    topics = [keys.topic(target).decode() for target in (Target("channel", "NAME"), Target("user", "ID"), ALL, DIRECT)]
    lobby = f"{keys.verbs.publish.decode()} {keys.topic(Target('channel', 'lobby')).decode()}"
    text = " ".join(README.read_text().split())
    assert "Topics, to write by hand: " + ", ".join(f"`{topic}`" for topic in topics) in text
    assert f"`redis-cli {lobby} '{{" in text


@pytest.fixture(params=["redis", "small_cluster"])
def any_redis(request: pytest.FixtureRequest) -> RedisServer | RedisCluster:
    redis: RedisServer | RedisCluster = request.getfixturevalue(request.param)
    return redis


@pytest.fixture
async def node(any_redis: RedisServer | RedisCluster) -> AsyncIterator[tuple[Embedded, RedisServer]]:
    """A node, and a server of its Redis for `redis-cli` to begin at."""
    node = Embedded(any_redis.url, prefix=PREFIX)
    await node.start()
    yield node, any_redis.servers[0] if isinstance(any_redis, RedisCluster) else any_redis
    await node.stop()


@pytest.mark.redis
@pytest.mark.parametrize("kind", TOPICS)
async def test_what_is_to_be_typed_arrives(node: tuple[Embedded, RedisServer], connect: Clients, kind: str) -> None:
    """Command and topic are as the node says, put together as the page does."""
    embedded, server = node
    member = await embedded.connect(connect, "lobby", user="ada")
    name = {"channel": "lobby", "user": "ada", "connection": member.id, "all": ""}[kind]
    picture = await picture_of("broadcast", embedded.service, {})
    program, *command = picture["publish"].split()
    assert program == "redis-cli"
    topic = name.join(picture["topics"][kind])
    assert topic.replace("{", "").replace("}", "") == f"{PREFIX}:{TOPICS[kind]}"
    payload: dict[str, Any] = {"cmd": "typed"} | ({"connection": name} if kind == "connection" else {})
    await server.cli(*command, topic, json.dumps(payload))
    await member.client.expect("typed")
