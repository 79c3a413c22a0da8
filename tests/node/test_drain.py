"""How a node ends: not ready first, then its clients sent away in waves."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any

import pytest

from gateway import Connection, Handler, Service
from gateway.node.drain import PAUSING, RESTART_SPREAD, SMALLEST, WAVE, patience, pause, returns, waves
from tests.harness.client import Clients
from tests.harness.crowd import Crowd
from tests.harness.embedded import Embedded
from tests.harness.node import Node
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

StartNode = Callable[..., Awaitable[Node]]

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


class TestPlan:
    @pytest.mark.parametrize("seconds", [0, 0.05, 1, 15.3, 600])
    @pytest.mark.parametrize("count", [0, 1, SMALLEST, 667, 100_000])
    def test_every_connection_has_a_wave(self, count: int, seconds: float) -> None:
        """As even as they can be, and no more of them than there is time for."""
        plan = waves(count, seconds)
        assert sum(plan) == count
        assert max(plan) - min(plan) <= 1
        assert (len(plan) - 1) * WAVE <= seconds

    def test_few_do_not_take_the_whole_time(self) -> None:
        """Twenty are gone within a second, the pause included."""
        assert pause(20, 2, 20) + len(waves(20, 15)) * WAVE < 1

    def test_many_take_most_of_it(self) -> None:
        """Ten thousand are spread over all the time that there is."""
        assert len(waves(10_000, 15.3)) == 153

    def test_no_time_is_one_wave(self) -> None:
        """`drain_seconds=0` closes all at once."""
        assert (waves(5000, 0), pause(5000, 2, 0)) == ([5000], 0)
        assert patience(0) > 0

    def test_the_pause_is_bounded(self) -> None:
        """By the setting, by a part of the time, and by how many there are to wait for; nobody is not waited for."""
        assert pause(10_000, 2, 20) == 2
        assert pause(10_000, 60, 20) == 20 * PAUSING
        assert pause(50, 60, 600) == 50 * WAVE / SMALLEST
        assert pause(0, 2, 20) == 0

    @pytest.mark.parametrize("count", [30, 667, 2000, 50_000])
    @pytest.mark.parametrize("drain_seconds", [0, 5, 10, 20, 120])
    def test_no_second_has_twice_the_average_of_reconnects(self, count: int, drain_seconds: float) -> None:
        """Every client returns so long after its wave as it is asked to: what that adds up to, second by second."""
        after, seen = returns(count), Counter[int]()
        plan = waves(count, patience(drain_seconds) * 0.6 if drain_seconds else 0)
        for wave, size in enumerate(plan):
            seen.update(int(wave * WAVE + back) for back in islice(after, size))
        assert max(seen.values()) <= 1.5 * count / ((len(plan) - 1) * WAVE + RESTART_SPREAD)


async def test_first_not_ready_then_away_and_asked_again_at_once(
    redis: RedisServer, start_node: StartNode, crowd: Crowd
) -> None:
    """The port answers 503 while all are still connected; a second SIGTERM sends everybody away."""
    node = await start_node(redis, drain_seconds=600, drain_pause=600)
    await crowd.join([node.ws_url()] * 1000)
    node.process.send_signal(signal.SIGTERM)
    assert (await node.answers("/readyz", 503)).json["status"] == "draining"
    refused = await node.get("/connect", headers=UPGRADE)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert crowd.open == 1000
    node.process.send_signal(signal.SIGTERM)
    assert await node.process.wait(deadline=8) == 0
    assert {member.close_code for member in crowd.members} == {1012}
    assert f"draining: node={node.id} connections=1000" in node.output
    assert f"stopped: node={node.id}" in node.output
    assert set(await redis.command("KEYS", "*")) <= {"gateway:events", "gateway:rules"}


@pytest.mark.parametrize(
    ("number", "drain_seconds"), [(signal.SIGINT, 600), (signal.SIGTERM, 0)], ids=["ctrl-c", "no time"]
)
async def test_all_at_once(start_node: StartNode, crowd: Crowd, number: signal.Signals, drain_seconds: float) -> None:
    """Ctrl-C keeps nobody waiting, and neither does a node that is given no time."""
    node = await start_node(drain_seconds=drain_seconds, drain_pause=600)
    await crowd.join([node.ws_url()] * 1000)
    node.process.send_signal(number)
    assert await node.process.wait(deadline=8) == 0
    await eventually(lambda: {member.close_code for member in crowd.members} == {1012})
    assert "cut off" not in node.output


async def test_waves_leave_in_time(start_node: StartNode, crowd: Crowd) -> None:
    """Whoever is connected is told to come back, before the time is over."""
    node = await start_node(drain_seconds=4)
    await crowd.join([node.ws_url()] * 800)
    node.process.send_signal(signal.SIGTERM)
    seen = set[int]()

    def has_ended() -> bool:
        seen.add(crowd.open)
        return not node.process.running

    await eventually(has_ended, deadline=8)
    assert await node.process.wait() == 0
    await eventually(lambda: {member.close_code for member in crowd.members} == {1012})
    assert len(seen) > 3, f"not in waves: {sorted(seen)}"
    assert "cut off" not in node.output


async def test_nobody_is_not_waited_for(start_node: StartNode) -> None:
    """A node without connections ends at once."""
    node = await start_node(drain_seconds=600, drain_pause=600)
    assert await node.stop(deadline=8) == 0


async def test_an_application_drains_as_well(connect: Clients) -> None:
    """Where the gateway is part of it: its connections get the same close."""
    async with Embedded("memory://", drain_seconds=600) as embedded:
        members = [await embedded.connect(connect, "lobby") for _ in range(3)]
    for member in members:
        assert "retry_after=" in (await member.client.expect_close(1012)).reason


class Slow(Handler):
    """Takes a moment for everything, and notes what it was through with."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.done: list[str] = []

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> None:
        self.begun.set()
        await asyncio.sleep(0.3)
        self.done.append(cmd)

    async def on_close(self, service: Service, connection: Connection) -> None:
        await asyncio.sleep(0.3)
        self.done.append("close")


async def test_the_handler_is_let_finish(connect: Clients) -> None:
    """The command in hand, and what it does about the end of a connection, while there is time."""
    handler = Slow()
    async with Embedded("memory://", handler=handler) as node:
        client = (await node.connect(connect)).client
        await client.send("save")
        await handler.begun.wait()
    await client.expect_close(1012)
    assert handler.done == ["save", "close"]


class Last(Handler):
    """Ends the node when told to."""

    drained = False

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> None:
        await service.drain()
        self.drained = True


async def test_a_command_may_end_the_node(connect: Clients) -> None:
    """It does not wait for itself."""
    handler = Last()
    async with Embedded("memory://", handler=handler) as node:
        client = (await node.connect(connect)).client
        await client.send("end")
        await client.expect_close(1012)
        await eventually(lambda: handler.drained)
