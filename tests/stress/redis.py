"""The Redis of the nodes: a real server, which may be restarted, frozen, emptied and cut off."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster import answers_ping, bundled_redis, free_port
from processes import Child, start
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.stress.checks import eventually


class RedisServer:
    """One server that forgets everything when it is restarted, unless asked not to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = shutil.which("redis-server") or bundled_redis()
        self._port = free_port()
        self._child: Child | None = None
        self._is_frozen = False
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.commands: Redis = Redis.from_url(self.url, decode_responses=True, socket_timeout=20)

    async def start(self) -> None:
        command = [self._program, "--bind", "127.0.0.1", "--port", str(self._port), "--dir", str(self._folder)]
        self._child = start("redis", [*command, "--save", "", "--appendonly", "no"], log=self._folder / "redis.log")
        await eventually("Redis answers", lambda: answers_ping(self._port))

    async def stop(self, *, keep: bool = False) -> None:
        """End it as an operator does; what it holds is kept for its next start, or lost."""
        assert self._child is not None
        (self._folder / "dump.rdb").unlink(missing_ok=True)
        if keep:
            with suppress(RedisError):
                await self.commands.shutdown(save=True)
        await self._end(signal.SIGKILL)

    async def restart(self, *, keep: bool = False) -> None:
        await self.stop(keep=keep)
        await self.start()

    def freeze(self) -> None:
        """Let it stand still (SIGSTOP), its sockets open."""
        self._signal(signal.SIGSTOP)
        self._is_frozen = True

    def thaw(self) -> None:
        if self._is_frozen:
            self._signal(signal.SIGCONT)
        self._is_frozen = False

    async def close(self) -> None:
        await self.commands.aclose()
        if self._child is not None:
            await self._end(signal.SIGKILL)

    async def _end(self, number: int) -> None:
        child = self._child
        assert child is not None
        self.thaw()
        child.send(number)
        await eventually("Redis ends", lambda: child.ended)
        await self.commands.connection_pool.disconnect()

    def _signal(self, number: int) -> None:
        assert self._child is not None
        os.kill(self._child.process.pid, number)

    async def do(self, command: str) -> None:
        """Send it what an operator would type."""
        await self.commands.execute_command(*command.split())  # type: ignore[no-untyped-call]

    # ---- looking

    async def is_up(self) -> bool:
        """Make sure of it before a scenario begins."""
        try:
            return bool(await self.commands.ping())
        except RedisError:
            return False

    async def keys(self, pattern: str = "gateway:*") -> set[str]:
        return {key async for key in self.commands.scan_iter(pattern, count=1000)}

    async def members(self, key: str) -> set[str]:
        return {str(member) for member in await self.commands.smembers(f"gateway:{key}")}

    async def subscriptions(self) -> dict[str, int]:
        """Return how many subscribers each topic of the nodes has."""
        names = await self.commands.pubsub_channels("gateway:*")
        found = await self.commands.pubsub_numsub(*names) if names else ()
        return {str(name): count for name, count in found}

    async def links(self) -> list[dict[str, Any]]:
        """Return the connections that nodes and publishers have to it."""
        clients: list[dict[str, Any]] = await self.commands.client_list()
        return [client for client in clients if client["name"].startswith("gateway")]

    async def kill_links(self, pattern: str = "") -> int:
        """Break all connections whose name has this in it; return how many."""
        found = [client for client in await self.links() if pattern in client["name"]]
        for client in found:
            await self.commands.client_kill_filter(_id=client["id"])
        return len(found)
