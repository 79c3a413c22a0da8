"""A handler for nodes under test that breaks its node when told to."""

from __future__ import annotations

from typing import Any, cast

from gateway import Connection, Service
from gateway.node.service import NodeService
from gateway.server.demo.chat import DemoHandler


class Crashing(DemoHandler):
    """`break` has the next look at the node's own figures fail, which nothing in the node expects."""

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        if cmd == "break":
            cast(NodeService, service).node.journal._counts = fail  # type: ignore[method-assign]
            return None
        return await super().on(service, connection, cmd, param)


def fail() -> dict[str, int]:
    raise LookupError("broken")
