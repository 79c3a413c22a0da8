"""Two databases of one Redis under one prefix: topics know no databases, so the nodes tell their operators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import msgpack
import pytest

from gateway.config import database_of
from gateway.operations import neighbours
from tests.harness.embedded import Embedded
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

StartNode = Callable[..., Awaitable[Embedded]]


@pytest.fixture
async def start(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartNode]:
    """Starts nodes on a database: `await start(1, prefix="staging")`; quick to greet."""
    monkeypatch.setattr(neighbours, "SOON", 0.1)
    monkeypatch.setattr(neighbours, "PERIOD", 0.3)
    async with AsyncExitStack() as stack:

        async def start(database: int, **settings: Any) -> Embedded:
            node = Embedded(f"{redis.url.removesuffix('/0')}/{database}", **settings)
            return await stack.enter_async_context(node)

        yield start


async def test_nodes_of_two_databases_notice_each_other(start: StartNode, caplog: pytest.LogCaptureFixture) -> None:
    """Each side warns once, naming both databases, the prefix and what to do, and says so while the other is there."""
    production, staging = await start(0), await start(1)
    for node, own, other in ((production, 0, 1), (staging, 1, 0)):
        await eventually(partial(_is_degraded, node))
        (reason,) = node.service.readiness.reasons
        for part in ("prefix 'gateway'", f"in database {other} ", f"in database {own}:", "another prefix"):
            assert part in reason
        assert node.service.readiness.serves
    warnings = [record for record in caplog.records if record.name == "gateway.operations.neighbours"]
    assert len(warnings) == 2


async def test_the_same_database_or_another_prefix_is_no_neighbour(start: StartNode, redis: RedisServer) -> None:
    """Also after Redis has lost its data, and with it the word by which nodes know their database."""
    nodes = [await start(0), await start(0), await start(1, prefix="staging")]
    heard = nodes[0].service.node.neighbours
    for _ in range(2):
        await _finds_another_word(heard, redis.command("DEL", "gateway:database"))
    await redis.command("PUBLISH", "gateway:nodes", msgpack.packb({"greets": "x", "database": -1, "word": 5}))
    await _finds_another_word(heard, redis.command("SET", "gateway:database", "9" * 5000))
    assert [reason for node in nodes for reason in node.service.node.neighbours.trouble] == []


def _is_degraded(node: Embedded) -> bool:
    return node.service.readiness.status == "degraded"


async def _finds_another_word(heard: neighbours.Neighbours, loss: Awaitable[object]) -> None:
    word = heard._word
    await loss
    await eventually(lambda: heard._word not in ("", word))


@pytest.mark.parametrize(
    ("url", "number"),
    [
        ("redis://h", 0),
        ("redis://h:1/5", 5),
        ("redis://h/5?db=7", 7),
        ("unix:///tmp/redis.sock?db=3", 3),
        ("unix:///tmp/7", 0),
        ("rediss+sentinel://h/main/4", 4),
        ("redis+cluster://h", 0),
    ],
)
def test_a_url_names_its_database(url: str, number: int) -> None:
    """As redis-py reads it."""
    assert database_of(url) == number
