"""`gateway serve --workers N`: several nodes on one port, and the supervisor that keeps them there."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.harness import http
from tests.harness.client import Client, Clients
from tests.harness.node import Node, gateway
from tests.harness.ports import HOST, free_port, release_port
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

StartNode = Callable[..., Awaitable[Node]]

V1 = "gateway.v1.json"


def workers_of(node: Node) -> set[int]:
    """Return the ids of the processes that the supervisor has started and that live."""
    pid = node.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


async def spread(connect: Clients, node: Node, count: int) -> dict[str, Client]:
    """Connect clients until so many nodes have one; return one of each, by the node's id."""
    found: dict[str, Client] = {}

    async def has_all() -> bool:
        client = await connect(node, "lobby", protocols=[V1])
        found.setdefault((await client.expect("$welcome"))["param"]["node"], client)
        return len(found) == count

    await eventually(has_all, 30, what=f"connections to {count} nodes")
    return found


async def test_workers_share_a_port_and_are_replaced(
    redis: RedisServer, start_node: StartNode, connect: Clients
) -> None:
    """Each is a node; one that dies is started again; SIGTERM drains all, and the exit code is 0."""
    node = await start_node(redis, workers=3, id="w")
    names = {"w-1", "w-2", "w-3"}

    async def registered() -> bool:
        return await redis.command("SMEMBERS", "gateway:nodes") == names

    await eventually(registered, 30)
    clients = await spread(connect, node, 3)
    assert set(clients) == names
    await clients["w-1"].send("chat", {"text": "hi"}, "lobby")
    for client in clients.values():
        await client.expect("chat")

    before = workers_of(node)
    os.kill(min(before), signal.SIGKILL)
    await eventually(lambda: len(workers_of(node)) == 3 and min(before) not in workers_of(node), 30)
    others = await spread(connect, node, 3)
    assert set(others) == names

    pids = workers_of(node)
    assert await node.stop() == 0
    for client in others.values():
        assert "retry_after=" in (await client.expect_close(1012)).reason
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert await redis.command("SMEMBERS", "gateway:nodes") == set()
    assert "Traceback" not in node.output


async def test_workers_whose_supervisor_is_gone_drain(
    redis: RedisServer, start_node: StartNode, connect: Clients
) -> None:
    """Killed without warning it leaves nothing behind: not a process, not a key."""
    node = await start_node(redis, workers=2)
    clients = await spread(connect, node, 2)
    pids = workers_of(node)
    await node.kill()
    for client in clients.values():
        await client.expect_close(1012, deadline=10)
    await eventually(lambda: not [pid for pid in pids if _lives(pid)])
    assert await redis.command("SMEMBERS", "gateway:nodes") == set()


async def test_a_second_signal_hurries_all(redis: RedisServer, connect: Clients) -> None:
    """Clients that would be kept for long are sent away at once; port 0 was one port for all workers."""
    given = ("--workers", "2", "--port", "0", "--drain-seconds", "600", "--drain-pause", "600")
    process = gateway("serve", *given, "--redis-url", redis.url)
    try:
        process.start()
        await eventually(lambda: process.output.count("/example") == 2, 30)
        (address,) = set(re.findall(r"http://[^/\s]+", process.output))
        clients = [await connect(f"{address}/connect".replace("http", "ws")) for _ in range(300)]
        process.send_signal(signal.SIGTERM)
        await eventually(lambda: _is_not_ready(f"{address}/readyz"))
        process.send_signal(signal.SIGTERM)
        assert await process.wait(deadline=10) == 0
        for client in clients:
            await client.expect_close(1012)
    finally:
        process.close()


async def _is_not_ready(url: str) -> bool:
    return (await http.get(url)).status == 503


def _lives(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and that nobody has collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--redis-url", "memory://"), 2, "workers"),
        (("--redis-url", f"redis://{HOST}:1", "--startup-timeout", "0.2"), 1, "no Redis"),
        (("--redis-url", f"redis://{HOST}:1", "--handler", "no.such:Handler"), 2, "handler"),
    ],
    ids=["no-redis", "redis-away", "handler"],
)
async def test_what_keeps_all_from_starting_is_one_line(arguments: tuple[str, ...], code: int, said: str) -> None:
    """And the exit code that one node would have."""
    await _refused(code, said, "--port", "0", *arguments)


@pytest.mark.parametrize("shared", [False, True])
async def test_a_busy_port_is_one_line(shared: bool) -> None:
    """Whoever has it, the workers of somebody else included, who would share it."""
    port = free_port()
    with socket.socket() as busy:
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        busy.bind((HOST, port))
        busy.listen()
        await _refused(1, str(port), "--port", str(port), "--redis-url", f"redis://{HOST}:1")
    release_port(port)


async def _refused(code: int, said: str, *arguments: str) -> None:
    process = gateway("serve", "--workers", "3", *arguments)
    try:
        process.start()
        assert await process.wait(deadline=30) == code
        assert len(process.output.splitlines()) == 1, process.output
        assert said in process.output
    finally:
        process.close()
