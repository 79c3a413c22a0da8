"""The handler under measurement: a message goes to the channel it names."""

from __future__ import annotations

from typing import Any

from gateway import Connection, Handler, Service


class Relay(Handler):
    """Passes on whatever a client sends."""

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        assert connection.message is not None
        await service.write_channel(cmd, param, connection.message.channel)
        return None
