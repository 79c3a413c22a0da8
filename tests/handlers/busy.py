"""A handler for nodes under test that never finishes what it is asked."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway import Connection, Handler, Service


class Busy(Handler):
    """Waits for ever."""

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> None:
        await asyncio.Event().wait()
