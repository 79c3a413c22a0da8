"""100,000 random and mutated frames and HTTP heads thrown at a node at work: nothing is lost for the others.

The same every time; `FUZZ_SEED=7 pytest tests/system/test_fuzz.py` is another hundred thousand.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.harness.client import Client, Clients
from tests.harness.fuzzing import Fuzzer
from tests.harness.node import Node, Nodes
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually
from tests.harness.wire import Wires, upgrade

CHANNEL = "conversation"
SEED = os.environ.get("FUZZ_SEED", "1")
TALKERS = 4
AT_ONCE = 10
"""Attackers at the same time."""
PACE = 0.02
"""Seconds between two messages of one well-behaved client: below what a node allows by default."""
GROWTH = 48 << 20
"""Bytes by which a node's memory may have grown afterwards."""
DEADLINE = 30.0

StartNode = Callable[..., Awaitable[Node]]


@asynccontextmanager
async def conversation(node: Node, connect: Clients) -> AsyncIterator[None]:
    """Let clients exchange numbered messages; at the end each must have got all of everybody's, in order."""
    clients = [await connect(node, CHANNEL, protocols=["gateway.v1.json"]) for _ in range(TALKERS)]
    for client in clients:
        await client.expect("$welcome")
    done = asyncio.Event()

    async def talk(name: int) -> int:
        for number in itertools.count():
            text = f"{name} {number}"
            await clients[name].send("chat", {"text": text}, channel=CHANNEL)
            while (await clients[name].expect("chat", deadline=DEADLINE))["param"]["text"] != text:
                pass
            if done.is_set():
                return number
            await asyncio.sleep(PACE)
        raise AssertionError

    async with asyncio.TaskGroup() as tasks:
        talks = [tasks.create_task(talk(name)) for name in range(len(clients))]
        try:
            yield
        finally:
            done.set()
    expected = {f"{name}": list(range(talk.result() + 1)) for name, talk in enumerate(talks)}
    for client in clients:
        await eventually(partial(_heard, client, expected), DEADLINE, what="everybody's messages, in order")
        assert client.closed is None


def _heard(client: Client, expected: dict[str, list[int]]) -> bool:
    """Tell whether a client heard these numbers from each of them, in order and nothing else."""
    found: dict[str, list[int]] = {}
    for message in client.received:
        if message["cmd"] == "chat":
            name, number = message["param"]["text"].split()
            found.setdefault(name, []).append(int(number))
    return found == expected


async def attack(node: Node, wire: Wires, fuzzer: Fuzzer, *, count: int, most: int) -> None:
    """Throw so many frames and heads at a node, which must end every connection of the attackers."""

    async def attacker() -> None:
        while fuzzer.frames + fuzzer.heads < count:
            await throw(fuzzer.head() if fuzzer.flips(0.6) else fuzzer.connection(node.ws_url(), most=most))

    async def throw(data: bytes) -> None:
        client = await wire.open(node)
        with suppress(ConnectionError):  # the node may have had enough of it before it was through
            await client.write(data)
            if b"\r\n\r\n" in data:  # whoever is gone before the answer is not listened to
                await client.read(deadline=DEADLINE)
            client.finish()
        await client.read_end(deadline=DEADLINE)
        client.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(attacker())


async def metric(node: Node, name: str) -> int:
    """Return what the node says of itself."""
    lines = (await node.get("/metrics")).body.decode().splitlines()
    return next(int(float(line.split()[1])) for line in lines if line.startswith(f"gateway_{name} "))


def memory(node: Node) -> int:
    """Return the node's resident memory in bytes."""
    lines = Path(f"/proc/{node.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


async def withstands(node: Node, connect: Clients, wire: Wires, *, count: int, most: int, seed: str) -> None:
    """Attack a node while others use it, with `most` frames on one connection; fail unless it is as good as before."""
    fuzzer = Fuzzer(seed)
    try:
        async with conversation(node, connect):
            before = memory(node)
            await attack(node, wire, fuzzer, count=count, most=most)
            await node.answers("/healthz", 200)
            await eventually(lambda: _is(TALKERS, metric(node, "connections")), what="the attackers' connections gone")
            grown = memory(node) - before
        assert "Traceback" not in node.output
        assert grown < GROWTH, f"{grown >> 20} MiB more memory"
        assert fuzzer.frames + fuzzer.heads >= count
    except BaseException:
        print(f"FUZZ_SEED={seed}: after {fuzzer.frames} frames and {fuzzer.heads} heads")
        raise


async def _is(expected: int, found: Awaitable[int]) -> bool:
    return await found == expected


async def test_nothing_is_lost_for_others(
    redis: RedisServer, start_node: StartNode, connect: Clients, wire: Wires
) -> None:
    """Where no limit stops the attackers, so that everything they send is looked at."""
    node = await start_node(redis, compression=True, message_rate=0, abuse_limit=0)
    await withstands(node, connect, wire, count=100_000, most=90, seed=SEED)
    assert await metric(node, "messages_received_total") > 30_000, "most of it did not come through the handshake"


async def test_nothing_is_lost_for_others_within_the_limits(
    start_node: StartNode, connect: Clients, wire: Wires
) -> None:
    """With a node's defaults, too."""
    node = await start_node()
    await withstands(node, connect, wire, count=10_000, most=500, seed=f"{SEED} limits")
    assert "code=1008" in node.output, "no limit was reached"


FOUND = {
    "a key of other bytes than ASCII": (
        upgrade("ws://127.0.0.1/connect", headers={"Sec-WebSocket-Key": "KEY"}).replace(b"KEY", b"\xff" * 24),
        400,
    ),
    "an expectation that is no text": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: \x83\r\n\r\n", 417),
    "an origin that is half an address": (
        b"POST /admin/websocket/login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://[::\r\n\r\n",
        403,
    ),
}


@pytest.mark.parametrize(("head", "status"), FOUND.values(), ids=FOUND)
async def test_what_was_found_so_is_answered(nodes: Nodes, wire: Wires, head: bytes, status: int) -> None:
    """Each was a 500 once, with a traceback in the log."""
    client = await wire.open(nodes[0])
    await client.write(head)
    assert (await client.read_head()).status == status
    assert "Traceback" not in nodes[0].output
