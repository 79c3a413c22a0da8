"""One real Redis server."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from .ports import HOST, free_port, release_port
from .process import Process, output_of, program
from .wait import eventually

__all__ = ["RedisServer", "injection", "start_all"]


class RedisServer:
    """A redis-server on the loopback address, without persistence unless told otherwise.

    `options` are those of redis.conf, with `_` for `-`: `requirepass="secret"`, `maxmemory="20mb"`,
    `client_output_buffer_limit="pubsub 1mb 0 0"`. What is set later by CONFIG SET lasts until a restart.
    It listens on `port` and on the Unix socket `socket`.
    """

    # What `redis-server` is called with after the file, and how the process is named.
    mode: tuple[str, ...] = ()
    kind = "redis"

    def __init__(self, *, port: int | None = None, **options: str | int) -> None:
        self._owns_port = port is None
        self.port = free_port() if port is None else port
        self.process = Process([program("redis-server"), "redis.conf", *self.mode], name=f"{self.kind}-{self.port}")
        self.socket = self.process.directory / "redis.sock"
        self._password = str(options.get("requirepass", ""))
        self._file("redis.conf").write_text(_lines(self._defaults()) + _lines(options))

    def __repr__(self) -> str:
        return repr(self.process)

    @property
    def url(self) -> str:
        """The address as nodes take it, with the password if there is one."""
        return f"redis://{self._credentials}{HOST}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The address by the Unix socket."""
        return f"unix://{self._credentials}{self.socket}?db=0"

    def configure(self, **options: str | int) -> None:
        """Set options for the next start."""
        with self._file("redis.conf").open("a") as file:
            file.write(_lines(options))

    async def start(self, deadline: float = 10.0) -> None:
        """Start it, and return when it answers commands."""
        self.process.start()
        await self.ready(deadline)

    async def ready(self, deadline: float = 10.0) -> None:
        """Wait until it answers commands: it is up, and has loaded its data. Fails at once if it has ended."""
        await eventually(self._answers, deadline, tolerating=(OSError, RedisError), what=f"{self!r} answers")

    async def stop(self, *, keep_data: bool = False) -> None:
        """End it in good order; `keep_data` for the next start, or lose them all."""
        if keep_data:
            # One step: nothing that was written meanwhile is lost. The reply is the end of the connection.
            with suppress(RedisConnectionError):
                await self.command("SHUTDOWN", "SAVE")
        await self.process.stop()
        if not keep_data:
            self._lose_data()

    async def kill(self, *, keep_data: bool = False) -> None:
        """End it by SIGKILL: `keep_data` keeps only what it had persisted, by `appendonly` or SAVE."""
        await self.process.kill()
        if not keep_data:
            self._lose_data()

    async def restart(self, *, keep_data: bool = False) -> None:
        """Stop it and start it again on the same port, with its data or empty."""
        await self.stop(keep_data=keep_data)
        await self.start()

    def freeze(self) -> None:
        """Stop it in mid-work (SIGSTOP): connections stay open, new ones are accepted, nothing is answered."""
        self.process.freeze()

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self.process.thaw()

    async def break_saving(self) -> None:
        """Let it fail to write its data, as on a full disk: from now on it refuses writes (MISCONF)."""
        self._file("dump.rdb").unlink(missing_ok=True)
        self._file("dump.rdb").mkdir()
        await self.command("CONFIG", "SET", "save", "3600 1")
        await self._saved("err")

    async def mend_saving(self) -> None:
        """Let it write its data again, and take writes."""
        self._file("dump.rdb").rmdir()
        await self._saved("ok")
        await self.command("CONFIG", "SET", "save", "")

    def close(self) -> None:
        """Kill it and remove its data: the last use. May be called twice."""
        self.process.close()
        if self._owns_port:
            release_port(self.port)

    async def cli(self, *arguments: str | int) -> str:
        """Run the real redis-cli, as an operator would, and return what it prints; fail on an error reply."""
        password = ["-a", self._password, "--no-auth-warning"] if self._password else []
        command = [program("redis-cli"), "-e", "-h", HOST, "-p", str(self.port), *password]
        return await output_of([*command, *map(str, arguments)])

    async def command(self, *arguments: str | int | float | bytes) -> Any:
        """Send one command on a connection of its own and return redis-py's reading of the reply.

        Raises redis-py's errors at once: nothing is tried twice. Replies are decoded as UTF-8.
        """
        async with self.client() as redis:
            return await redis.execute_command(*arguments)

    async def publish(self, topic: str, cmd: str, param: Any = None, **fields: Any) -> int:
        """Inject a message by hand, as JSON; return how many subscribers Redis had for it.

        `fields` are the further keys, such as `exclude`; `from_` stands for `from`.
        """
        return int(await self.command("PUBLISH", topic, injection(cmd, param, **fields)))

    def client(self, **options: Any) -> Redis:
        """Return a redis-py client, for `async with`; it decodes replies, and tries nothing twice.

        `options` are redis-py's: `decode_responses=False` to read what nodes send to each other. It belongs to the
        running loop.
        """
        defaults: dict[str, Any] = {"decode_responses": True, "retry": Retry(NoBackoff(), 0)}
        return Redis(host=HOST, port=self.port, password=self._password or None, **(defaults | options))

    async def reset(self) -> None:
        """Remove all data, statistics and the slow log, but no client and no configuration."""
        async with self.client() as redis, redis.pipeline(transaction=False) as pipeline:
            for command in ("FLUSHALL SYNC", "CONFIG RESETSTAT", "SLOWLOG RESET"):
                pipeline.execute_command(*command.split())
            await pipeline.execute()

    @property
    def _credentials(self) -> str:
        return f":{self._password}@" if self._password else ""

    async def _answers(self) -> bool:
        self.process.assert_running()
        try:
            async with self.client(socket_timeout=1) as redis:
                return bool(await redis.ping())
        except (AuthenticationError, NoPermissionError):
            return True

    async def _saved(self, expected: str) -> None:
        async def has_ended() -> bool:
            state = await self.command("INFO", "persistence")
            return not state["rdb_bgsave_in_progress"] and state["rdb_last_bgsave_status"] == expected

        await self.command("BGSAVE")
        await eventually(has_ended, what=f"{self!r} has saved: {expected}")

    def _defaults(self) -> dict[str, str | int]:
        return {
            "port": self.port,
            "bind": HOST,
            "unixsocket": str(self.socket),
            "save": '""',
            "appendonly": "no",
            "enable-debug-command": "local",
            # A replica's first synchronisation would wait so long for others to join in.
            "repl-diskless-sync-delay": 0,
        }

    def _lose_data(self) -> None:
        self._file("dump.rdb").unlink(missing_ok=True)
        shutil.rmtree(self._file("appendonlydir"), ignore_errors=True)

    def _file(self, name: str) -> Path:
        return self.process.directory / name


def _lines(options: Mapping[str, str | int]) -> str:
    return "".join(f"{name.replace('_', '-')} {value}\n" for name, value in options.items())


def injection(cmd: str, param: Any = None, **fields: Any) -> str:
    """Return the payload of a message injected by hand; `from_` stands for `from`."""
    return json.dumps({"cmd": cmd, "param": param} | {name.rstrip("_"): value for name, value in fields.items()})


async def start_all(servers: Iterable[RedisServer]) -> None:
    """Start several servers at the same time."""
    await asyncio.gather(*(server.start() for server in servers))
