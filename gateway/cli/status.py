"""`gateway status`."""

from __future__ import annotations

import argparse
import asyncio
import time

from gateway.cli.options import REDIS_SETTINGS, Commands, add_command
from gateway.cli.terminal import line_of, table_of
from gateway.config import Settings
from gateway.presence import NodeInfo
from gateway.presence.protocol import Counts
from gateway.visitor import Visitor, own_settings


def add(commands: Commands) -> None:
    """Offer the command."""
    command = add_command(commands, "status", run, settings=REDIS_SETTINGS, summary="describe the cluster")
    command.add_argument("--json", action="store_true", help="as one JSON object")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Say which nodes there are, how they are, and how many connections, channels and users they have."""
    counts, nodes = asyncio.run(_look(settings))
    print(line_of(as_json(counts, nodes)) if arguments.json else as_text(counts, nodes))
    return 0


async def _look(settings: Settings) -> tuple[Counts, list[NodeInfo]]:
    own = own_settings(settings)
    async with Visitor(own).running() as visitor:
        return await visitor.onlooker.count(), await visitor.onlooker.nodes()


def as_json(counts: Counts, nodes: list[NodeInfo]) -> dict[str, object]:
    """Describe the cluster for programs; `started` is in ms since the epoch."""
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
    return {"nodes": listed, **totals}


def as_text(counts: Counts, nodes: list[NodeInfo]) -> str:
    """Describe the cluster for people."""
    many = (
        f"{number:,} {word if number != 1 else word.removesuffix('s')}"
        for number, word in zip((len(nodes), counts.connections, counts.channels, counts.users), _WORDS, strict=True)
    )
    return "\n".join([", ".join(many), *([table_of(_HEAD, [_row(node) for node in nodes])] if nodes else [])])


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
