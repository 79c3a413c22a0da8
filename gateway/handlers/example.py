"""The handler of the demo page: the demo chat, and what makes a chat feel alive."""

from __future__ import annotations

from typing import Any

from gateway.connection import Connection
from gateway.errors import Forbidden
from gateway.handlers.demo import DemoHandler
from gateway.service import Service

MOST_NAMES = 200
"""People of a channel whose names are told: in a larger crowd nobody reads them all."""


class ExampleHandler(DemoHandler):
    """Adds `hello` and `typing`, which the page sends on a channel of its own beside each room's.

    Beside it, so that they never stand in the history of the room.
    """

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        match cmd:
            case "hello":
                await _tell_others(service, connection, cmd)
                return {"people": await _names(service, _own(connection))}
            case "typing":
                await _tell_others(service, connection, cmd)
                return None
        return await super().on(service, connection, cmd, param)


async def _tell_others(service: Service, connection: Connection, cmd: str) -> None:
    """Write who a member is to the other members."""
    who = {"user": connection.user, "name": connection.profile.name}
    await service.write_channel(cmd, who, _own(connection), exclude=(connection.id,), sender=connection.user)


async def _names(service: Service, channel: str) -> dict[str, str]:
    """Return the display names in a channel, by user id."""
    members = service.get_connections_by_channel(channel)
    names: dict[str, str] = {}
    async for member in members:
        names[member.user] = member.name
        if len(names) == MOST_NAMES:
            break
    return names


def _own(connection: Connection) -> str:
    """Return the channel that the message in hand names. Raises `Forbidden` unless its sender is in it."""
    channel = connection.message.channel if connection.message else ""
    if channel not in connection.channels:
        raise Forbidden("only members may do this")
    return channel
