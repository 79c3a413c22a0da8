"""Channels with too many users to announce each: they are told how many there are, once a second at most."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.backplane import Backplane, Target
from gateway.errors import Unavailable
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope, pack

PERIOD = 1.0
TOO_SOON = -1
"""Instead of a count: it was told less than a second ago, before it changed. Even less: it was told since."""


class Counting:
    """Publishes `online-count` for the channels whose count has changed."""

    def __init__(self, size: Callable[[str, float], Awaitable[int]], backplane: Backplane) -> None:
        self._size = size
        """Counts the online users of a channel that changed so many seconds ago, if that is to be told now."""
        self._backplane = backplane
        self._changed: dict[str, float] = {}
        """Channels, and when they last changed."""
        self._wake = asyncio.Event()

    def add(self, channel: str) -> None:
        """Note that the count of a channel has changed."""
        self._changed[channel] = asyncio.get_running_loop().time()
        self._wake.set()

    async def run(self) -> None:
        while await self._wake.wait():
            self._wake.clear()
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
