"""A handler for nodes under test that tells what it takes a message to be about."""

from __future__ import annotations

from typing import Any

from gateway import Connection, Handler, Service


class Aiming(Handler):
    """Answers with `connection.target`: at once, or after its client was moved."""

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        match cmd:
            case "ignore":
                return "fine"
            case "join":
                await service.join_for(connection, param)
            case "place":
                await service.join(connection.id, param)
            case "leave":
                await service.leave(connection.id, param)
        return connection.target
