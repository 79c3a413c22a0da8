"""A real haproxy in front of nodes, as operators run it: no sticky sessions, least connections."""

from __future__ import annotations

import csv
from collections.abc import Iterable

from aiohttp import ClientError

from . import http
from .address import Addressed
from .node import Node
from .ports import HOST, free_port, release_port
from .process import Process, program
from .wait import eventually

__all__ = ["Haproxy"]

_CONFIGURATION = """
global
    maxconn {maxconn}
defaults
    mode http
    balance leastconn
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
    timeout check 1s
    option redispatch
    retries 3
frontend clients
    bind {host}:{port}
    default_backend nodes
frontend state
    bind {host}:{state_port}
    stats enable
    stats uri /
backend nodes
    option httpchk
    http-check send meth GET uri {check} ver HTTP/1.1 hdr Host gateway
    default-server check inter 200ms fastinter 100ms fall 2 rise 1
{servers}
"""


class Haproxy(Addressed):
    """Passes what comes to one port on to the nodes whose `check` path answers 2xx or 3xx."""

    def __init__(self, nodes: Iterable[Node], *, check: str = "/readyz", connections: int = 8000) -> None:
        self.port = free_port()
        self._state_port = free_port()
        self.process = Process([program("haproxy"), "-db", "-f", "haproxy.cfg"], name=f"haproxy-{self.port}")
        configuration = _CONFIGURATION.format(
            maxconn=connections,
            host=HOST,
            port=self.port,
            state_port=self._state_port,
            check=check,
            servers="\n".join(f"    server {node.id} {HOST}:{node.port}" for node in nodes),
        )
        (self.process.directory / "haproxy.cfg").write_text(configuration)

    async def start(self, deadline: float = 10.0) -> None:
        """Start it, and return when it has found every node in service."""
        self.process.start()

        async def all_up() -> bool:
            self.process.assert_running()
            states = await self.states()
            assert all(state == "UP" for state in states.values()), states
            return True

        await eventually(all_up, deadline, tolerating=(OSError, ClientError), what="haproxy finds all nodes up")

    async def states(self) -> dict[str, str]:
        """Return what it thinks of each node, by id: `UP`, `DOWN`, or a change under way such as `UP 1/2`."""
        return {row["svname"]: row["status"] for row in await self._rows()}

    async def sessions(self) -> dict[str, int]:
        """Return how many connections it holds to each node now, by id."""
        return {row["svname"]: int(row["scur"]) for row in await self._rows()}

    async def state(self, node: Node, wanted: str, deadline: float = 10.0) -> None:
        """Wait until it thinks so of a node: `UP` or `DOWN`."""

        async def reached() -> bool:
            states = await self.states()
            assert states[node.id] == wanted, states
            return True

        await eventually(reached, deadline, what=f"haproxy calls {node.id} {wanted}")

    def close(self) -> None:
        """Kill it: the last use. May be called twice."""
        self.process.close()
        release_port(self.port)
        release_port(self._state_port)

    async def _rows(self) -> list[dict[str, str]]:
        answer = await http.get(f"http://{HOST}:{self._state_port}/;csv")
        rows = csv.DictReader(answer.text.removeprefix("# ").splitlines())
        return [row for row in rows if row["pxname"] == "nodes" and row["svname"] != "BACKEND"]
