"""The benchmark: its load program reports exactly what a server does wrong, and a small run of all of it adds up."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from aiohttp import WSMsgType, web

from tests.harness.ports import HOST, free_port, release_port
from tests.harness.process import output_of, program

SCRIPTS = Path(__file__).parents[2] / "scripts"
FAULTS = ("lost", "duplicates", "reordered", "disconnected")
EVERY = 7  # one in so many deliveries goes wrong
MEMBERS = 5


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The load program, compiled without a warning."""
    path = tmp_path_factory.mktemp("bench") / "load"
    strict = ["-O2", "-Wall", "-Wextra", "-Werror"]
    asyncio.run(output_of([program("cc"), *strict, "-o", str(path), str(SCRIPTS / "measure" / "load.c")]))
    return path


class Careless:
    """A server that passes on what its clients say, but for one delivery in `EVERY`, and counts those."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.done: Counter[str] = Counter()
        self._sockets: list[web.WebSocketResponse] = []
        self._deliveries = 0
        # What is held back, by member and publisher.
        self._held: dict[tuple[int, int], str] = {}

    @property
    def lost(self) -> int:
        """How many deliveries nobody will ever get."""
        return self.done["lost"] + len(self._held)

    async def connect(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("gateway.v1.json",))
        await socket.prepare(request)
        publisher = len(self._sockets)
        self._sockets.append(socket)
        await socket.send_str('{"cmd":"$welcome"}')
        async for message in socket:
            assert message.type is WSMsgType.TEXT
            for number in range(len(self._sockets)):
                await self._deliver(number, publisher, message.data)
        return socket

    async def _deliver(self, number: int, publisher: int, text: str) -> None:
        member, held = self._sockets[number], self._held.pop((number, publisher), None)
        self._deliveries += 1
        wrong = self._deliveries % EVERY == 0 and held is None
        match self.fault if wrong else "":
            case "lost":
                self.done["lost"] += 1
                return
            case "reordered":
                self._held[number, publisher] = text
                return
            case "disconnected" if not self.done["disconnected"]:
                self.done["disconnected"] += 1
                await member.close()
            case "duplicates":
                self.done["duplicates"] += 1
                await member.send_str(text)
        if not member.closed:
            await member.send_str(text)
        if held is not None:
            self.done["reordered"] += 1
            await member.send_str(held)


@asynccontextmanager
async def listening(server: Careless) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/connect", server.connect)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, HOST, port).start()
    yield port
    await runner.cleanup()
    release_port(port)


async def reported(load: Path, server: Careless) -> dict[str, int]:
    """Return what the load program says of a server, at a pace at which nobody waits for what is lost."""
    async with listening(server) as port:
        options = {"port": port, "connections": MEMBERS, "clients": 1, "rate": 200, "warmup": 0.2, "seconds": 0.8}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return json.loads(await output_of([str(load), *words]))


async def test_a_faultless_server_is_found_faultless(load):
    """Everything published reaches every member once."""
    report = await reported(load, Careless(""))
    assert report["published"] > 100
    assert report["expected"] == report["received"] == report["published"] * MEMBERS
    assert not any(report[fault] for fault in FAULTS)


async def test_exactly_the_faults_of_a_server_are_reported(load):
    """As many as it made, of the kind it made, and no others; all kinds at once, since a loss is waited for."""
    servers = [Careless(fault) for fault in FAULTS]
    for server, report in zip(servers, await asyncio.gather(*(reported(load, s) for s in servers)), strict=True):
        expected = dict.fromkeys(FAULTS, 0) | server.done | {"lost": server.lost}
        if server.fault == "disconnected":
            # What the one who is gone would have got and sent is lost, too.
            expected["lost"] = report["lost"]
        assert {kind: report[kind] for kind in FAULTS} == expected, server.fault
        assert server.done[server.fault] >= (1 if server.fault == "disconnected" else 20)


def bench(*arguments: object) -> list[str]:
    return [sys.executable, str(SCRIPTS / "benchmark.py"), *map(str, arguments)]


@pytest.mark.redis
@pytest.mark.slow
async def test_a_small_run_adds_up(tmp_path):
    """The gateway and the C floors deliver everything; the runs, the table and the plot are written."""
    out, plot = tmp_path / "runs.jsonl", tmp_path / "ratios.svg"
    small = ["--size", 50, "--seconds", 0.3, "--repeat", 1, "--out", out, "--plot", plot]
    table = await output_of(bench("large", "rooms", "idle", "channels", *small), deadline=100)

    runs = [json.loads(line) for line in out.read_text().splitlines()]
    assert [run["failed"] for run in runs] == [""] * len(runs)
    assert Counter(run["workload"] for run in runs) == {"large": 3, "rooms": 3, "idle": 2, "channels": 1}
    for report in (run["report"] for run in runs if run["workload"] in ("large", "rooms")):
        members = 50 if report["connections"] == 51 else 10
        assert report["received"] == report["expected"] == report["published"] * members > 0
    assert "| gateway / joining floor |" in table
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def line(server: str, repeat: int, value: float, failed: str = "") -> str:
    figures = {"deliveries_per_cpu_s": value}
    run = {"session": 1, "workload": "broadcast", "server": server, "repeat": repeat, "size": 1, "figures": figures}
    return json.dumps(run | {"report": {}, "failed": failed})


async def test_runs_are_compared_within_a_repetition_and_failed_ones_are_not(tmp_path):
    """The ratio is the median of those of each repetition; a machine that got slower takes both with it."""
    runs = [line("gateway", 0, 80), line("floor", 0, 100), line("gateway", 1, 45), line("floor", 1, 50)]
    runs += [line("gateway", 2, 40), line("floor", 2, 40), line("gateway", 3, 1), line("floor", 3, 9, "1 lost")]
    (tmp_path / "runs").write_text("\n".join(runs))
    table = await output_of(bench("--read", tmp_path / "runs"))
    assert "0.90 (0.80 to 1.00)" in table
    assert "3 of 4" in table


async def complaint(*arguments: object, cores: set[int] | None = None, path: str | None = None) -> str:
    """Run it to its failure, and return what it says."""
    child = await asyncio.create_subprocess_exec(
        *bench(*arguments),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | ({"PATH": path} if path is not None else {}),
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )
    _, words = await child.communicate()
    assert child.returncode in (1, 2)
    return words.decode()


@pytest.fixture
def path_with(tmp_path: Path) -> Callable[..., str]:
    """Makes a PATH with these programs only."""

    def make(*names: str) -> str:
        for name in names:
            (tmp_path / name).symlink_to(program(name))
        return str(tmp_path)

    return make


async def test_what_is_missing_is_named(path_with):
    """Each of them in one line, before anything is started."""
    assert "found no redis-server" in await complaint(path=path_with())
    assert "found no cc" in await complaint(path=path_with("redis-server"))
    assert "needs two cores" in await complaint(cores={min(os.sched_getaffinity(0))})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["brodcast"], "expected one of broadcast"),
        (["--seconds", "0"], "expected a number above 0"),
        (["--repeat", "0"], "expected a whole number from 1"),
        (["--peer", "nats"], "expected NAME=COMMAND"),
        (["--peer", "floor=true"], "expected a name of its own"),
        (["--read", "/nowhere"], "/nowhere"),
    ],
)
async def test_a_wrong_argument_is_named(arguments, words):
    """As what was expected instead."""
    assert words in await complaint(*arguments)
