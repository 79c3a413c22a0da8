"""The demo chat, command for command as in the original's example."""

from __future__ import annotations

import time
from typing import Any

from gateway.application.service import Handler, Service
from gateway.connections.connection import Connection
from gateway.errors import InvalidParam, UnknownCommand


class DemoHandler(Handler):
    """A chat with rooms."""

    without_channel = ("join-room", "leave-room")

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        match cmd:
            case "ping":
                await answer(service, connection, "pong", {"timestamp": _now()}, sender=None)
            case "chat":
                await answer(service, connection, "chat", said(connection, param), sender=connection.user)
            case "join-room":
                await service.join_for(connection, _text(param, "room"))
            case "leave-room":
                await service.leave(connection.id, _text(param, "room"))
            case _:
                raise UnknownCommand(f"unknown command {cmd!r}")
        return None


def said(connection: Connection, param: Any) -> dict[str, object]:
    """Return what the others get of a `chat`. Raises `InvalidParam`."""
    user = connection.profile.name or connection.user
    return {"user": user, "text": _text(param, "text"), "time": _now()}


async def answer(service: Service, connection: Connection, cmd: str, param: object, *, sender: str | None) -> None:
    """Write to the channel that the message in hand is about; where there is none, to its sender alone."""
    if channel := connection.target:
        await service.write_channel(cmd, param, channel, sender=sender)
    else:
        await service.write_connection(cmd, param, connection.id, sender=sender)


def _text(param: Any, field: str) -> str:
    value = param.get(field) if isinstance(param, dict) else None
    if not isinstance(value, str):
        raise InvalidParam(f"expected {field} to be a string", field=field)
    return value


def _now() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
