"""What operators do. Every action is noted in the audit, with what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from gateway.errors import ENDED, RESTART, Close, ConnectionNotFound, GatewayError, InvalidParam
from gateway.node.service import NodeService

Fields = Mapping[str, Any]
Action = Callable[[NodeService, Fields], Awaitable[dict[str, Any]]]

SENT_AWAY = Close(RESTART.code, ENDED.reason).after(1)
"""Ends a connection so that its client comes back."""
MOST_ENDED = 10_000
"""Connections of one user that one action ends."""


async def send(service: NodeService, fields: Fields) -> dict[str, Any]:
    """Write a message to a channel, a user, one connection or everyone."""
    cmd, param, name = _text(fields, "cmd"), fields.get("param"), str(fields.get("name", ""))
    match fields.get("kind"):
        case "channel":
            position = await service.write_channel(cmd, param, name)
            return {"epoch": position.epoch, "offset": position.offset} if position else {}
        case "user":
            await service.write_user(cmd, param, name)
        case "connection":
            await service.write_connection(cmd, param, name)
        case "all":
            await service.write_all(cmd, param)
        case kind:
            raise InvalidParam(f"expected channel, user, connection or all, got {kind!r}", field="kind")
    return {}


async def disconnect(service: NodeService, fields: Fields) -> dict[str, Any]:
    """End one connection, for good or so that it comes back."""
    await service.disconnect(_text(fields, "id"), **_ending(fields))
    return {}


async def disconnect_user(service: NodeService, fields: Fields) -> dict[str, Any]:
    """End every connection of a user, on whatever node."""
    user, ended = _text(fields, "user"), 0
    cursor: str | None = None
    while ended < MOST_ENDED:
        found = await service.directory.find_connections(user=user, sort="id", cursor=cursor, limit=500)
        for connection in found.items:
            try:
                await service.disconnect(connection.id, **_ending(fields))
                ended += 1
            except ConnectionNotFound:
                pass
        cursor = found.cursor
        if cursor is None:
            break
    return {"ended": ended}


async def join(service: NodeService, fields: Fields) -> dict[str, Any]:
    """Put a connection in a channel."""
    return {"created": await service.join(_text(fields, "id"), _text(fields, "channel"))}


async def leave(service: NodeService, fields: Fields) -> dict[str, Any]:
    """Take a connection out of a channel."""
    return {"emptied": await service.leave(_text(fields, "id"), _text(fields, "channel"))}


async def drain(service: NodeService, fields: Fields) -> dict[str, Any]:
    """Have a node send its clients away and stop."""
    await service.operations.drain(_text(fields, "node"))
    return {}


ACTIONS: dict[str, Action] = {
    "send": send,
    "disconnect": disconnect,
    "disconnect-user": disconnect_user,
    "join": join,
    "leave": leave,
    "drain": drain,
}


async def act(service: NodeService, who: str, name: str, fields: object) -> dict[str, Any]:
    """Carry out an action and note it, whatever comes of it. Raises what the action raises."""
    if name not in ACTIONS:
        raise web.HTTPNotFound(text=f"no action {name!r}\n")
    if not isinstance(fields, dict):
        raise InvalidParam("expected a JSON object")
    details = {key: value for key, value in fields.items() if key in ("cmd", "channel", "reconnect")}
    try:
        result = await ACTIONS[name](service, fields)
    except GatewayError as error:
        service.operations.audit(who, name, _target(fields), **details, failed=error.message)
        raise
    service.operations.audit(who, name, _target(fields), **details, **result)
    return result


def _target(fields: Fields) -> str:
    """Say to whom something was done."""
    for kind in ("id", "user", "node"):
        if kind in fields:
            return f"{'connection' if kind == 'id' else kind} {str(fields[kind])[:300]}"
    kind, name = str(fields.get("kind", ""))[:20], str(fields.get("name", ""))[:300]
    return "everyone" if kind == "all" else f"{kind} {name}"


def _ending(fields: Fields) -> dict[str, Any]:
    close = SENT_AWAY if fields.get("reconnect") else ENDED
    return {"code": close.code, "reason": close.reason}


def _text(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidParam(f"expected {name} to be a string that is not empty", field=name)
    return value
