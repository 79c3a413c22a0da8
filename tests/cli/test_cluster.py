"""`gateway publish`, `status` and `tap`: what they do to, and say of, a running cluster."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.harness.client import Client, Clients
from tests.harness.node import Nodes, gateway
from tests.harness.ports import HOST
from tests.harness.process import Process
from tests.harness.wait import eventually


@dataclass
class Shell:
    """A machine that reaches the Redis of a cluster."""

    redis_url: str
    started: list[Process] = field(default_factory=list)

    def start(self, command: str, *arguments: str) -> Process:
        """Start a command; it is killed at the end if it has not ended."""
        process = gateway(command, "--redis-url", self.redis_url, *arguments)
        self.started.append(process)
        process.start()
        return process

    async def run(self, command: str, *arguments: str, code: int = 0) -> str:
        """Run a command to its end; return what it printed."""
        process = self.start(command, *arguments)
        assert await process.wait(deadline=30) == code, process.output
        assert "Traceback" not in process.output
        return process.output


@pytest.fixture
async def shell(nodes: Nodes) -> AsyncIterator[Shell]:
    """Runs commands against the nodes of this module."""
    shell = Shell(nodes.redis.url)
    yield shell
    for process in shell.started:
        process.close()


async def member(connect: Clients, node: Any, channel: str) -> tuple[Client, str]:
    """Connect a client; return it and its id once it is a member."""
    client = await connect(node, channel, protocols=["gateway.v1.json"])
    return client, (await client.expect("$welcome"))["param"]["connection"]


class TestPublish:
    async def test_all_are_reached(self, shell: Shell, nodes: Nodes, connect: Clients) -> None:
        """A channel, one connection, a user, everyone, with whatever JSON."""
        ada, id = await member(connect, nodes[0], "publish")
        bob, _ = await member(connect, nodes[1], "publish")
        await shell.run("publish", "--channel", "publish", "x", '{"text": "hi"}', "--from", "root")
        for client in (ada, bob):
            expected = {"channel": "publish", "cmd": "x", "param": {"text": "hi"}, "from": "root"}
            assert await client.expect("x") == expected
        assert await shell.run("publish", "--connection", id, "y", "5") == ""
        assert (await ada.expect("y"))["param"] == 5
        await shell.run("publish", "--user", id, "y")
        assert (await ada.expect("y"))["param"] is None
        await shell.run("publish", "--all", "z", "[1]")
        for client in (ada, bob):
            assert (await client.expect("z"))["param"] == [1]
        assert [m["cmd"] for m in bob.received if m["cmd"] in "xyz"] == ["x", "z"]

    async def test_a_channel_with_history_keeps_it(
        self, start_node: Callable[..., Any], redis: Any, connect: Clients
    ) -> None:
        """The position is printed, and whoever comes later can read the message."""
        node = await start_node(redis, channels=[{"match": "kept-*", "history": 5}])
        shell = Shell(redis.url)
        try:
            printed = json.loads(await shell.run("publish", "--channel", "kept-a", "x", "7"))
        finally:
            for process in shell.started:
                process.close()
        assert (printed["offset"], set(printed)) == (1, {"epoch", "offset"})
        ada, _ = await member(connect, node, "kept-a")
        history = (await ada.request("$history", channel="kept-a"))["param"]
        assert [message["param"] for message in history["messages"]] == [7]

    @pytest.mark.parametrize(
        ("arguments", "code", "named"),
        [
            (("--all", "x", "{"), 2, "JSON"),
            (("--channel", "a b", "x"), 2, "'a b'"),
            (("--user", "a b", "x"), 2, "'a b'"),
            (("--all", ""), 2, "cmd"),
            (("--all", "$welcome"), 2, "cmd to be the application's, got '$welcome'"),
            (("--connection", "gone~1", "x"), 1, "gone~1"),
            (("x",), 2, "--channel"),
            (("--all", "--user", "a", "x"), 2, "--user"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    async def test_what_cannot_be_written_is_told(
        self, shell: Shell, arguments: tuple[str, ...], code: int, named: str
    ) -> None:
        """In one line, and by the exit code."""
        assert named in (await shell.run("publish", *arguments, code=code)).splitlines()[-1]

    @pytest.mark.parametrize("command", [("publish", "--all", "x"), ("status",), ("tap",)], ids=" ".join)
    async def test_a_redis_that_is_not_there_is_one_line_and_1(self, command: tuple[str, ...]) -> None:
        """Without the password; and `memory://`, which is one node alone, is told from it."""
        shell = Shell(f"redis://ada:hunter2@{HOST}:1/0")
        try:
            printed = await shell.run(*command, "--publish-timeout", "0.3", code=1)
            assert (len(printed.splitlines()), "hunter2" in printed) == (1, False)
            shell.redis_url = "memory://"
            assert "memory://" in await shell.run(*command, code=2)
        finally:
            for process in shell.started:
                process.close()


class TestStatus:
    async def test_the_cluster_is_described(self, shell: Shell, nodes: Nodes, connect: Clients) -> None:
        """For people, and for programs."""
        await member(connect, nodes[0], "status")

        async def described() -> dict[str, Any]:
            told: dict[str, Any] = json.loads(await shell.run("status", "--json"))
            assert [node["connections"] for node in told["nodes"]] == [1, 0]
            return told

        told = await eventually(described, 20)
        assert (told["connections"], told["channels"], told["users"]) == (1, 1, 0)
        assert [node["id"] for node in told["nodes"]] == sorted(node.id for node in nodes)
        assert all(node["ready"] for node in told["nodes"])
        lines = (await shell.run("status")).splitlines()
        assert lines[0] == "2 nodes, 1 connection, 1 channel, 0 users"
        assert [line.split()[0] for line in lines[1:]] == ["NODE", *sorted(node.id for node in nodes)]

    async def test_a_cluster_without_nodes_is_described_too(self, shell: Shell) -> None:
        """There is nothing wrong with asking."""
        first, *others = (await shell.run("status", "--prefix", "empty", code=1)).splitlines()
        assert first == "0 nodes, 0 connections, 0 channels, 0 users"
        assert others == ["TROUBLE: no node is registered: none is running, or Redis takes no writes"]


class TestTap:
    async def test_traffic_is_printed_as_json_lines(self, shell: Shell, nodes: Nodes, connect: Clients) -> None:
        """What clients send and what is written, on whatever node; ended by SIGTERM in good order."""
        ada, id = await member(connect, nodes[0], "tap")
        other, _ = await member(connect, nodes[1], "other")
        process = shell.start("tap", "--channel", "tap")

        async def seen() -> bool:
            await other.send("chat", {"text": "elsewhere"})
            await ada.send("chat", {"text": "h\u00fc\u009b"})
            await ada.expect("chat")
            return {"in", "out"} <= {line["direction"] for line in _lines(process)}

        await eventually(seen, 20)
        assert await process.stop() == 0
        lines = [line for line in _lines(process) if line["cmd"] == "chat"]
        assert {line["channel"] for line in lines} == {"tap"}
        received = next(line for line in lines if line["direction"] == "in")
        assert (received["param"], received["connection"]) == ({"text": "h\u00fc\u009b"}, id)
        assert "\u00fc" in process.output
        assert "\u009b" not in process.output

    async def test_a_filter_that_nothing_fits_shows_nothing(self, shell: Shell, nodes: Nodes, connect: Clients) -> None:
        """Of two taps one sees the message, the other, for another command, does not."""
        ada, _ = await member(connect, nodes[0], "filtered")
        wide = shell.start("tap", "--channel", "filtered", "--direction", "out")
        narrow = shell.start("tap", "--channel", "filtered", "--cmd", "mail")

        async def both_on() -> bool:
            await shell.run("publish", "--channel", "filtered", "mail")
            return bool(_lines(wide)) and bool(_lines(narrow))

        await eventually(both_on, 30)
        await ada.send("ping")
        await eventually(lambda: any(line["cmd"] == "pong" for line in _lines(wide)))
        await asyncio.gather(wide.stop(), narrow.stop())
        assert {line["cmd"] for line in _lines(narrow)} == {"mail"}


def _lines(process: Process) -> list[dict[str, Any]]:
    whole = process.output.rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


class TestTop:
    async def test_the_cluster_is_shown_again_and_again(self, shell: Shell, nodes: Nodes) -> None:
        """Below each other where the output is no terminal; ended by SIGTERM in good order."""
        process = shell.start("top")
        await eventually(lambda: process.output.count(nodes[0].id) >= 2, 30)
        assert await process.stop() == 0
        assert "\x1b" not in process.output
        assert "2 nodes" in process.output

    @pytest.mark.parametrize(("name", "draws"), [("xterm", True), ("dumb", False)])
    async def test_a_terminal_is_drawn_on_if_it_can_be(self, nodes: Nodes, name: str, draws: bool) -> None:
        """A dumb one is written on, like a file; Ctrl-C puts the other's screen back."""
        ours, its = os.openpty()
        os.set_blocking(ours, False)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "top", "--redis-url", nodes.redis.url),
            stdout=its,
            env={**os.environ, "TERM": name},
        )
        os.close(its)
        shown = bytearray()

        def looks() -> bool:
            with suppress(OSError):
                shown.extend(os.read(ours, 65536))
            return b"2 nodes" in shown

        try:
            await eventually(looks, 30)
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(30):
                assert await process.wait() == 0
            looks()
            assert (b"\x1b" in shown, shown.endswith(b"\x1b[?1049l")) == (draws, draws)
        finally:
            os.close(ours)
            if process.returncode is None:
                process.kill()
                await process.wait()
