"""A container without an engine: the command and the environment that a manifest names, as a process."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import ClientError

from . import http
from .address import Addressed
from .node import gateway
from .ports import free_port, release_port
from .wait import eventually

__all__ = ["ROOT", "Container", "Dockerfile", "audited", "writes"]

ROOT = Path(__file__).resolve().parents[2]

_AUDIT = """
import os, sys

def watch(event, arguments):
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and arguments[0] != os.devnull:
        os.write(2, f"WRITES {arguments[0]!r}\\n".encode())
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.truncate"):
        os.write(2, f"WRITES {event} {arguments!r}\\n".encode())

sys.addaudithook(watch)
"""


class Dockerfile:
    """The instructions of the repository's Dockerfile, each a word and the rest, the last stage by itself."""

    def __init__(self) -> None:
        lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
        whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
        self.instructions = [
            (word, rest) for word, _, rest in (line.partition(" ") for line in whole.split("\n")) if word
        ]
        last = max(number for number, (word, _) in enumerate(self.instructions) if word == "FROM")
        self.final = self.instructions[last:]

    def all(self, word: str) -> list[str]:
        """Return what stands behind an instruction in the last stage."""
        return [rest for found, rest in self.final if found == word]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that every container has."""
        pairs = (word.partition("=") for rest in self.all("ENV") for word in shlex.split(rest))
        return {name: value for name, _, value in pairs}


class Container(Addressed):
    """One node, started as `gateway` with these arguments and this environment, on top of the image's own.

    Only the port differs, since many tests share a machine: `GATEWAY_PORT` is what listens in the container.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], *, name: str = "container") -> None:
        self.port = free_port()
        image = {name: value for name, value in Dockerfile().environment.items() if name.startswith("GATEWAY_")}
        self.process = gateway(
            *arguments, name=name, environment=image | dict(environment) | {"GATEWAY_PORT": str(self.port)}
        )

    async def start(self, deadline: float = 30.0) -> None:
        """Start it, and return when `/readyz` answers 200: nobody is sent to it before, though it is alive."""
        self.process.start()

        async def ready() -> bool:
            self.process.assert_running()
            return (await http.get(self.url("/readyz"))).status == 200

        await eventually(ready, deadline, tolerating=(OSError, ClientError), what=f"{self.process.name} is ready")

    async def probe(self, probe: Mapping[str, Any]) -> int:
        """Do as the kubelet does once; return the status, or 0 when there was no answer in time."""
        try:
            answer = await http.get(self.url(probe["httpGet"]["path"]), deadline=probe["timeoutSeconds"])
        except (OSError, ClientError, TimeoutError):
            return 0
        return answer.status

    async def end(self, deadline: float) -> float:
        """Ask it to end (SIGTERM); return the seconds it took, and fail unless it ended well within the deadline."""
        began = time.monotonic()
        code = await self.process.stop(deadline)
        assert code == 0, self.process.tail()
        return time.monotonic() - began

    def close(self) -> None:
        """Kill it: the last use. May be called twice."""
        self.process.close()
        release_port(self.port)


def audited(folder: Path) -> dict[str, str]:
    """Return an environment in which a Python program writes a line for each file it would change."""
    (folder / "sitecustomize.py").write_text(_AUDIT)
    return {"PYTHONPATH": f"{folder}:{ROOT}:{ROOT / 'tests' / 'handlers'}"}


def writes(output: str) -> Iterator[str]:
    """Yield what a process wanted to change, as `audited` has it say."""
    return (line for line in output.splitlines() if line.startswith("WRITES"))
