"""Shows a page the traffic of the cluster, as much of it as a person can look at, and counts the rest."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from gateway.errors import ConnectionNotFound, InvalidEnvelope, Unavailable
from gateway.node.service import NodeService
from gateway.operations.taps import Filter, Sight, Tap

PERIOD = 0.25
"""Seconds between two writes to the page."""
MOST_SHOWN = 50
"""Messages in one write: 200 a second."""
MOST_BYTES = 8 * 1024
"""Bytes of one message that are shown."""


FIELDS = ("channel", "user", "connection", "cmd", "direction")


class Shows(Protocol):
    """A page that is sent what there is to see."""

    def send(self, cmd: str, param: object) -> None: ...

    @property
    def is_behind(self) -> bool:
        """Whether the page does not read as fast as it is written to."""


async def show_traffic(service: NodeService, page: Shows, param: dict[str, Any]) -> None:
    """Send what fits the filter until cancelled: a part of it when there is much, and how much is not shown."""
    wanted = Filter(**{name: str(param.get(name) or "")[:300] for name in FIELDS})
    if wanted.connection:
        wanted = wanted._replace(also=await _targets(service, wanted.connection))
    async with service.operations.observers.observing(wanted) as tap:
        page.send("tapping", {})
        while True:
            first = await tap.waiting.get()
            await asyncio.sleep(PERIOD)
            sights, missed = _take(first, tap, room=0 if page.is_behind else MOST_SHOWN)
            page.send("traffic", {"messages": [_shown(sight) for sight in sights], "missed": missed})


async def _targets(service: NodeService, connection: str) -> str:
    """Say what a connection gets beside what is written to it alone: what its channels and its user get."""
    try:
        found = (await service.directory.connection(connection)).connection
    except (ConnectionNotFound, Unavailable):
        return ""
    return " ".join([f"user:{found.user}", *(f"channel:{name}" for name in found.channels)])


def _take(first: Sight, tap: Tap, *, room: int) -> tuple[list[Sight], int]:
    """Take all that waits; return every n-th of it, so that what is shown is spread evenly."""
    waiting = [first]
    while not tap.waiting.empty():
        waiting.append(tap.waiting.get_nowait())
    missed, tap.missed = tap.missed, 0
    step = max(1, -(-len(waiting) // room)) if room else 0
    shown = waiting[::step] if step else []
    return shown, missed + len(waiting) - len(shown)


def _shown(sight: Sight) -> dict[str, object]:
    told: dict[str, object] = {
        "at": sight.at,
        "node": sight.node,
        "direction": sight.direction,
        "kind": sight.kind,
        "name": sight.name,
        "connection": sight.connection,
        "user": sight.user,
        "size": len(sight.payload),
    }
    try:
        message = sight.message
    except InvalidEnvelope:
        return told | {"cmd": "", "cut": sight.payload[:MOST_BYTES].decode(errors="replace")}
    told |= {"cmd": message.cmd, "from": message.sender, "channel": message.channel}
    if len(sight.payload) > MOST_BYTES:
        return told | {"cut": sight.payload[:MOST_BYTES].decode(errors="replace")}
    return told | {"param": message.param}
