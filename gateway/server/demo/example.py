"""What the demo page says beside the demo chat, to make a chat feel alive."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from gateway.application.service import Handler, Service
from gateway.backplane.inflight import InFlight
from gateway.config import Rule, Settings
from gateway.connections.connection import Connection
from gateway.errors import Forbidden, InvalidParam
from gateway.protocol.message import is_name
from gateway.server.demo.chat import DemoHandler, answer, said

MOST_NAMES = 200
"""People of a channel whose names are told: in a larger crowd nobody reads them all."""
MOST_FORMER = 5
"""Connections that somebody may say were their own."""
HISTORY = "~history"
"""What a room's name ends in to name the channel that keeps what was said on the page."""
RULES = (Rule(match=f"*{HISTORY}", history=200, presence=False),)
"""The rules of the demo where none are set: its rooms themselves are channels like any other."""


def with_rooms_kept(settings: Settings) -> Settings:
    """Let the page's rooms keep what is said, unless somebody has rules or a handler of their own."""
    if settings.channels or settings.handler != Settings.model_fields["handler"].default:
        return settings
    # Before anybody asks for the rule of a channel, which is remembered.
    return settings.model_copy(update={"channels": RULES})


class ExampleHandler(Handler):
    """The configured demo, as the page speaks to it: that one is asked whatever it would be asked at `/connect`.

    Adds what the page says on channels of its own beside each room's: `hello` and `typing`, so that they never stand
    in the history of the room. And everything said once more where that is kept and the room is not, so that a room
    that anybody may use keeps to the letter of the demo.
    """

    def __init__(self, demo: DemoHandler) -> None:
        self._demo = demo
        self._people = InFlight[dict[str, str]]()
        for name in ("authenticate", "authorize", "on_open", "on_close", "without_channel"):
            setattr(self, name, getattr(demo, name))

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        match cmd:
            case "chat" if (kept := _kept(service, connection)) is not None:
                # The page shows both, and knows them as one by their time.
                what = said(connection, param)
                await answer(service, connection, cmd, what, sender=connection.user)
                if await service.authorize(connection, kept, "send"):
                    await service.write_channel(cmd, what, kept, sender=connection.user)
                return None
            case "hello":
                await _tell_others(service, connection, cmd, _former(param))
                channel = _own(connection)
                tells = service.settings.rule(channel).presence
                return {"people": await self._people.ask(channel, partial(_names, service, channel)) if tells else {}}
            case "typing":
                await _tell_others(service, connection, cmd)
                return None
        return await self._demo.on(service, connection, cmd, param)


def _kept(service: Service, connection: Connection) -> str | None:
    """Return the channel that keeps what is said in the room that the message in hand names."""
    room = connection.message.channel if connection.message else ""
    kept, rule = f"{room}{HISTORY}", service.settings.rule
    is_kept = rule(kept).history and not rule(room).history
    return kept if is_kept and {room, kept} <= set(connection.channels) else None


def _former(param: Any) -> list[str]:
    """Return the connections that a person had before: an anonymous one is known by nothing else."""
    former = param.get("was", []) if isinstance(param, dict) else []
    if not isinstance(former, list) or len(former) > MOST_FORMER or not all(map(_is_id, former)):
        raise InvalidParam(f"expected at most {MOST_FORMER} ids", field="was")
    return former


def _is_id(value: object) -> bool:
    return isinstance(value, str) and is_name(value)


async def _tell_others(service: Service, connection: Connection, cmd: str, former: Sequence[str] = ()) -> None:
    """Write who a member is, and was, to the other members."""
    who = {"user": connection.user, "name": connection.profile.name, **({"was": former} if former else {})}
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
