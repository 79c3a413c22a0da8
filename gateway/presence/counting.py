"""Channels above `presence_max`: instead of each user, the number of users is announced, once a second at most."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.backplane import Backplane, Target
from gateway.errors import Unavailable
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope, pack

PERIOD = 1.0
"""Seconds between two rounds. That only one node tells in each second is decided in Redis (`count.lua`)."""
TOO_SOON = -1
"""Returned instead of a count that was published less than a second ago, before this change: ask again. Anything less
says that it was published since the change, by whichever node."""


class Counting:
    """Publishes `online-count` for the channels whose number of users has changed."""

    def __init__(self, size: Callable[[str, float], Awaitable[int]], backplane: Backplane) -> None:
        self._size = size
        """Returns the number of users online in a channel that changed so many seconds ago, or see `TOO_SOON`."""
        self._backplane = backplane
        self._changed: dict[str, float] = {}
        """Channels whose count has to be published, and the loop times of their last changes."""
        self._wake = asyncio.Event()

    def add(self, channel: str) -> None:
        """Note that the number of users of a channel has changed. Costs no round trip, however often it is called."""
        self._changed[channel] = asyncio.get_running_loop().time()
        self._wake.set()

    async def run(self) -> None:
        """Publish what has changed, until cancelled; what Redis does not take is tried again in the next round."""
        while await self._wake.wait():
            self._wake.clear()
            # Taken before anything is published: a change that comes meanwhile is for the next round.
            changed, self._changed = self._changed, {}
            for channel, at in changed.items():
                await self._publish(channel, at)
            await asyncio.sleep(PERIOD)

    async def _publish(self, channel: str, at: float) -> None:
        try:
            size = await self._size(channel, asyncio.get_running_loop().time() - at)
            if size == TOO_SOON:
                self._changed.setdefault(channel, at)
                self._wake.set()
            if size < 0:
                return
            payload = codec.encode("online-count", {"count": size}, channel)
            await self._backplane.publish(Target("channel", channel), pack(Envelope(payload)))
        except Unavailable:
            self.add(channel)
