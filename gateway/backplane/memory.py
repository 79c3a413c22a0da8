"""The embedded backplane: one node, no server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from gateway.backplane.contract import Arrival, Page
from gateway.backplane.counters import BackplaneCounters
from gateway.backplane.history_sizes import Ledger
from gateway.backplane.streams_memory import MemoryStreams
from gateway.config import Rule
from gateway.protocol.envelope import Envelope, Target, pack
from gateway.protocol.message import Position
from gateway.redis.trouble import Troubles


class MemoryBackplane:
    """Hands this node's publications back to it, by the same rules as Redis would."""

    def __init__(self, *, history_total_bytes: int = 0) -> None:
        self._targets: set[Target] = set()
        self._arrived: list[Arrival] = []
        self._wake = asyncio.Event()
        self.counters = BackplaneCounters()
        self._streams = MemoryStreams(Ledger(history_total_bytes, self.counters))
        self.troubles = Troubles()
        self.trouble: list[str] = []
        self.deaf = False

    async def run(self) -> None:
        pass

    async def ready(self) -> None:
        pass

    async def publish(self, target: Target, data: bytes) -> int:
        return self.put(target, data)

    def put(self, target: Target, data: bytes) -> int:
        """Publish without waiting, which needs no server here."""
        if target not in self._targets:
            return 0
        self._arrived.append(Arrival(target, data))
        self._wake.set()
        return 1

    async def append(self, channel: str, envelope: Envelope, rule: Rule, *, known: str = "") -> Position:
        kept = self._streams.append(channel, envelope, rule)
        self.put(Target("channel", channel), pack(kept))
        assert kept.position is not None
        return kept.position

    async def read(
        self, channel: str, *, after: Position | None = None, limit: int, seen: int = 0, size: int = 0
    ) -> Page:
        return self._streams.read(channel, after, limit, seen, size)

    async def renew(self, channel: str, epoch: str, behind: int) -> None:
        self._streams.renew(channel, epoch, behind)

    async def subscribe(self, targets: Iterable[Target]) -> None:
        self._targets.update(targets)

    def unsubscribe(self, targets: Iterable[Target]) -> None:
        self._targets.difference_update(targets)

    async def batches(self) -> AsyncIterator[list[Arrival]]:
        while await self._wake.wait():
            self._wake.clear()
            batch, self._arrived = self._arrived, []
            yield batch
