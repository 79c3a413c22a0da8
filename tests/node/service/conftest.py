"""One contract for every backplane: each test here runs on one node alone and on two nodes with a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.harness.client import Clients
from tests.harness.embedded import EmbeddedCluster

StartCluster = Callable[..., Awaitable[EmbeddedCluster]]


@pytest.fixture(params=["memory", "redis"])
def backplane_url(request: pytest.FixtureRequest) -> str:
    """The address of each backplane there is."""
    return "memory://" if request.param == "memory" else str(request.getfixturevalue("redis_url"))


@pytest.fixture
async def start_cluster(backplane_url: str, connect: Clients) -> AsyncIterator[StartCluster]:
    """Starts two nodes: `await start_cluster(handler=ChatHandler(), presence_max=2)`."""
    started: list[EmbeddedCluster] = []

    async def start(**options: Any) -> EmbeddedCluster:
        started.append(EmbeddedCluster(backplane_url, connect, **options))
        await started[-1].start()
        return started[-1]

    yield start
    await connect.close()
    for cluster in started:
        await cluster.stop()


@pytest.fixture
async def cluster(start_cluster: StartCluster) -> EmbeddedCluster:
    """Two nodes whose handler knows no commands."""
    return await start_cluster()
