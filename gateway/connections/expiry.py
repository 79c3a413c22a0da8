"""Closes connections whose token has expired (4401): one timer for all, however many there are."""

from __future__ import annotations

import asyncio
import time
from heapq import heapify, heappop, heappush

from gateway.connections.connection import Connection
from gateway.connections.hub import Hub
from gateway.errors import EXPIRED

PERIOD = 1.0
"""Seconds between two looks: `exp` is in whole seconds."""
AT_ONCE = 500
"""Connections closed before others get a turn: many may end in the same second."""
SLACK = 64
"""Entries of connections that are gone, or have more time now, that a small node may keep."""


class Expiry:
    """Looks once a second, by the wall clock, whose `profile.expires` has come: a clock that is set does no harm."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._queue: list[tuple[float, str]] = []
        """When, and the id of a connection: which may have gone since, or have more time now."""

    def watch(self, connection: Connection) -> None:
        """Close a connection when its time comes. To be called again when it is given more."""
        if not connection.profile.expires:
            return
        heappush(self._queue, (connection.profile.expires, connection.id))
        if len(self._queue) > 2 * len(self._hub) + SLACK:
            self._forget_the_gone()

    async def run(self) -> None:
        while True:
            has_more = self.close_due(time.time())
            await asyncio.sleep(0 if has_more else PERIOD)

    def close_due(self, now: float) -> bool:
        """Close some whose time is over; tell whether there are more."""
        for _ in range(AT_ONCE):
            if not self._queue or self._queue[0][0] > now:
                return False
            # Entries are not taken out when a connection leaves or is given more time: its own profile says what holds.
            connection = self._hub.connections.get(heappop(self._queue)[1])
            if connection is not None and 0 < connection.profile.expires <= now:
                connection.socket.close(EXPIRED)
        return True

    def _forget_the_gone(self) -> None:
        self._queue = [(held.profile.expires, held.id) for held in self._hub if held.profile.expires]
        heapify(self._queue)
