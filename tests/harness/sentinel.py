"""A master, two replicas, and the three sentinels that watch them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from .ports import HOST
from .redis import RedisServer, start_all
from .wait import eventually

__all__ = ["Sentinel", "Sentinels"]

# Sentinel's own rhythms, made for data centres; with them a failover would take tens of seconds, and a master that
# comes back would be demoted after eight.
_RHYTHM = {"PUBLISH-PERIOD": 200, "INFO-PERIOD": 500, "ASK-PERIOD": 200, "PING-PERIOD": 200, "ELECTION-TIMEOUT": 2000}


class Sentinel(RedisServer):
    """One sentinel; it keeps what it learnt in its configuration file, over restarts too."""

    mode = ("--sentinel",)
    kind = "sentinel"

    def _defaults(self) -> dict[str, str | int]:
        return {"port": self.port, "bind": HOST}

    async def start(self, deadline: float = 10.0) -> None:
        """Start it with quick rhythms, and return when it answers."""
        await super().start(deadline)
        await self.command("SENTINEL", "DEBUG", *(word for pair in _RHYTHM.items() for word in pair))


class Sentinels:
    """A master called `gateway` with two replicas, failed over within about three seconds of its death."""

    name = "gateway"

    def __init__(self, **options: Any) -> None:
        """Lay out the servers; `options` are for the three data servers, as `RedisServer` takes them."""
        first = RedisServer(**options)
        options["replicaof"] = f"{HOST} {first.port}"
        replicas = [RedisServer(**options) for _ in range(2)]
        # In the order of creation; whoever is master changes.
        self.servers = [first, *replicas]
        self.sentinels = [Sentinel(sentinel=self._watch(first.port)) for _ in range(3)]

    @property
    def url(self) -> str:
        """The address as nodes take it."""
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.name}/0"

    async def start(self) -> None:
        """Start all six, and return when every sentinel knows all the others."""
        await start_all(self.servers)
        await start_all(self.sentinels)
        await self.settled()

    async def master_port(self) -> int:
        """Return the port that the sentinels name as the master's now; fail when they do not agree."""
        answers = await asyncio.gather(*(self._named_by(each) for each in self.sentinels if each.process.awake))
        assert len(set(answers)) == 1, f"the sentinels name different masters: {answers}"
        return answers[0]

    async def master(self) -> RedisServer:
        """Return the server that the sentinels name as the master now."""
        port = await self.master_port()
        return next(server for server in self.servers if server.port == port)

    async def kill_master(self) -> RedisServer:
        """Kill the master (SIGKILL); return the new one once all sentinels name it and it takes writes."""
        old = await self.master()
        await old.kill()
        return await self.replaced(old)

    async def failover(self) -> RedisServer:
        """Make the sentinels put another server in the master's place; return it once that is done.

        The old master lives on as a replica.
        """
        old = await self.master()
        await self.sentinels[0].command("SENTINEL", "FAILOVER", self.name)
        new = await self.replaced(old)
        await self.settled()
        return new

    async def replaced(self, old: RedisServer, deadline: float = 20.0) -> RedisServer:
        """Wait until all sentinels name another master than `old` and it takes writes; return it."""

        async def new_master() -> RedisServer | None:
            master = await self.master()
            if master is old or (await master.command("ROLE"))[0] != "master":
                return None
            return master

        return await eventually(
            new_master, deadline, tolerating=(OSError, RedisError), what=f"a master instead of {old!r}"
        )

    async def settled(self, deadline: float = 30.0) -> None:
        """Wait until one master has two connected replicas and all sentinels know of all of that."""
        await eventually(
            self._is_settled, deadline, tolerating=(OSError, RedisError), what="one master, two replicas, known to all"
        )

    async def heal(self) -> None:
        """Thaw and restart whatever a test froze or killed, and wait until all is as after `start`."""
        for server in (*self.servers, *self.sentinels):
            server.thaw()
        await start_all(server for server in (*self.servers, *self.sentinels) if not server.process.running)
        await self.settled()

    def close(self) -> None:
        """Kill all six: the last use. May be called twice."""
        for server in (*self.sentinels, *self.servers):
            server.close()

    def _watch(self, port: int) -> str:
        return "\nsentinel ".join(
            [
                f"monitor {self.name} {HOST} {port} 2",
                f"down-after-milliseconds {self.name} 1000",
                f"failover-timeout {self.name} 2000",
                f"parallel-syncs {self.name} 2",
            ]
        )

    async def _named_by(self, sentinel: Sentinel) -> int:
        _, port = await sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        return int(port)

    async def _is_settled(self) -> bool:
        master = await self.master()
        role, _, replicas = await master.command("ROLE")
        assert (role, len(replicas)) == ("master", 2), f"{master!r} is a {role} with replicas {replicas}"
        for server in self.servers:
            role, *state = await server.command("ROLE")
            assert server is master or state[1:3] == [master.port, "connected"], f"{server!r} is a {role}: {state}"
        for sentinel in self.sentinels:
            await self._assert_knows_all(sentinel)
        return True

    async def _assert_knows_all(self, sentinel: Sentinel) -> None:
        view = _named(await sentinel.command("SENTINEL", "MASTER", self.name))
        replicas = map(_named, await sentinel.command("SENTINEL", "REPLICAS", self.name))
        seen = (view["flags"], view["num-other-sentinels"], *(replica["flags"] for replica in replicas))
        assert seen == ("master", "2", "slave", "slave"), f"{sentinel!r} sees {seen}"


def _named(reply: Sequence[str] | Mapping[str, str]) -> Mapping[str, str]:
    """Read a reply of names and values, which is a list or a map as the protocol has it."""
    if isinstance(reply, Mapping):
        return reply
    return dict(zip(reply[::2], reply[1::2], strict=True))
