"""Taps of this process, a node or not: every node is told, and told again, what they want to see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from gateway.backplane import NODES, TAP, Backplane
from gateway.errors import Unavailable
from gateway.operations.taps import RENEW, Filter, Tap, Taps


class Observers:
    """Announces what is to be seen here, at once when that changes, and renews it while somebody observes."""

    def __init__(self, backplane: Backplane, taps: Taps) -> None:
        self._backplane = backplane
        self._taps = taps
        self._changed = asyncio.Event()
        """Whether what they want to see has yet to be told."""

    @asynccontextmanager
    async def observing(self, wanted: Filter) -> AsyncIterator[Tap]:
        """Have a queue of what is seen anywhere in the cluster from now on, as far as it fits the filter.

        Raises `InvalidParam` for a filter that no node can be told.
        """
        # Subscribed before the wish is told: nodes copy as soon as they have heard it.
        await self._backplane.subscribe([TAP])
        try:
            with self._taps.observing(wanted) as tap:
                self._taps.wish()  # what it raises is for this observer: in `run` it would end the node
                self._changed.set()
                yield tap
        finally:
            self._changed.set()
            if not self._taps.here:  # others may have come since this one did
                self._backplane.unsubscribe([TAP])

    async def run(self) -> None:
        """Tell all nodes what is to be seen here, until cancelled."""
        while await self._changed.wait():
            self._changed.clear()  # before the wish is read: what changes while it is published is told next
            with suppress(Unavailable):
                await self._backplane.publish(NODES, self._taps.wish())
            if self._taps.here:
                await self._changed_or(RENEW)

    async def _changed_or(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.set()
