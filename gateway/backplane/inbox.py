"""The queue between the links that bring messages and the one task that reads them, with back-pressure."""

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
"""Bytes unread at which links stop reading. Redis keeps what follows, and breaks the link when that is too much
(`client-output-buffer-limit pubsub`): a loss that is told as a gap."""
OVERHEAD = 100
"""Bytes counted for an arrival beside its payload, for the objects that hold it."""


class Inbox:
    """Gathers the arrivals of all links for one reader, in the order in which they came. It never drops any."""

    def __init__(self, signing: Signing, rejections: Rejections, *, backlog: int = BACKLOG) -> None:
        self._signing = signing
        self._rejections = rejections
        self._backlog = backlog
        self._arrived: list[Arrival] = []
        self._size = 0
        self._wake = asyncio.Event()
        self._paused: list[Link] = []

    def put(self, arrival: Arrival) -> None:
        """Add an arrival, even if too much is unread: see `pause_when_full`."""
        self._arrived.append(arrival)
        self._size += len(arrival.data) + OVERHEAD
        self._wake.set()

    def put_spoken(self, target: Target, topic: bytes, data: bytes) -> None:
        """Add what came on a topic where nodes talk to each other.

        Where nodes share a secret it is rejected without a right signature, unless it is an envelope: that is a message
        for clients, which anybody who may publish may send.
        """
        if is_envelope(data):
            self.put(Arrival(target, data))
            return
        try:
            self.put(Arrival(target, self._signing.open(topic, data)))
        except InvalidEnvelope as error:
            self._rejections.published(":".join(filter(None, target)), error, data)

    def pause_when_full(self, link: Link) -> None:
        """Stop the link that has just brought something, if too much is unread, until the reader takes it.

        Each call follows one read of its socket, so that the bound is exceeded by no more than that.
        """
        if self._size > self._backlog:
            link.pause()
            self._paused.append(link)

    async def batches(self) -> AsyncIterator[list[Arrival]]:
        """Yield all that has gathered, whenever something has; for one reader."""
        while await self._wake.wait():
            self._wake.clear()
            batch, self._arrived, self._size = self._arrived, [], 0
            paused, self._paused = self._paused, []
            # Before the reader works on the batch: the next one gathers meanwhile, up to the same bound.
            for link in paused:
                link.resume()
            yield batch
