"""Real gateway nodes: `python -m gateway serve` on free loopback ports."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, overload

from aiohttp import ClientError

from . import http
from .address import Addressed
from .ports import HOST, free_port, release_port
from .process import Process
from .redis import RedisServer
from .wait import eventually

__all__ = ["Node", "Nodes", "gateway", "lasting"]

TESTS = Path(__file__).resolve().parents[1]

# What a setting may be given as; a list of rules makes a TOML file.
Setting = str | int | float | bool | Sequence[str] | Sequence[Mapping[str, Any]]

_numbers = itertools.count(1)


class Redis(Protocol):
    """What a node can be pointed at: one server, Sentinel, a cluster, or a proxy before a server."""

    @property
    def url(self) -> str:
        """The address as nodes take it."""


class Node(Addressed):
    """One gateway process.

    `redis` is a server, a cluster or a proxy of the harness, or any URL. `settings` are the product's, by their
    names in `Settings`: `Node(redis, presence_grace=2, allowed_origins=["*"], channels=[{"match": "a-*"}])`.
    `handler` is a class as `module:Class`; modules are looked for in `tests/handlers/` too. No `GATEWAY_` variable of
    the tests' environment reaches it, only `environment`.
    """

    def __init__(
        self,
        redis: Redis | str = "memory://",
        *,
        id: str | None = None,
        port: int | None = None,
        handler: str | None = None,
        environment: Mapping[str, str] | None = None,
        arguments: Iterable[str] = (),
        **settings: Setting,
    ) -> None:
        self.id = id or f"node-{next(_numbers)}"
        self._owns_port = port is None
        self.port = free_port() if port is None else port
        self.process = gateway("serve", name=self.id, environment=environment)
        given: dict[str, Setting] = {"host": HOST, "port": self.port, "node_id": self.id}
        given["redis_url"] = redis if isinstance(redis, str) else redis.url
        if handler is not None:
            given["handler"] = handler
        self.process.command += [*self._flags(given | settings), *arguments]

    def __repr__(self) -> str:
        return repr(self.process)

    @property
    def output(self) -> str:
        """Everything the node has written: its log."""
        return self.process.output

    async def start(self, deadline: float = 30.0) -> None:
        """Start it, and return when `/readyz` answers 200; raise `EndedEarly` with its output if it ends instead."""
        self.process.start()
        await self.answers("/readyz", 200, deadline=deadline)

    async def get(self, path: str, **options: Any) -> http.Answer:
        """GET a path; `options` are aiohttp's."""
        return await http.get(self.url(path), **options)

    async def answers(self, path: str, status: int, *, deadline: float = 10.0) -> http.Answer:
        """Wait until a GET of a path is answered with this status, and return the answer."""

        async def answer() -> http.Answer:
            self.process.assert_running()
            found = await self.get(path)
            assert found.status == status, f"{found.status}: {found.body[:500]!r}"
            return found

        return await eventually(
            answer, deadline, tolerating=(OSError, ClientError), what=f"{status} from {self.url(path)}"
        )

    async def stop(self, deadline: float = 30.0) -> int:
        """Drain and end it as an operator does (SIGTERM); return the exit code. SIGKILL past the deadline."""
        return await self.process.stop(deadline)

    async def kill(self) -> None:
        """End it without warning (SIGKILL); its connections are reset, its Redis keys stay."""
        await self.process.kill()

    def freeze(self) -> None:
        """Stop it in mid-work (SIGSTOP); its sockets stay open."""
        self.process.freeze()

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self.process.thaw()

    def close(self) -> None:
        """Kill it and remove its files: the last use. May be called twice."""
        self.process.close()
        if self._owns_port:
            release_port(self.port)

    def _flags(self, settings: Mapping[str, Setting]) -> list[str]:
        flags: list[str] = []
        tables = {name: rules for name, rules in settings.items() if _is_tables(rules)}
        if tables:
            flags += ["--config", str(self._file_of(tables))]
        for name, value in settings.items():
            if name not in tables:
                flags += [f"--{name.replace('_', '-')}", _written(value)]
        return flags

    def _file_of(self, tables: Mapping[str, Any]) -> Path:
        file = self.process.directory / "gateway.toml"
        lines = [
            line
            for name, rules in tables.items()
            for rule in rules
            # JSON's strings, numbers, booleans and flat lists are TOML's too.
            for line in (f"[[{name}]]", *(f"{key} = {json.dumps(value)}" for key, value in rule.items()))
        ]
        file.write_text("\n".join(lines) + "\n")
        return file


class Nodes(Sequence[Node]):
    """Several nodes with the same settings on one Redis, started at the same time."""

    def __init__(self, count: int, redis: Redis | str = "memory://", **settings: Any) -> None:
        """Lay them out; `settings` as for `Node`."""
        self._redis = redis
        self._nodes = [Node(redis, **settings) for _ in range(count)]

    @overload
    def __getitem__(self, index: int) -> Node: ...
    @overload
    def __getitem__(self, index: slice) -> list[Node]: ...
    def __getitem__(self, index: int | slice) -> Node | list[Node]:
        return self._nodes[index]

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def redis(self) -> RedisServer:
        """The Redis they were given, where it was a server of the harness."""
        assert isinstance(self._redis, RedisServer)
        return self._redis

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    async def start(self, deadline: float = 30.0) -> None:
        """Start all; return when all are ready, or raise what the first that failed raised."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for node in self:
                    tasks.create_task(node.start(deadline))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def stop(self) -> list[int]:
        """Drain all at the same time (SIGTERM); return their exit codes."""
        return list(await asyncio.gather(*(node.stop() for node in self)))

    def close(self) -> None:
        """Kill all: the last use. May be called twice."""
        for node in self:
            node.close()


@contextmanager
def lasting(nodes: Nodes) -> Iterator[Nodes]:
    """Run nodes that outlive one test, and so belong to no event loop: for fixtures of a module."""
    try:
        with asyncio.Runner() as runner:
            runner.run(nodes.start())
        yield nodes
    finally:
        nodes.close()


def gateway(*arguments: str, name: str = "gateway", environment: Mapping[str, str] | None = None) -> Process:
    """Lay out any `gateway` command (`publish`, `tap`, ...) as a process that is not yet started."""
    paths = [str(TESTS.parent), str(TESTS / "handlers"), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    return Process(
        [sys.executable, "-m", "gateway", *arguments],
        name=name,
        environment=own | dict(environment or {}),
        without=("GATEWAY_",),
    )


def _is_tables(value: Setting) -> bool:
    return not isinstance(value, str) and isinstance(value, Sequence) and any(isinstance(x, Mapping) for x in value)


def _written(value: Setting) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value)
