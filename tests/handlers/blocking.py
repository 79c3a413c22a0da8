"""A handler for nodes under test that blocks the event loop when told to."""

from __future__ import annotations

import time
from typing import Any

from gateway import Connection, Service
from gateway.server.demo.chat import DemoHandler


class Blocking(DemoHandler):
    """Every command with `seconds` sleeps for so long before it is answered."""

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        if isinstance(param, dict) and "seconds" in param:
            return slow_query(param["seconds"])
        return await super().on(service, connection, cmd, param)


def slow_query(seconds: float) -> str:
    time.sleep(seconds)
    return "done"
