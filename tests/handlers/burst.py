"""A handler for nodes under test that writes a number of messages in one turn of the loop."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway import Connection, Handler, Service


class Burst(Handler):
    """Writes as many messages to the connection's channel as a client asks for, all at the same time."""

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> int:
        await asyncio.gather(*(service.write_channel(cmd, number, connection.channel) for number in range(int(param))))
        return int(param)
