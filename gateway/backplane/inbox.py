"""What has arrived and was not read yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gateway.backplane.contract import Arrival
from gateway.errors import InvalidEnvelope
from gateway.protocol.envelope import Target, is_envelope
from gateway.redis.link import Link
from gateway.redis.records import Rejections
from gateway.redis.signing import Signing

BACKLOG = 16 << 20
"""Bytes unread at which links stop reading. Redis keeps what follows, and breaks the link when that is too much."""
OVERHEAD = 100


class Inbox:
    """Gathers arrivals of all links for the one reader."""

    def __init__(self, signing: Signing, rejections: Rejections, *, backlog: int = BACKLOG) -> None:
        self._signing = signing
        self._rejections = rejections
        self._backlog = backlog
        self._arrived: list[Arrival] = []
        self._size = 0
        self._wake = asyncio.Event()
        self._paused: list[Link] = []

    def put(self, arrival: Arrival) -> None:
        self._arrived.append(arrival)
        self._size += len(arrival.data) + OVERHEAD
        self._wake.set()

    def put_spoken(self, target: Target, topic: bytes, data: bytes) -> None:
        """Take what a node said; without the right signature, if one is asked for, it is dropped."""
        if is_envelope(data):
            self.put(Arrival(target, data))
            return
        try:
            self.put(Arrival(target, self._signing.open(topic, data)))
        except InvalidEnvelope as error:
            self._rejections.published(":".join(filter(None, target)), error, data)

    def pause_when_full(self, link: Link) -> None:
        """Stop a link that has just brought something, if too much is unread."""
        if self._size > self._backlog:
            link.pause()
            self._paused.append(link)

    async def batches(self) -> AsyncIterator[list[Arrival]]:
        while await self._wake.wait():
            self._wake.clear()
            batch, self._arrived, self._size = self._arrived, [], 0
            paused, self._paused = self._paused, []
            for link in paused:
                link.resume()
            yield batch
