"""A handler for nodes under test that passes on what it is given."""

from __future__ import annotations

from typing import Any

from gateway import Connection, Handler, Service


class Relay(Handler):
    """Writes whatever a client publishes to the channel it names."""

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> None:
        assert connection.message is not None
        await service.write_channel(cmd, param, connection.message.channel)
