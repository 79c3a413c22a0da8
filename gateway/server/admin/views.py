"""What the pages show, as plain JSON: the same for a page's first picture and for every later one.

A view is a function of the service and of the page's query; what is wrong with the query is a `GatewayError`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from gateway.backplane import ALL, DIRECT, Page, Target
from gateway.connections.connection import ConnectionInfo
from gateway.errors import ConnectionNotFound, InvalidChannel, InvalidParam, InvalidUser
from gateway.node.service import NodeService
from gateway.operations.operators import Series
from gateway.operations.search.connections import SORTS
from gateway.operations.search.names import NAME_SORTS
from gateway.operations.silent_nodes import LOST, UNREGISTERED
from gateway.operations.vitals import PERIOD
from gateway.presence import NodeInfo
from gateway.presence.contract import SILENT
from gateway.protocol.codec import read
from gateway.protocol.message import check_channel, check_user, node_of
from gateway.redis.keys import keys_of

T = TypeVar("T")
Query = Mapping[str, str]
View = Callable[[NodeService, Query], Awaitable[dict[str, Any]]]

RATES = ("received", "published", "delivered")
ROWS = 50
EVENTS = 40
HISTORY = 50
REFUSALS = 20
REMEMBERED = 3600_000
"""Milliseconds for which a node that was lost is still shown."""


async def overview(service: NodeService, query: Query) -> dict[str, Any]:
    """Everything at a glance: totals, every node, charts, and what happened last."""
    status = await service.status()
    events = await service.operations.read("events", limit=EVENTS)
    series = await service.operations.series(since=_integer(query, "mark"))
    nodes = [_node(node, series.silent) for node in status.nodes]
    nodes += await _unregistered(service, status.nodes)
    return {
        "totals": {
            "nodes": sum(node["state"] not in (LOST, UNREGISTERED) for node in nodes),
            "connections": status.connections,
            "channels": status.channels,
            "users": status.users,
            **{
                name: round(sum(node.get(name, 0) for node in nodes), 1)
                for name in ("received", "published", "delivered")
            },
        },
        "nodes": sorted(nodes, key=lambda node: str(node["id"])) + _lost(events, {node["id"] for node in nodes}),
        "events": events,
        **_charts(series.samples, query),
    }


async def nodes(service: NodeService, query: Query) -> dict[str, Any]:
    """The nodes alone, for a page that offers to filter by one."""
    return {"nodes": [_node(node) for node in (await service.status()).nodes]}


async def node(service: NodeService, query: Query) -> dict[str, Any]:
    """One node: its figures, its charts, what happened to it."""
    id = query.get("name", "")
    registered = (await service.status()).nodes
    found = next((node for node in registered if node.id == id), None)
    events = [event for event in await service.operations.read("events", limit=500) if event["node"] == id]
    lost = [gone for gone in await _unregistered(service, registered) if gone["id"] == id] if found is None else []
    lost += [gone for gone in _lost(events, set()) if gone["id"] == id] if found is None else []
    if found is None and not lost:
        return {"missing": f"no node {id!r}", "events": events[:EVENTS]}
    series = await service.operations.series(node=id, since=_integer(query, "mark")) if found else Series([], [])
    return {
        "node": _node(found, series.silent) if found else lost[0],
        "here": id == service.node_id,
        "events": events[:EVENTS],
        **_charts(series.samples, query),
    }


async def connections(service: NodeService, query: Query) -> dict[str, Any]:
    """One page of the connections that fit the search."""
    names = ("text", "id", "user", "name", "remote", "channel", "node")
    wanted: dict[str, Any] = {name: query[name] for name in names if query.get(name)}
    found = await service.directory.find_connections(
        **wanted,
        sort=_choice(query, SORTS, "started"),
        descending=query.get("order", "" if query.get("sort") else "down") == "down",
        cursor=query.get("cursor") or None,
        limit=ROWS,
    )
    rows = [_connection(row) for row in found.items]
    return {"items": rows, "cursor": found.cursor, "total": found.total, "silent": found.silent}


async def connection(service: NodeService, query: Query) -> dict[str, Any]:
    """One connection, with what its node counts."""
    try:
        found = await service.directory.connection(query.get("name", ""))
    except ConnectionNotFound as error:
        return {"missing": error.message}
    return {
        "connection": _connection(found.connection),
        "agent": found.agent,
        "protocol": found.protocol,
        "received": found.received,
        "is_behind": found.is_behind,
        "expires": found.expires,
        "now": time.time_ns() // 1_000_000,
    }


async def channels(service: NodeService, query: Query) -> dict[str, Any]:
    """One page of the channels that begin so."""
    sort, cursor = _choice(query, NAME_SORTS, "size"), query.get("cursor") or None
    found = await service.directory.find_channels(query.get("prefix", ""), sort=sort, cursor=cursor, limit=ROWS)
    rows = [row._asdict() | {"history": service.settings.rule(row.name).history} for row in found.items]
    rates = await service.operations.rates([row.name for row in found.items])
    return {"items": rows, "cursor": found.cursor, "total": found.total, "silent": found.silent, "rates": rates}


async def channel(service: NodeService, query: Query) -> dict[str, Any]:
    """One channel: who is in it and where, and what it keeps."""
    name = query.get("name", "")
    try:
        found = await service.directory.channel(name)
    except InvalidChannel as error:
        return {"missing": error.message}
    rule = service.settings.rule(name)
    page = await service.history(name, limit=HISTORY) if rule.history else None
    return {
        "channel": found._asdict(),
        "rule": rule.model_dump(),
        "history": _history(page),
        "rates": await service.operations.rates([name]),
    }


async def users(service: NodeService, query: Query) -> dict[str, Any]:
    """One page of the identified users whose id begins so."""
    sort, cursor = _choice(query, NAME_SORTS, "name"), query.get("cursor") or None
    found = await service.directory.find_users(query.get("prefix", ""), sort=sort, cursor=cursor, limit=ROWS)
    rows = [row._asdict() for row in found.items]
    return {"items": rows, "cursor": found.cursor, "total": found.total, "silent": found.silent}


async def user(service: NodeService, query: Query) -> dict[str, Any]:
    """One user's connections, on whatever node."""
    id = query.get("name", "")
    try:
        check_user(id)
    except InvalidUser as error:
        return {"missing": error.message}
    cursor = query.get("cursor") or None
    found = await service.directory.find_connections(user=id, sort="started", cursor=cursor, limit=ROWS)
    rows = [_connection(row) for row in found.items]
    return {"user": id, "items": rows, "cursor": found.cursor, "total": found.total, "silent": found.silent}


async def audit(service: NodeService, query: Query) -> dict[str, Any]:
    """What operators did, newest first; and who was not let in of late."""
    refusals = await service.operations.read("refusals", limit=REFUSALS)
    entries = await service.operations.read("audit", limit=ROWS + 1, before=query.get("cursor", ""))
    more = len(entries) > ROWS
    return {"items": entries[:ROWS], "cursor": entries[ROWS - 1]["id"] if more else None, "refusals": refusals}


async def receivers(service: NodeService, query: Query) -> dict[str, Any]:
    """How many connections a message would reach, and through which nodes."""
    kind, name = query.get("kind", ""), query.get("name", "")
    match kind:
        case "channel":
            found = await service.directory.channel(check_channel(name))
            return {"count": found.members, "nodes": found.nodes, "history": service.settings.rule(name).history}
        case "user":
            page = await service.directory.find_connections(user=check_user(name), limit=1000)
            return {"count": page.total, "nodes": _by_node(page.items)}
        case "connection":
            try:
                held = (await service.directory.connection(name)).connection
            except ConnectionNotFound:
                return {"count": 0, "nodes": {}}
            return {"count": 1, "nodes": {held.node: 1}}
        case "all":
            everyone = {node.id: node.connections for node in (await service.status()).nodes}
            return {"count": sum(everyone.values()), "nodes": everyone}
    raise InvalidParam(f"expected channel, user, connection or all, got {kind!r}", field="kind")


async def broadcast(service: NodeService, query: Query) -> dict[str, Any]:
    """How the same is written by hand: a command, and topics, each in two parts where a name stands between them."""
    keys = keys_of(service.settings)
    targets = {"channel": Target("channel", "*"), "user": Target("user", "*"), "connection": DIRECT, "all": ALL}
    # Neither a name nor a prefix may have a star in it.
    topics = {kind: keys.topic(target).decode().split("*") for kind, target in targets.items()}
    return {"publish": f"redis-cli{' -c' if keys.cluster else ''} {keys.verbs.publish.decode()}", "topics": topics}


async def nothing(service: NodeService, query: Query) -> dict[str, Any]:
    """For pages that show only what they are told later."""
    return {}


VIEWS: dict[str, View] = {
    "overview": overview,
    "nodes": nodes,
    "node": node,
    "connections": connections,
    "connection": connection,
    "channels": channels,
    "channel": channel,
    "users": users,
    "user": user,
    "audit": audit,
    "receivers": receivers,
    "tap": nothing,
    "broadcast": broadcast,
}


async def picture_of(view: str, service: NodeService, query: Query) -> dict[str, Any]:
    """Look at a view; with it goes, on every page, what is wrong with the node that shows it, and with its Redis."""
    return {**await VIEWS[view](service, query), "notes": [*service.readiness.reasons, *service.operations.notices]}


# ---- parts


async def _unregistered(service: NodeService, registered: list[NodeInfo]) -> list[dict[str, Any]]:
    """Return the nodes without a lease; this one included, which is there, since it shows the page."""
    missing = {*await service.operations.node_ids(), service.node_id} - {node.id for node in registered}
    found = await service.operations.conditions(missing)
    return [{"id": id, "state": state, "trouble": why} for id, (state, why) in found.items()]


def _node(node: NodeInfo, silent: Sequence[str] = ()) -> dict[str, Any]:
    """Tell of a node what it last said; of one that does not answer now its own word on its state counts no more."""
    state = "silent" if node.id in silent else node.vital.state
    state = "lost" if node.silent > SILENT else state
    known = {"id": node.id, "host": node.host, "version": node.version, "started": node.started}
    return {**node.vital._asdict(), **known, "connections": node.connections, "state": state, "silent": node.silent}


def _lost(events: list[dict[str, Any]], alive: set[str]) -> list[dict[str, Any]]:
    """Return the nodes that were lost lately and have not come back."""
    oldest = time.time_ns() // 1_000_000 - REMEMBERED
    newest: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.get("kind") in ("up", "down", "lost"):
            newest.setdefault(event["node"], event)
    gone = (event for node, event in newest.items() if node not in alive and event["kind"] == "lost")
    return [
        {"id": event["node"], "state": "lost", "lost": event["at"], "trouble": [event.get("text", "")]}
        for event in gone
        if event["at"] > oldest
    ]


def _charts(series: list[dict[str, float]], query: Query) -> dict[str, Any]:
    mark = max((round(sample["at"] / PERIOD) for sample in series), default=_integer(query, "mark"))
    return {"series": series, "mark": mark}


def _connection(row: ConnectionInfo) -> dict[str, Any]:
    return {
        **row._asdict(),
        "channels": list(row.channels),
        "anonymous": bool(node_of(row.user)) and row.user == row.id,
    }


def _history(page: Page | None) -> dict[str, Any] | None:
    if page is None:
        return None
    messages = []
    for envelope in reversed(page.messages):
        message, at = read(envelope.payload), envelope.position
        told = {"cmd": message.cmd, "param": message.param, "from": message.sender}
        messages.append({**told, "offset": at.offset if at else None, "at": at.time if at else None})
    return {"epoch": page.epoch, "offset": page.offset, "messages": messages}


def _by_node(rows: list[ConnectionInfo]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.node] = counts.get(row.node, 0) + 1
    return counts


def _choice(query: Query, choices: tuple[T, ...], default: T) -> T:
    wanted = query.get("sort") or default
    for choice in choices:
        if choice == wanted:
            return choice
    raise InvalidParam(f"expected sort to be one of {', '.join(map(str, choices))}", field="sort")


def _integer(query: Query, name: str) -> int:
    try:
        return int(query.get(name, 0))
    except ValueError:
        return 0
