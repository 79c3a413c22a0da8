"""The processes that the simulated nodes run in."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

from measure.population import Population

SCRIPTS = Path(__file__).parents[1]
LINE = 64 << 20
"""Bytes of the longest answer."""


class NodeProcess:
    """One process with some of the nodes, which carries out one order at a time."""

    def __init__(self, process: Process, nodes: int) -> None:
        self._process = process
        self.nodes = nodes

    async def order(self, do: str, **arguments: object) -> Any:
        """Have something done; return what came of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> Any:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise OSError(f"a process of nodes ended with {await self._process.wait()}")
        return json.loads(line)

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


async def start_nodes(url: str, population: Population, shares: int) -> list[NodeProcess]:
    """Start all nodes: the first and the last in a process of their own, the others in so many together."""
    between = list(range(1, population.nodes - 1))
    numbers = [[0], *(part for share in range(shares) if (part := between[share::shares])), [population.nodes - 1]]
    processes = [await _start(url, population, part) for part in numbers]
    await asyncio.gather(*(process.answer() for process in processes))
    return processes


async def _start(url: str, population: Population, numbers: list[int]) -> NodeProcess:
    # The clone is measured, whatever is installed, and with its defaults.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(SCRIPTS.parent), str(SCRIPTS)])
    words = [url, *map(str, (population.connections, population.nodes, *numbers))]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPTS / "measure" / "nodes.py"), *words),
        stdin=PIPE,
        stdout=PIPE,
        env=environment,
        limit=LINE,
    )
    return NodeProcess(process, len(numbers))
