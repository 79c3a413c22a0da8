"""Runs one server at a time on a core of its own; its Redis and the load run on another."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import Child, Failed, Processes, Signals

HERE = Path(__file__).parent
SCRIPTS = HERE.parent
GATEWAY, FLOOR, JOINING, STOCK = "gateway", "floor", "joining floor", "stock aiohttp"
OWN = (GATEWAY, FLOOR, JOINING, STOCK)
SETTLE_SECONDS = 1.5
SPARE_FILES = 100  # for what is no client: Redis, logs, a listener
# The clone is measured, whatever is installed; and a limit that is there for strangers is not what is measured.
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(SCRIPTS.parent), str(SCRIPTS)]),
    "GATEWAY_MESSAGE_RATE": "0",
}


@dataclass(frozen=True)
class Machine:
    """The two cores, and what was compiled for them."""

    server_core: int
    load_core: int
    connections: int  # how many one process may hold
    folder: Path
    peers: dict[str, str]

    def command(self, server: str, port: int, redis: int) -> list[str]:
        """Return how a server is started."""
        floor = [str(self.folder / "floor"), str(port), str(redis)]
        match server:
            case "gateway":
                where = ["--port", str(port), "--redis-url", f"redis://127.0.0.1:{redis}/0"]
                quiet = ["--log-level", "warning"]
                return [sys.executable, "-m", "gateway", "serve", *where, "--handler", "measure.relay:Relay", *quiet]
            case "floor":
                return floor
            case "joining floor":
                return [*floor, "join"]
            case "stock aiohttp":
                return [sys.executable, str(HERE / "stock.py"), str(port)]
        return shlex.split(self.peers[server].replace("{port}", str(port)).replace("{redis}", str(redis)))


def prepare(folder: Path, peers: dict[str, str]) -> Machine:
    """Take the cores and compile; raise Failed naming what is missing."""
    if sys.platform != "linux":
        raise Failed(f"needs Linux, for epoll and /proc, got {sys.platform}")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Failed(f"needs two cores, one for the server and one for the load, got {len(cores)}")
    _need("redis-server", "redis-server")
    for name in ("load", "floor"):
        compile_program(name, folder)
    # The children inherit both: the core, and as many open files as are allowed.
    os.sched_setaffinity(0, {cores[1]})
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        del os.environ[name]
    return Machine(cores[0], cores[1], most - SPARE_FILES, folder, peers)


def compile_program(name: str, folder: Path) -> Path:
    """Compile one of the C programs of this folder; raise Failed if that does not work."""
    compiler = _need("cc", "gcc and libc6-dev")
    program = folder / name
    if subprocess.run([compiler, "-O2", "-o", str(program), str(HERE / f"{name}.c")], check=False).returncode:
        raise Failed(f"{compiler} could not compile scripts/measure/{name}.c")
    return program


class Server:
    """A running server, and the programs that load it."""

    def __init__(self, machine: Machine, processes: Processes, name: str, folder: Path) -> None:
        self._machine = machine
        self._processes = processes
        self._folder = folder
        self._redis = free_port()
        self._start("redis", [*_redis_command(self._redis), "--dir", str(folder)], self._redis)
        self._port = free_port()
        with self._on_server_core():
            self._pid = self._start(name, machine.command(name, self._port, self._redis), self._port).process.pid

    def load(self, **options: float) -> dict[str, Any]:
        """Run the load program to its end, and return its report."""
        return self._finish(self._start("load", self._load_command(options)))

    def hold(self, **options: float) -> tuple[dict[str, Any], int]:
        """Open connections that stay; return the load's report, and by how many bytes the server has grown."""
        before = memory(self._pid)
        child = self._start("load", self._load_command(options | {"hold": 3600}))
        self._processes.wait_until(lambda: bool(_output(child).strip()), "load")
        settled = time.monotonic() + SETTLE_SECONDS
        self._processes.wait_until(lambda: time.monotonic() > settled, "load")
        report: dict[str, Any] = json.loads(_output(child))
        return report, memory(self._pid) - before

    def run(self, program: str, *arguments: int) -> dict[str, Any]:
        """Run a Python program of this folder, with the server's ports and process first, and return its report."""
        numbers = map(str, (self._port, self._redis, self._pid, *arguments))
        return self._finish(self._start(program, [sys.executable, str(HERE / f"{program}.py"), *numbers]))

    def _start(self, name: str, command: list[str], port: int | None = None) -> Child:
        log = self._folder / f"{name.replace(' ', '-')}.log"
        child = self._processes.start(name, command, log=log, env=ENVIRONMENT)
        if port is not None:
            self._processes.wait_until(lambda: _listens(port), name)
        return child

    def _finish(self, child: Child) -> dict[str, Any]:
        ended = self._processes.wait_for_end()
        if ended is not child or child.process.returncode:
            raise Failed(ended.describe_end())
        report: dict[str, Any] = json.loads(_output(child))
        return report

    def _load_command(self, options: dict[str, float]) -> list[str]:
        ours = {"port": self._port, "redis": self._redis, "server": self._pid}
        words = [(f"--{name}", str(value)) for name, value in (ours | options).items()]
        return [str(self._machine.folder / "load"), *(word for pair in words for word in pair)]

    @contextlib.contextmanager
    def _on_server_core(self) -> Iterator[None]:
        os.sched_setaffinity(0, {self._machine.server_core})
        try:
            yield
        finally:
            os.sched_setaffinity(0, {self._machine.load_core})


@contextlib.contextmanager
def running(machine: Machine, signals: Signals, name: str) -> Iterator[Server]:
    """Start a server with a fresh Redis; end both and whatever loads them."""
    processes = Processes(signals)
    with tempfile.TemporaryDirectory(dir=machine.folder) as folder:
        try:
            yield Server(machine, processes, name, Path(folder))
        finally:
            processes.stop_all()


def memory(pid: int) -> int:
    """Return a process's memory in bytes, without what the kernel holds for it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def cpu_seconds(pid: int) -> float:
    """Return what a process has used so far, its work in the kernel included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _redis_command(port: int) -> list[str]:
    # Its limit on what a slow subscriber may leave unread would end a server that is only busy.
    unlimited = ["--client-output-buffer-limit", "pubsub 0 0 0"]
    return ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", *unlimited]


def _need(program: str, packages: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise Failed(f"found no {program} on PATH: install it (Debian: {packages})")
    return found


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _output(child: Child) -> str:
    assert child.log is not None
    return child.log.read_text(errors="replace")
