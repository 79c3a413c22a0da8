"""One real node: a process of its own, with a handler that does what a scenario asks."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import ClientError, ClientSession
from cluster import free_port
from processes import Child, start
from yarl import URL

from tests.stress.checks import Wrong, eventually

ROOT = Path(__file__).parents[2]
API_KEY = "stress-key"
ADMIN_PASSWORD = "stress-password"
SECRET = "a secret of thirty-two characters"
RULES = [
    {"match": "kept-*", "history": 5000, "ttl": 300},
    {"match": "short-*", "history": 20, "ttl": 300},
    {"match": "brief-*", "history": 50, "ttl": 1},
    {"match": "spared-*", "slow": "drop-oldest"},
    {"match": "latest-*", "slow": "keep-latest", "slow_key": "symbol"},
    {"match": "silent-*", "presence": False},
    {"match": "users-*", "join": "users"},
    {"match": "closed-*", "join": "nobody"},
    {"match": "mute-*", "send": "nobody"},
]
SETTINGS: dict[str, object] = {
    "host": "127.0.0.1",
    "handler": "tests.stress.handler:Asked",
    "api_key": API_KEY,
    "admin_password": ADMIN_PASSWORD,
    "jwt_secret": SECRET,
    "allow_anonymous": True,
    "message_rate": 0,
    "drain_seconds": 4,
    "drain_pause": 0,
    "channels": RULES,
}
RECORD = re.compile(r"\d{4}-\d\d-\d\dT\S+ ([A-Z]+) ")
HARMLESS = ("DEBUG", "INFO", "WARNING")


class Node:
    """A node that may be stopped, killed, frozen and started again under the same name."""

    def __init__(self, id: str, redis_url: str, folder: Path, session: ClientSession, **settings: object) -> None:
        self.id = id
        self.port = free_port()
        self._settings = SETTINGS | {"redis_url": redis_url, "node_id": id, "port": self.port} | settings
        self._folder = folder
        self._session = session
        self._starts = 0
        self._child: Child | None = None
        self._is_frozen = False
        self._logs: list[Path] = []
        self._read: dict[Path, int] = {}

    def __repr__(self) -> str:
        return self.id

    async def start(self, *, wait: bool = True) -> None:
        self._starts += 1
        log = self._folder / f"{self.id}-{self.port}-{self._starts}.log"
        self._logs.append(log)
        env = {f"GATEWAY_{name.upper()}": _written(value) for name, value in self._settings.items()}
        command = [sys.executable, "-m", "gateway", "serve"]
        self._child = start(self.id, command, log=log, env=env | {"PYTHONPATH": str(ROOT)})
        if wait:
            await self.ready()

    async def ready(self) -> None:
        await eventually(f"{self.id} is ready", self._is_ready)

    async def stop(self) -> int:
        """Drain it (SIGTERM); return the exit code."""
        self._thaw()
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """End it without warning (SIGKILL)."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def ended(self) -> int:
        await eventually(f"{self.id} ends", lambda: not self.is_running)
        assert self._child is not None
        return int(self._child.process.returncode)

    def freeze(self) -> None:
        """Let it stand still (SIGSTOP), its sockets open."""
        self.signal(signal.SIGSTOP)
        self._is_frozen = True

    def thaw(self) -> None:
        self._thaw()

    def signal(self, number: int) -> None:
        assert self._child is not None
        if self.is_running:
            os.kill(self._child.process.pid, number)

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.process.pid

    @property
    def is_running(self) -> bool:
        return self._child is not None and not self._child.ended

    def url(self, *channels: str, path: str = "/connect", **query: str) -> str:
        """Return the address of its WebSocket."""
        parts = [f"ch={quote(channel, safe='')}" for channel in channels]
        parts += [f"{name}={quote(value, safe='')}" for name, value in query.items()]
        return f"ws://127.0.0.1:{self.port}{path}" + (f"?{'&'.join(parts)}" if parts else "")

    async def ask(self, method: str, path: str, body: object = None, *, key: str = API_KEY) -> tuple[int, Any]:
        """Ask the server API, or any other address; return the status and the body."""
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self._session.request(
            method, URL(url, encoded=True), json=body, headers={"Authorization": f"Bearer {key}"}
        ) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if "json" in answer.content_type else text

    async def metrics(self) -> dict[str, float]:
        """Return what it counts, by name; labels are part of the name."""
        _, text = await self.ask("GET", "/metrics")
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name.removeprefix("gateway_"): float(value) for name, value in lines}

    async def metric(self, name: str) -> float:
        return (await self.metrics()).get(name, 0.0)

    def complaints(self, allowed: tuple[str, ...]) -> list[str]:
        """Return what is new in its log and no node should say: errors, tracebacks, warnings of Python."""
        found: list[str] = []
        for log in self._logs:
            lines = log.read_text(errors="replace").splitlines()
            new, self._read[log] = lines[self._read.get(log, 0) :], len(lines)
            found += _complaints(new, allowed)
        return found

    def _thaw(self) -> None:
        if self._is_frozen:
            self.signal(signal.SIGCONT)
        self._is_frozen = False

    async def _is_ready(self) -> bool:
        if not self.is_running:
            raise Wrong(f"{self.id} did not start: {self._logs[-1].read_text()[-600:]}")
        try:
            return (await self.ask("GET", "/readyz"))[0] == 200
        except (OSError, ClientError):
            return False


def _complaints(lines: list[str], allowed: tuple[str, ...]) -> list[str]:
    """Return the lines that are no records, such as Python's own words, and records of errors; less what is allowed."""
    found: list[str] = []
    is_allowed = False
    for line in lines:
        if is_allowed and line.startswith("  "):  # the traceback of the record before
            continue
        record = RECORD.match(line)
        is_allowed = any(word in line for word in allowed) or (record is not None and record[1] in HARMLESS)
        if not is_allowed:
            found.append(line)
    return found


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, Mapping | list) else str(value)
