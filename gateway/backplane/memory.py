"""The embedded backplane: one node, no server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from gateway.backplane.target import Arrival, Target


class MemoryBackplane:
    """Hands this node's publications back to it, by the same rules as Redis would."""

    def __init__(self) -> None:
        self._targets: set[Target] = set()
        self._arrived: list[Arrival] = []
        self._wake = asyncio.Event()

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

    async def subscribe(self, targets: Iterable[Target]) -> None:
        self._targets.update(targets)

    def unsubscribe(self, targets: Iterable[Target]) -> None:
        self._targets.difference_update(targets)

    async def batches(self) -> AsyncIterator[list[Arrival]]:
        while await self._wake.wait():
            self._wake.clear()
            batch, self._arrived = self._arrived, []
            yield batch
