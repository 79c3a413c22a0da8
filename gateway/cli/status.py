"""`gateway status`: describes the cluster, and says by its exit code whether it is well."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import NamedTuple

from gateway.application.guest import Guest, own_settings
from gateway.cli.options import REDIS_SETTINGS, Commands, add_command
from gateway.cli.terminal import line_of, table_of, text_of
from gateway.config import Settings
from gateway.operations.silent_nodes import Condition, conditions_of
from gateway.presence import NodeInfo
from gateway.presence.contract import SILENT, Counts


def add(commands: Commands) -> None:
    """Offer the command."""
    command = add_command(commands, "status", run, settings=REDIS_SETTINGS, summary="describe the cluster")
    command.add_argument("--json", action="store_true", help="as one JSON object")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Say which nodes there are, how they are, and how many connections, channels and users they have.

    Exits 0 only if there is a node and all nodes are well, 1 otherwise.
    """
    picture = asyncio.run(_look(settings))
    print(line_of(as_json(picture)) if arguments.json else as_text(picture))
    return 1 if picture.trouble else 0


async def _look(settings: Settings) -> Picture:
    own = own_settings(settings)
    async with Guest(own).running() as guest:
        return await look(guest)


class Picture(NamedTuple):
    """The cluster as it was a moment ago."""

    counts: Counts
    nodes: list[NodeInfo]
    others: dict[str, Condition]
    """Nodes without a lease, and how they are."""

    @property
    def trouble(self) -> list[str]:
        """What is not well, one line each. No node at all is no good news, either."""
        if not self.nodes and not self.others:
            return ["no node is registered: none is running, or Redis takes no writes"]
        others = (f"{id} is {state}: {'; '.join(why)}" for id, (state, why) in self.others.items())
        return [*filter(None, map(_trouble, self.nodes)), *others]


async def look(guest: Guest) -> Picture:
    """Read what the nodes have written, and ask those that could not. Raises `Unavailable`."""
    presence = guest.presence
    counts, nodes, ids = await presence.count(), await presence.nodes(), await presence.node_ids()
    others = await conditions_of(guest.questions, set(ids) - {node.id for node in nodes})
    return Picture(counts, nodes, others)


def _trouble(node: NodeInfo) -> str:
    if node.silent > SILENT:
        return f"{node.id} has not reported for {node.silent:.0f} s"
    if node.vital.state == "ok":
        return ""
    return f"{node.id} is {node.vital.state}: {'; '.join(node.vital.trouble)}"


def as_json(picture: Picture) -> dict[str, object]:
    """Describe the cluster for programs; `started` is in ms since the epoch."""
    counts, nodes = picture.counts, picture.nodes
    listed = [
        {
            **{name: getattr(node, name) for name in ("id", "host", "version", "started", "connections", "channels")},
            "ready": node.vital.serves,
            "state": node.vital.state,
            "trouble": list(node.vital.trouble),
        }
        for node in nodes
    ]
    totals = {"connections": counts.connections, "channels": counts.channels, "users": counts.users}
    others = [{"id": id, "state": state, "trouble": why} for id, (state, why) in picture.others.items()]
    return {"well": not picture.trouble, "trouble": picture.trouble, "nodes": listed, "unregistered": others, **totals}


def as_text(picture: Picture) -> str:
    """Describe the cluster for people."""
    counts, nodes = picture.counts, picture.nodes
    many = (
        f"{number:,} {word if number != 1 else word.removesuffix('s')}"
        for number, word in zip((len(nodes), counts.connections, counts.channels, counts.users), _WORDS, strict=True)
    )
    table = [table_of(_HEAD, [_row(node) for node in nodes])] if nodes else []
    return "\n".join([", ".join(many), *table, *(f"TROUBLE: {text_of(line)}" for line in picture.trouble)])


_WORDS = ("nodes", "connections", "channels", "users")
_HEAD = ("NODE", "HOST", "VERSION", "UP", "STATE", "CONNECTIONS", "CHANNELS", "IN/S", "OUT/S", "CPU %", "TROUBLE")


def _row(node: NodeInfo) -> tuple[object, ...]:
    vital = node.vital
    rates = (round(vital.received), round(vital.delivered), round(vital.cpu))
    trouble = "; ".join(vital.trouble)
    up = _age(time.time() - node.started / 1000)
    return (node.id, node.host, node.version, up, vital.state, node.connections, node.channels, *rates, trouble)


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
