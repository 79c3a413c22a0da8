"""Real browsers on three nodes behind haproxy, which are restarted and killed: `scripts/chaos.py`, in short."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.harness.browser import Pages
from tests.harness.chaos import Chaos
from tests.harness.feed import RULES
from tests.harness.haproxy import Haproxy
from tests.harness.node import Nodes
from tests.harness.numbered import running
from tests.harness.redis import RedisServer

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.slow]


async def test_a_numbered_stream_stays_whole_in_every_browser(
    redis: RedisServer,
    start_nodes: Callable[..., Awaitable[Nodes]],
    start_haproxy: Callable[[Nodes], Awaitable[Haproxy]],
    pages: Pages,
) -> None:
    """Complete, in order, nothing twice, and no gap, whatever becomes of the nodes."""
    nodes = await start_nodes(3, redis, channels=RULES, drain_seconds=2)
    balancer = await start_haproxy(nodes)
    async with running(redis.url) as backplane:
        report = await Chaos(nodes, balancer, backplane, seed=1).run(pages, browsers=2, seconds=12)
    assert report.written > 100
    assert max(report.connects) > 1
