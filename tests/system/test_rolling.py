"""A cluster that is rolled at noon: 2,000 clients, three nodes behind haproxy, one after the other drained."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from gateway.client import Client, connect
from gateway.node.drain import ANSWERING, RESTART_SPREAD, WAVE, patience, pause, waves
from tests.harness.feed import KEPT, RULES
from tests.harness.follower import Follower, SentAway, following
from tests.harness.haproxy import Haproxy
from tests.harness.node import Nodes
from tests.harness.numbered import running
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream, assert_whole
from tests.harness.wait import eventually

CLIENTS = int(os.environ.get("DRAIN_CLIENTS", "2000"))
OURS = CLIENTS // 50
"""Of them: with the client that the package brings. They take a hundred times the work of the others."""
DRAIN_SECONDS = 5


class Return:
    """One client of ours: what it has heard, and how often it connected."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.heard = client.messages("kept", "n", limit=10_000)


@asynccontextmanager
async def returning(url: str, count: int) -> AsyncIterator[list[Return]]:
    """Connect clients that come back by themselves, members of the channel with the stream."""
    async with AsyncExitStack() as stack:
        clients = [Return(await stack.enter_async_context(connect(url))) for _ in range(count)]
        await asyncio.gather(*(each.client.join("kept") for each in clients))
        yield clients


def planned(count: int) -> float:
    """Return how long the waves of a node last that holds so many connections."""
    seconds = patience(DRAIN_SECONDS) * (1 - ANSWERING) - pause(count, 2, DRAIN_SECONDS)
    return len(waves(count, seconds)) * WAVE


def returns(away: list[SentAway]) -> Counter[int]:
    """Count the returns of one node's clients by the second for which they were asked for.

    Counted from when each was told, and where the machine stood still, so that it was told late, from when the last
    wave was due: it is the node's spread that is judged, not the machine's stalls.
    """
    first = min(each.at for each in away)
    last = first + planned(len(away))
    return Counter(int(min(each.at, last) - first + each.retry_after) for each in away)


def assert_spread(away: list[SentAway]) -> None:
    """Fail if a second has more than twice the average of returns."""
    counts = returns(away)
    average = len(away) / (planned(len(away)) + RESTART_SPREAD)
    assert max(counts.values()) <= 2 * average, f"{sorted(counts.items())}, {average:.0f} on average"


def by_node(followers: Iterable[Follower]) -> dict[str, list[SentAway]]:
    """Return whom each node sent away."""
    found: dict[str, list[SentAway]] = {}
    for each in followers:
        for away in each.sent_away:
            found.setdefault(away.node, []).append(away)
    return found


async def test_a_cluster_is_rolled_while_clients_follow_a_stream(
    redis: RedisServer,
    start_nodes: Callable[..., Awaitable[Nodes]],
    start_haproxy: Callable[[Nodes], Awaitable[Haproxy]],
) -> None:
    """Every client has every message, once, in order; and no second sees more than twice the average of returns."""
    nodes = await start_nodes(3, redis, channels=RULES, drain_seconds=DRAIN_SECONDS, presence_max=10)
    balancer = await start_haproxy(nodes)
    url = balancer.ws_url()
    async with (
        running(redis.url) as backplane,
        returning(url, OURS) as ours,
        following(url, "kept", CLIENTS - OURS) as followers,
    ):
        stream = Stream(lambda n: backplane.append("kept", Stream.envelope("kept", n), KEPT), pause=0.25)
        async with stream.flowing():
            for node in nodes:
                assert await node.stop() == 0
                await node.start()
                await balancer.state(node, "UP")
            await eventually(lambda: all(each.client.stats().connects > 1 for each in ours), 30)

        def is_whole() -> bool:
            return all(each.last == stream.sent for each in followers) and all(
                (at := each.client.position("kept")) and at.offset == stream.sent for each in ours
            )

        await eventually(is_whole, 30, what="all of it for all of them")
        assert not [fault for each in followers for fault in each.faults][:10]
        for each in ours:
            each.heard.end()
            assert_whole([message.param async for message in each.heard], stream.sent)
            assert each.client.stats().gaps == 0

    told = by_node(followers)
    assert set(told) == {node.id for node in nodes}
    # Whoever did not answer its close in time was cut off, which only a machine that stood still explains.
    assert sum(map(len, told.values())) > 0.9 * (sum(each.joined for each in followers) - len(followers))
    for away in told.values():
        assert_spread(away)
    waves_seen = {(each.node, int(each.at / WAVE)) for away in told.values() for each in away}
    assert len(waves_seen) > 6, "not in waves"
