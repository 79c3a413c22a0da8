"""Who a node is: a name of its own where processes fork, and what becomes of two that have one name."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from gateway.application.publisher import Publisher
from gateway.errors import CannotStart
from gateway.presence import duplicates
from gateway.presence.lease import Lease
from gateway.presence.processes import has_ended, own_process
from gateway.presence.redis import RedisPresence
from tests.harness.client import Clients
from tests.harness.node import Node, Nodes
from tests.harness.ports import HOST
from tests.harness.presence import PresenceNode
from tests.harness.process import Process
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

StartNodes = Callable[..., Awaitable[Nodes]]
StartNamesake = Callable[[], Awaitable[PresenceNode]]


# ---- forks


@pytest.fixture
def forked(redis: RedisServer) -> Iterator[Process]:
    """Three workers of one application that was made before they were forked; each says where it listens."""
    process = Process(
        [sys.executable, "-m", "tests.harness.preforked", redis.url],
        name="preforked",
        environment={"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        without=("GATEWAY_",),
    )
    yield process
    process.close()


async def test_workers_that_were_forked_are_nodes_of_their_own(
    redis: RedisServer, forked: Process, connect: Clients
) -> None:
    """Every write to a connection id arrives; the audits find nothing to repair, and nobody is said to be gone."""
    forked.start()
    ports = await eventually(lambda: _ports(forked.output), 40)
    clients = [await connect(f"ws://{HOST}:{port}/connect?ch=lobby", protocols=["gateway.v1.json"]) for port in ports]
    ids = [(await client.expect("$welcome"))["param"]["connection"] for client in clients]
    assert len({id.rpartition("~")[0] for id in ids}) == 3
    assert await redis.command("SCARD", "gateway:nodes") == 3
    async with Publisher(redis.url) as publisher:
        for number in range(3):
            for id, client in zip(ids, clients, strict=True):
                await publisher.write_connection("note", number, id)
                await client.expect("note", param=number)
        await publisher.write_all("audit", None)
    for client in clients:
        assert (await client.request("audit"))["param"] == {"repairs": 0}
    assert await redis.command("SMEMBERS", "gateway:members:lobby") == set(ids)
    gone = [said for client in clients for said in client.received if said["cmd"] == "online-update"]
    assert [said for said in gone if not said["param"]["connected"]] == []


def _ports(output: str) -> list[int]:
    ports = [int(line.split()[1]) for line in output.splitlines() if line.startswith("port ")]
    assert len(ports) == 3
    return ports


# ---- one name, given twice


async def test_a_node_whose_name_is_taken_does_not_start(redis: RedisServer, start_nodes: StartNodes) -> None:
    """It says what it waits for, and then so in one line; it takes nothing away from the one that lives."""
    [first] = await start_nodes(1, redis, node_id="mine")
    second = Node(redis, node_id="mine", id="second")
    try:
        second.process.start()
        second.process.end_wanted = True
        assert await second.process.wait(30) == 1
        lines = [line for line in second.output.splitlines() if line.strip() and "starting: waiting" not in line]
        assert len(lines) == 1
        assert "node_id" in lines[0]
        assert "another process calls itself node mine" in lines[0]
    finally:
        second.process.close()
    assert await redis.command("SMEMBERS", "gateway:nodes") == {"mine"}
    assert json.loads((await first.get("/readyz")).text)["status"] == "ok"


async def test_a_node_that_was_killed_comes_back_under_its_name(redis: RedisServer, start_nodes: StartNodes) -> None:
    """At once on the same machine, whose processes tell that the one before is gone; its ghosts are removed."""
    [node] = await start_nodes(1, redis, node_id="mine")
    await node.process.kill()
    await redis.command("SADD", "gateway:node:mine:connections", "mine~1")
    await redis.command("EXPIRE", "gateway:node:mine", 1000)  # nobody could wait for that
    await node.start()
    assert await redis.command("TTL", "gateway:node:mine") <= 10
    assert not await redis.command("EXISTS", "gateway:node:mine:connections")


async def test_a_lease_of_another_machine_is_waited_for(redis: RedisServer) -> None:
    """Whether its process lives cannot be known: it may crash and come back there, so its lease is let run out."""
    await redis.command("HSET", "gateway:node:mine", "incarnation", "0123", "process", "elsewhere/1/2/3")
    await redis.command("PEXPIRE", "gateway:node:mine", 1500)
    async with PresenceNode(redis.url, id="mine").running():
        assert await redis.command("HGET", "gateway:node:mine", "incarnation") != "0123"


def test_a_process_is_known_by_more_than_its_number() -> None:
    """One that lives has not ended; of one with the same number elsewhere, or of rubbish, nothing is known."""
    own = own_process()
    place, _, begun = own.rpartition("/")
    assert own
    assert not has_ended(own)
    assert has_ended(f"{place}/{int(begun) + 1}")
    for other in ("", "/", "x", f"elsewhere{own}", own.replace("/", "//"), f"{place.rpartition('/')[0]}/x/1"):
        assert not has_ended(other), other


@pytest.fixture
async def namesakes(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartNamesake]:
    """Starts nodes of one name in this process; quick to renew and to look."""
    monkeypatch.setattr("gateway.presence.lease.PERIOD", 0.05)
    monkeypatch.setattr("gateway.presence.repair.AGAIN", 0.02)
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(PresenceNode(redis_url, id="mine").running())


async def test_of_two_that_live_under_one_name_neither_removes_what_the_other_holds(
    redis: RedisServer, namesakes: StartNamesake
) -> None:
    """One was frozen while the other started: both say so, and what both hold is in the sets, whoever looks."""
    first = await namesakes()
    ada = await first.somebody("ada", "lobby")
    incarnation = _lease(first)._incarnation
    # The lease runs out, and another process takes it, before the first one looks again.
    async with _lease(first)._turn:
        await redis.command("DEL", "gateway:node:mine")
        second = await namesakes()
    bob = await second.somebody("bob", "lobby")
    for node in (first, second):
        await eventually(partial(_knows_of_another, node))
    assert await redis.command("HGET", "gateway:node:mine", "incarnation") != incarnation

    async def all_there() -> bool:
        members = await redis.command("SMEMBERS", "gateway:members:lobby")
        held = await redis.command("SMEMBERS", "gateway:node:mine:connections")
        return bool(members == held == {ada.id, bob.id})

    await eventually(all_there)
    for node in (first, second):
        assert not await cast(RedisPresence, node.presence).repair.check()
        _lease(node).register_again()
        await eventually(partial(_is_registered, node))
        assert await all_there()
    await first.presence.close()
    assert await redis.command("SMEMBERS", "gateway:nodes") == {"mine"}
    assert await redis.command("EXISTS", "gateway:node:mine")
    await eventually(lambda: second.presence.trouble == [])


async def test_a_lease_that_is_renewed_by_somebody_else_keeps_a_start_out(
    redis: RedisServer, namesakes: StartNamesake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it cannot be known whether that process lives."""
    monkeypatch.setattr(duplicates, "has_ended", lambda process: False)
    await namesakes()
    with pytest.raises(BaseExceptionGroup) as refused:
        await PresenceNode(redis.url, id="mine")._run(asyncio.Event())
    assert refused.group_contains(CannotStart, match="node_id must be unique")


def _knows_of_another(node: PresenceNode) -> bool:
    return any("node_id must be unique" in each for each in node.presence.trouble)


def _is_registered(node: PresenceNode) -> bool:
    return not _lease(node)._must_register and not _lease(node).registering


def _lease(node: PresenceNode) -> Lease:
    return cast(RedisPresence, node.presence).lease
