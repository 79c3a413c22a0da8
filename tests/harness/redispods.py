"""The Redis of the overlay `cluster` without Kubernetes: each pod with its command, files, hooks and probes.

A pod has a loopback address of its own, a new one after each start, as in Kubernetes, and keeps its volume. In front of
`redis-server` and `redis-cli` stand two small programs that do for them what the pod's network would: the server
listens at its pod's address and the tests' port, and the client finds pods by their names.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from redis.asyncio import Redis

from .manifests import Manifest, container, environment, only
from .ports import free_port, release_port
from .process import Process, program, scratch
from .wait import eventually

__all__ = ["RedisPods"]

OVERLAY = "cluster"
NAME = "redis-cluster"
JOB = f"{NAME}-create"

_SERVER = """#!/bin/sh
file=$1
shift
cd "$POD_VOLUME"
exec {program} "$file" --port {port} --bind "$POD_IP" "$@"
"""
_CLIENT = """#!/bin/sh
host=$POD_IP
strict=
if [ "$1" = -e ]; then
    strict=-e
    shift
fi
if [ "$1" = -h ]; then
    case $2 in
        *.*.*.*) host=$2 ;;
        *) host=$(sed -n "s/^$2 //p" {names}) ;;
    esac
    shift 2
fi
[ -n "$host" ] || exit 1
for argument; do
    shift
    [ "$argument" != 6379 ] || argument={port}
    set -- "$@" "$argument"
done
exec {program} $strict -h "$host" -p {port} "$@"
"""


class RedisPods:
    """Six pods, none of which runs at first, and the job that makes a cluster of them."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self.password = secrets["redis-password"]
        self.port = free_port()
        self._secrets = secrets
        self._folder = scratch(NAME)
        self._names = self._folder / "names"
        self._write_programs()
        self._write_scripts()
        replicas = only(OVERLAY, "StatefulSet", NAME)["spec"]["replicas"]
        # By ordinal: the pod's address, its volume, and its process; all processes there were.
        self.addresses = [""] * replicas
        self._volumes = [scratch(f"{NAME}-{ordinal}") for ordinal in range(replicas)]
        self._processes: dict[int, Process] = {}
        self._all: list[Process] = []
        self._generation = 0

    @property
    def ordinals(self) -> range:
        """All pods."""
        return range(len(self.addresses))

    async def start(self, ordinals: Iterable[int]) -> None:
        """Start pods at the same time, each at a new address; return when their `postStart` hooks have ended."""
        self._generation += 1
        started = list(ordinals)
        for ordinal in started:
            self.addresses[ordinal] = f"127.77.{self._generation}.{ordinal + 1}"
        lines = [f"{NAME}-{ordinal}.{NAME} {self.addresses[ordinal]}\n" for ordinal in self.ordinals]
        self._names.write_text("".join(lines))
        for ordinal in started:
            self._processes[ordinal] = self._laid_out(container(OVERLAY, NAME)["command"], ordinal)
            self._processes[ordinal].start()
        await asyncio.gather(*(self._hook(ordinal, "postStart") for ordinal in started))

    async def stop(self, ordinal: int) -> None:
        """End a pod as the kubelet does: its `preStop` hook, then SIGTERM."""
        await self._hook(ordinal, "preStop")
        assert await self._processes[ordinal].stop(30) == 0

    async def kill(self, ordinals: Iterable[int]) -> None:
        """Let pods end without warning."""
        await asyncio.gather(*(self._processes[ordinal].kill() for ordinal in ordinals))

    async def is_ready(self, ordinal: int) -> bool:
        """Do as the kubelet does once."""
        return await self._run(container(OVERLAY, NAME)["readinessProbe"]["exec"]["command"], ordinal) == 0

    async def are_ready(self, deadline: float = 30.0) -> None:
        """Wait until all are ready."""

        async def ready() -> bool:
            return all([await self.is_ready(ordinal) for ordinal in self.ordinals])

        await eventually(ready, deadline, what="all pods of Redis are ready")

    async def is_alive(self, ordinal: int) -> bool:
        """Do as the kubelet does once."""
        return await self._run(container(OVERLAY, NAME)["livenessProbe"]["exec"]["command"], ordinal) == 0

    async def create(self) -> str:
        """Run the job to its end; return what it said."""
        job = self._laid_out(container(OVERLAY, JOB)["command"], None)
        job.start()
        assert await job.wait(60) == 0, job.output
        return job.output

    async def command(self, ordinal: int, *arguments: str | int) -> Any:
        """Send one command to a pod."""
        async with Redis(
            host=self.addresses[ordinal], port=self.port, password=self.password, decode_responses=True
        ) as redis:
            return await redis.execute_command(*arguments)

    def reachable(self, url: str) -> str:
        """Return a URL with addresses for the names of pods."""
        for ordinal in self.ordinals:
            url = url.replace(f"{NAME}-{ordinal}.{NAME}:6379", f"{self.addresses[ordinal]}:{self.port}")
        return url

    def close(self) -> None:
        """Kill all: the last use."""
        for process in self._all:
            process.close()
        release_port(self.port)

    def _write_programs(self) -> None:
        texts = {
            "redis-server": _SERVER.format(program=program("redis-server"), port=self.port),
            "redis-cli": _CLIENT.format(program=program("redis-cli"), port=self.port, names=self._names),
        }
        folder = self._folder / "bin"
        folder.mkdir()
        for name, text in texts.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        # As in the image, which has nothing else.
        subprocess.run([program("busybox"), "--install", "-s", str(folder)], check=True)

    def _write_scripts(self) -> None:
        """Lay out the volume of the config map."""
        self._scripts = self._folder / "scripts"
        self._scripts.mkdir()
        for name, text in only(OVERLAY, "ConfigMap", NAME)["data"].items():
            (self._scripts / name).write_text(text.replace("dir /data\n", "dir .\n"))

    def _command(self, command: list[str]) -> list[str]:
        return [word.replace("/scripts/", f"{self._scripts}/") for word in command]

    def _environment(self, ordinal: int | None) -> dict[str, str]:
        path = {"PATH": str(self._folder / "bin")}
        if ordinal is None:
            return path | environment(OVERLAY, self._secrets, JOB)
        own = environment(OVERLAY, self._secrets, NAME, ip=self.addresses[ordinal])
        return path | own | {"POD_VOLUME": str(self._volumes[ordinal])}

    def _laid_out(self, command: list[str], ordinal: int | None) -> Process:
        name = JOB if ordinal is None else f"{NAME}-{ordinal}"
        self._all.append(Process(self._command(command), name=name, environment=self._environment(ordinal)))
        return self._all[-1]

    async def _hook(self, ordinal: int, name: str) -> None:
        hook: Manifest = container(OVERLAY, NAME)["lifecycle"][name]
        assert await self._run(hook["exec"]["command"], ordinal) == 0

    async def _run(self, command: list[str], ordinal: int) -> int:
        """Run a command in a pod; return its exit code."""
        process = self._laid_out(command, ordinal)
        try:
            process.start()
            return await process.wait(60)
        finally:
            process.close()
            self._all.remove(process)
