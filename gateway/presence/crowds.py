"""Channels with too many users to announce each: they are told how many there are, once a second at most."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway import codec
from gateway.backplane import Backplane, Target
from gateway.errors import Unavailable

PERIOD = 1.0


class Crowds:
    """Publishes `online-count` for the channels whose count has changed."""

    def __init__(self, size: Callable[[str], Awaitable[int | None]], backplane: Backplane) -> None:
        self._size = size
        """Counts a channel's online users; None when it is another node's turn to say so."""
        self._backplane = backplane
        self._changed: set[str] = set()
        self._wake = asyncio.Event()

    def add(self, channel: str) -> None:
        """Note that the count of a channel has changed."""
        self._changed.add(channel)
        self._wake.set()

    async def run(self) -> None:
        while await self._wake.wait():
            self._wake.clear()
            changed, self._changed = self._changed, set()
            for channel in changed:
                await self._publish(channel)
            await asyncio.sleep(PERIOD)

    async def _publish(self, channel: str) -> None:
        try:
            size = await self._size(channel)
            if size is None:  # said already, perhaps before the change that was noted here
                self.add(channel)
                return
            payload = codec.encode("online-count", {"count": size}, channel)
            await self._backplane.publish(Target("channel", channel), codec.pack(codec.Envelope(payload)))
        except Unavailable:
            self.add(channel)
