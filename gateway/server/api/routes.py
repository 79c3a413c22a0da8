"""The operations of the server API."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from gateway.backplane import Page
from gateway.connections.connection import ConnectionInfo
from gateway.node.service import NodeService
from gateway.operations.search import NameSort
from gateway.operations.search.page import read_cursor, write_cursor
from gateway.presence import NodeInfo
from gateway.protocol.envelope import Envelope, encode_history
from gateway.protocol.message import Position, check_channel
from gateway.server.api import wire
from gateway.server.api.openapi import describe
from gateway.server.api.operation import OPEN, Routes
from gateway.server.api.problems import Refused

L = TypeVar("L", bound=wire.List)

ROUTES = Routes()
at = ROUTES.at


@at("GET", OPEN)
async def openapi(service: NodeService) -> dict[str, Any]:
    """Describe the API: this document."""
    return describe(ROUTES.all)


# ---- writing


@at("POST", "/api/channels/{channel}/messages", status=202)
async def write_channel(service: NodeService, channel: str, body: wire.MessageToMany) -> wire.Accepted:
    """Write to every member of a channel."""
    at = await service.write_channel(body.cmd, body.param, channel, exclude=body.exclude, sender=body.sender)
    return {} if at is None else {"epoch": at.epoch, "offset": at.offset}


@at("POST", "/api/users/{user}/messages", status=202)
async def write_user(service: NodeService, user: str, body: wire.MessageBody) -> wire.Accepted:
    """Write to every connection of a user; one who is offline gets nothing."""
    await service.write_user(body.cmd, body.param, user, sender=body.sender)
    return {}


@at("POST", "/api/connections/{id}/messages", status=202, errors=(404,))
async def write_connection(service: NodeService, id: str, body: wire.MessageBody) -> wire.Accepted:
    """Write to one connection."""
    await service.write_connection(body.cmd, body.param, id, sender=body.sender)
    return {}


@at("POST", "/api/messages", status=202)
async def write_all(service: NodeService, body: wire.MessageToMany) -> wire.Accepted:
    """Write to every connection of every node."""
    await service.write_all(body.cmd, body.param, exclude=body.exclude, sender=body.sender)
    return {}


# ---- looking


@at("GET", "/api/status")
async def status(service: NodeService) -> wire.ClusterStatus:
    """Count what the cluster holds."""
    now = await service.status()
    return {
        "node": now.node,
        "version": now.version,
        "nodes": len(now.nodes),
        "connections": now.connections,
        "channels": now.channels,
        "users": now.users,
    }


@at("GET", "/api/nodes")
async def nodes(service: NodeService, query: wire.PageQuery) -> wire.Nodes:
    """List the nodes, by id."""
    after = "" if query.cursor is None else read_cursor(query.cursor, "nodes", str)[1]
    known = sorted(node for node in (await service.status()).nodes if node.id > after)
    page = known[: query.limit]
    cursor = write_cursor("nodes", (page[-1].id, page[-1].id)) if len(page) < len(known) else None
    return {"items": [_node(node) for node in page], "cursor": cursor}


def _node(node: NodeInfo) -> wire.Node:
    return {
        "id": node.id,
        "host": node.host,
        "version": node.version,
        "started": node.started,
        "connections": node.connections,
        "channels": node.channels,
        "ready": node.vital.serves,
    }


@at("GET", "/api/channels")
async def channels(service: NodeService, query: wire.ChannelsQuery) -> wire.Channels:
    """List the channels that have a member."""
    sort: NameSort = "size" if query.sort == "members" else "name"
    found = await service.directory.find_channels(query.prefix, sort=sort, cursor=query.cursor, limit=query.limit)
    items = [wire.Channel(name=row.name, members=row.members, online=row.online) for row in found.items]
    return _complete(wire.Channels(items=items, cursor=found.cursor), found.silent)


@at("GET", "/api/channels/{channel}", errors=(404,))
async def channel(service: NodeService, channel: str) -> wire.ChannelPage:
    """Describe a channel, with the users online in it."""
    found = await service.directory.channel(channel)
    if not found.members:
        raise Refused(404, f"channel {channel} has no members", field="channel")
    return {"name": found.name, "members": found.members, "online": found.online, "users": found.users}


@at("GET", "/api/channels/{channel}/history", errors=(404,))
async def history(service: NodeService, channel: str, query: wire.PageQuery) -> wire.History:
    """Read what a channel keeps: the newest messages, oldest first; the cursor leads to those before them."""
    if not service.settings.rule(check_channel(channel)).history:
        raise Refused(404, f"channel {channel} keeps no history", field="channel")
    found = await _history(service, channel, query)
    older, messages = found.messages[: -query.limit], found.messages[-query.limit :]
    cursor = write_cursor("history", _place(messages[0])) if older else None
    items = cast(list[wire.StoredMessage], encode_history(messages))
    return {"items": items, "cursor": cursor, "epoch": found.epoch, "offset": found.offset}


async def _history(service: NodeService, channel: str, query: wire.PageQuery) -> Page:
    """Read one message more than a page has, to know whether there are any before it."""
    if query.cursor is None:
        return await service.history(channel, limit=query.limit + 1)
    end, epoch = read_cursor(query.cursor, "history", int)
    behind = Position(epoch, max(0, int(end) - query.limit - 2))
    found = await service.history(channel, since=behind, limit=query.limit + 1)
    before = [message for message in found.messages if found.epoch == epoch and _place(message)[0] < int(end)]
    return found._replace(messages=before)


def _place(message: Envelope) -> tuple[int, str]:
    assert message.position is not None, "what is kept has a position"
    return message.position.offset, message.position.epoch


# ---- connections


@at("GET", "/api/connections")
async def connections(service: NodeService, query: wire.ConnectionsQuery) -> wire.Connections:
    """List connections of the whole cluster."""
    found = await service.directory.find_connections(**query.model_dump(exclude_none=True))
    items = [_connection(info) for info in found.items]
    return _complete(wire.Connections(items=items, cursor=found.cursor), found.silent)


@at("GET", "/api/connections/{id}", errors=(404,))
async def connection(service: NodeService, id: str) -> wire.Connection:
    """Describe a connection."""
    return _connection((await service.directory.connection(id)).connection)


@at("DELETE", "/api/connections/{id}", status=204, errors=(404,))
async def disconnect(service: NodeService, id: str, query: wire.EndQuery) -> None:
    """Close a connection."""
    await service.disconnect(id, code=query.code, reason=query.reason)


@at("PUT", "/api/connections/{id}/channels/{channel}", errors=(404, 409))
async def join(service: NodeService, id: str, channel: str) -> wire.Joined:
    """Put a connection in a channel; harmless when it is there already."""
    return {"created": await service.join(id, channel)}


@at("DELETE", "/api/connections/{id}/channels/{channel}", errors=(404,))
async def leave(service: NodeService, id: str, channel: str) -> wire.Left:
    """Take a connection out of a channel; harmless when it is not there."""
    return {"emptied": await service.leave(id, channel)}


def _connection(info: ConnectionInfo) -> wire.Connection:
    return {
        "id": info.id,
        "node": info.node,
        "user": info.user,
        "name": info.name,
        "channels": list(info.channels),
        "started": info.started,
        "remote": info.remote,
    }


def _complete(answer: L, silent: list[str]) -> L:
    """Name the nodes that did not answer, if any."""
    if silent:
        answer["silent"] = silent
    return answer
