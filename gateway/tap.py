"""Observers that see the traffic of the whole cluster.

While anybody taps, every node hands a copy of what it publishes to the `tap` target, and of what a person
published that it delivers. A wish to tap is
announced to all nodes and renewed; a node whose wish is not renewed has stopped tapping, however it ended.
Nobody taps: one look at an empty dict per message.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from gateway.message import Message

RENEW = 3.0
EXPIRE = 10.0
REPORTED_WITHIN = 5.0
"""Seconds in which all nodes have reported the same injection."""
MOST_WAITING = 1000
"""Messages that wait for one observer; further ones are not shown to it, and counted."""


@dataclass(slots=True, eq=False)
class Tap:
    """One observer's queue. Filling it never waits: what does not fit is counted in `missed`."""

    channel: str | None
    waiting: asyncio.Queue[Message] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))
    missed: int = 0

    def show(self, message: Message) -> None:
        if self.channel is not None and message.channel != self.channel:
            return
        try:
            self.waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.missed += 1


class Taps:
    """Which observers are on this node, and which nodes have any."""

    def __init__(self) -> None:
        self.here: set[Tap] = set()
        self._nodes: dict[str, float] = {}
        self._injected: dict[bytes, tuple[Counter[str], float]] = {}

    def tapped(self) -> bool:
        """Tell whether copies are wanted anywhere."""
        return bool(self._nodes) and self._any_awake()

    def wanted_by(self, node: str) -> None:
        """Note that a node taps, until it stops renewing this."""
        self._nodes[node] = asyncio.get_running_loop().time() + EXPIRE

    def show(self, message: Message) -> None:
        for tap in self.here:
            tap.show(message)

    def show_injected(self, node: str, data: bytes, message: Message) -> None:
        """Show what a person published, which every node that has a receiver reports: once, all the same.

        The n-th report of the same bytes by one node is the same publication as the n-th by another.
        """
        now = asyncio.get_running_loop().time()
        for old in [old for old, (_, seen) in self._injected.items() if seen + REPORTED_WITHIN < now]:
            del self._injected[old]
        reports, _ = self._injected.get(data, (Counter[str](), 0.0))
        shown = max(reports.values(), default=0)
        reports[node] += 1
        self._injected[data] = reports, now
        if reports[node] > shown:
            self.show(message)

    async def observe(self, channel: str | None) -> AsyncIterator[Message]:
        """Yield the messages shown from now on."""
        tap = Tap(channel)
        self.here.add(tap)
        try:
            while True:
                yield await tap.waiting.get()
        finally:
            self.here.discard(tap)

    def _any_awake(self) -> bool:
        now = asyncio.get_running_loop().time()
        for node in [node for node, end in self._nodes.items() if end <= now]:
            del self._nodes[node]
        return bool(self._nodes)
