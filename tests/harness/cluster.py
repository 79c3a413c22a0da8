"""A Redis Cluster of three masters, each with a replica unless told otherwise."""

from __future__ import annotations

from typing import Any

from redis.asyncio.cluster import RedisCluster as ClusterClient
from redis.crc import key_slot
from redis.exceptions import RedisError

from .ports import HOST, free_port, release_port
from .process import output_of, program
from .proxy import Proxy
from .redis import RedisServer, injection, start_all
from .wait import eventually

__all__ = ["ClusterServer", "RedisCluster"]

MASTERS = 3


class ClusterServer(RedisServer):
    """One member of a cluster. Its place in the cluster survives restarts; its data do not."""

    kind = "cluster"

    def _defaults(self) -> dict[str, str | int]:
        self.bus_port = free_port()
        return super()._defaults() | {
            "cluster-enabled": "yes",
            "cluster-port": self.bus_port,
            "cluster-node-timeout": 1500,
            # A replica may take over however long ago it last heard of its master.
            "cluster-replica-validity-factor": 0,
            # The layout stays as the tests know it.
            "cluster-allow-replica-migration": "no",
        }

    @property
    def address(self) -> str:
        """Host, port and bus port, as redis-cli takes them."""
        return f"{HOST}:{self.port}@{self.bus_port}"

    def close(self) -> None:
        """Kill it and remove its data: the last use. May be called twice."""
        super().close()
        release_port(self.bus_port)


class RedisCluster:
    """Three masters, and three replicas or none; a dead master is replaced within about three seconds.

    With `proxied`, each server has a proxy in front of it, in `proxies`, whose address is the one that clients and
    the other servers are told. `options` are for each server, as `RedisServer` takes them.
    """

    def __init__(self, *, replicas: int = 1, proxied: bool = False, **options: str | int) -> None:
        self.replicas = replicas
        # The members, masters first until a failover changes that.
        self.servers: list[ClusterServer] = []
        # By the port of the server behind it; empty without `proxied`.
        self.proxies: dict[int, Proxy] = {}
        for _ in range(MASTERS * (1 + replicas)):
            port = free_port()
            announced: dict[str, str | int] = {}
            if proxied:
                self.proxies[port] = Proxy(port)
                announced["cluster-announce-port"] = self.proxies[port].port
            self.servers.append(ClusterServer(port=port, **announced, **options))

    @property
    def url(self) -> str:
        """The address as nodes take it."""
        return "redis+cluster://" + ",".join(f"{HOST}:{self._seen_port(server)}" for server in self.servers)

    async def start(self) -> None:
        """Start all servers, join them by redis-cli, and return when every one calls the cluster whole."""
        for proxy in self.proxies.values():
            proxy.start()
        await start_all(self.servers)
        create = [program("redis-cli"), "--cluster", "create", *(server.address for server in self.servers)]
        await output_of([*create, "--cluster-replicas", str(self.replicas), "--cluster-yes"])
        await self.settled()

    async def master_of(self, key: str | int) -> ClusterServer:
        """Return the master that serves a key (its hash tag counts), or a slot given as a number."""
        return self._by_port(await self._owner(self._awake()[0], _slot(key)))

    async def masters(self) -> list[ClusterServer]:
        """Return the masters that serve slots, in the order of `servers`."""
        owners = {row[2][1] for row in await self._awake()[0].command("CLUSTER", "SLOTS")}
        return [server for server in self.servers if self._seen_port(server) in owners]

    async def replica_of(self, master: ClusterServer) -> ClusterServer:
        """Return a replica of a master."""
        for server in self._awake():
            role, *state = await server.command("ROLE")
            if role == "slave" and state[1] == self._seen_port(master):
                return server
        raise AssertionError(f"{master!r} has no replica")

    async def kill_master(self, key: str | int) -> ClusterServer:
        """Kill (SIGKILL) the master that serves a key; return its successor once every survivor knows it."""
        old = await self.master_of(key)
        await old.kill()
        return await self.replaced(old, key)

    async def failover(self, key: str | int) -> ClusterServer:
        """Let a replica take over from the master that serves a key (CLUSTER FAILOVER); return it when done.

        The old master lives on as its replica. Nothing is lost on the Redis side.
        """
        old = await self.master_of(key)
        await (await self.replica_of(old)).command("CLUSTER", "FAILOVER")
        new = await self.replaced(old, key)
        await self.settled()
        return new

    async def replaced(self, old: ClusterServer, key: str | int, deadline: float = 20.0) -> ClusterServer:
        """Wait until every server that is awake names another master than `old` for a key; return it."""

        async def successor() -> ClusterServer | None:
            views = [await self._owner(server, _slot(key)) for server in self._awake() if server is not old]
            assert len(set(views)) == 1, f"the servers name different masters: {views}"
            return None if views[0] == self._seen_port(old) else self._by_port(views[0])

        return await eventually(
            successor, deadline, tolerating=(OSError, RedisError), what=f"a master instead of {old!r}"
        )

    async def move_slot(self, key: str | int, to: ClusterServer | None = None) -> ClusterServer:
        """Move the slot of a key to another master with its keys, while clients go on; return the new master."""
        slot = _slot(key)
        source = await self.master_of(slot)
        target = to or next(master for master in await self.masters() if master is not source)
        source_id, target_id = [await master.command("CLUSTER", "MYID") for master in (source, target)]
        await target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        await source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        while keys := await source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            await source.command("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
        # The target first: an interruption then leaves two owners, of which the newer wins, never none.
        for master in (target, source, *await self.masters()):
            await master.command("CLUSTER", "SETSLOT", slot, "NODE", target_id)
        await self.replaced(source, slot)
        return target

    async def settled(self, deadline: float = 30.0) -> None:
        """Wait until every server calls the cluster whole, and every replica is in step with its master."""
        await eventually(
            self._is_settled, deadline, tolerating=(OSError, RedisError), what="a whole cluster in every server's eyes"
        )

    async def heal(self) -> None:
        """Thaw, restart and reconnect whatever a test broke, and wait until the cluster is whole.

        Masters and slots stay where they are now.
        """
        for proxy in self.proxies.values():
            proxy.heal()
        for server in self.servers:
            server.thaw()
        await start_all(server for server in self.servers if not server.process.running)
        await self.settled()

    async def reset(self) -> None:
        """Remove all data and statistics from all masters."""
        for master in await self.masters():
            await master.reset()

    async def publish(self, topic: str, cmd: str, param: Any = None, **fields: Any) -> int:
        """Inject a message by hand (SPUBLISH), as `RedisServer.publish` does."""
        master = await self.master_of(topic)
        return int(await master.command("SPUBLISH", topic, injection(cmd, param, **fields)))

    def client(self, **options: Any) -> ClusterClient:
        """Return a redis-py cluster client, for `async with`; it decodes replies unless told otherwise."""
        return ClusterClient(
            host=HOST, port=self._seen_port(self._awake()[0]), **({"decode_responses": True} | options)
        )

    def close(self) -> None:
        """Kill all servers and end their proxies: the last use. May be called twice."""
        for proxy in self.proxies.values():
            proxy.close()
        for server in self.servers:
            server.close()
            release_port(server.port)

    def _seen_port(self, server: RedisServer) -> int:
        """The port under which clients know a server."""
        return self.proxies[server.port].port if self.proxies else server.port

    def _by_port(self, seen: int) -> ClusterServer:
        return next(server for server in self.servers if self._seen_port(server) == seen)

    def _awake(self) -> list[ClusterServer]:
        return [server for server in self.servers if server.process.awake]

    async def _owner(self, server: ClusterServer, slot: int) -> int:
        """Return the port of the master that `server` believes to serve a slot."""
        for first, last, master, *_ in await server.command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return int(master[1])
        raise AssertionError(f"{server!r} knows no master of slot {slot}")

    async def _is_settled(self) -> bool:
        for server in self.servers:
            state = await server.command("CLUSTER", "INFO")
            assert "cluster_state:ok" in state, state
            assert f"cluster_known_nodes:{len(self.servers)}\r" in state, state
            members = (await server.command("CLUSTER", "NODES")).splitlines()
            flags = [flag for member in members for flag in member.split()[2].split(",")]
            assert set(flags) <= {"myself", "master", "slave"}, f"{server!r} sees {members}"
            assert flags.count("master") == MASTERS, f"{server!r} sees {members}"
            role, *link = await server.command("ROLE")
            assert role == "master" or link[2] == "connected", f"{server!r} follows its master: {link}"
        return True


def _slot(key: str | int) -> int:
    return key if isinstance(key, int) else int(key_slot(key.encode()))
