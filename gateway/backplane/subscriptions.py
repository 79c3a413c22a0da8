"""The incoming half of the Redis backplane: what this node wants to hear, and whether it does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import Any

from gateway.backplane.link import Link
from gateway.backplane.target import GAP, Arrival, Target
from gateway.errors import Unavailable

logger = logging.getLogger(__name__)

LINGER = 1.0
"""How long an emptied topic stays subscribed, so that a member who comes right back costs nothing."""
AT_ONCE = 500
"""Topics in one SUBSCRIBE."""


class Subscriptions:
    """Keeps what Redis sends equal to what is wanted. One task writes, whoever asks waits for Redis' word."""

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._wanted: dict[bytes, Target] = {}
        self._missing: dict[bytes, None] = {}
        """Wanted, and not asked for over the present link."""
        self._asked: dict[bytes, int] = {}
        """SUBSCRIBEs under way: only the answer to the last one makes it sure."""
        self._sure: set[bytes] = set()
        self._lingering: dict[bytes, float] = {}
        self._waiters: dict[bytes, asyncio.Future[None]] = {}
        self._changed = asyncio.Event()
        self._arrived: list[Arrival] = []
        self._arrival = asyncio.Event()
        self._restoring: set[bytes] | None = None
        """After a loss: what has not been confirmed again. Once it is empty the gap is told."""
        self.heard = 0.0
        """Loop time at which anything last came through."""

    async def subscribe(self, topics: dict[bytes, Target]) -> None:
        waiters = [waiter for topic, target in topics.items() if (waiter := self._want(topic, target))]
        if not waiters:
            return
        self._changed.set()
        try:
            async with asyncio.timeout(self._timeout):
                for waiter in waiters:
                    await asyncio.shield(waiter)
        except TimeoutError:
            raise Unavailable("Redis did not confirm the subscription") from None

    def unsubscribe(self, topics: Iterable[bytes]) -> None:
        now = asyncio.get_running_loop().time()
        for topic in topics:
            if topic in self._wanted:
                self._lingering[topic] = now + LINGER
        self._changed.set()

    async def batches(self) -> AsyncIterator[list[Arrival]]:
        while await self._arrival.wait():
            self._arrival.clear()
            batch, self._arrived = self._arrived, []
            yield batch

    async def use(self, link: Link) -> None:
        """Subscribe to everything wanted over this link, and follow what is wanted until it is lost."""
        self._begin()
        link.lost.add_done_callback(lambda _: self._changed.set())
        while not link.lost.done():
            self._reconcile(link)
            await self._change()
        self._sure.clear()
        self._restoring = set(self._wanted)

    def received(self, replies: list[list[Any]]) -> None:
        """Take what came over the link."""
        for reply in replies:
            match reply:
                case [b"message", topic, data]:
                    if target := self._wanted.get(topic):
                        self._arrived.append(Arrival(target, data))
                case [b"subscribe", topic, _]:
                    self._confirm(topic)
        self.heard = asyncio.get_running_loop().time()
        if self._arrived:
            self._arrival.set()

    def _want(self, topic: bytes, target: Target) -> asyncio.Future[None] | None:
        self._lingering.pop(topic, None)
        if topic not in self._wanted:
            self._wanted[topic] = target
            self._missing[topic] = None
        if topic in self._sure:
            return None
        if topic not in self._waiters:
            self._waiters[topic] = asyncio.get_running_loop().create_future()
        return self._waiters[topic]

    def _begin(self) -> None:
        self._sure.clear()
        self._asked.clear()
        self._missing = dict.fromkeys(self._wanted)

    def _reconcile(self, link: Link) -> None:
        self._changed.clear()
        for topics in _chunks(self._emptied()):
            link.write(b"UNSUBSCRIBE", *topics)
        missing, self._missing = self._missing, {}
        for topics in _chunks(missing):
            for topic in topics:
                self._asked[topic] = self._asked.get(topic, 0) + 1
            link.write(b"SUBSCRIBE", *topics)

    def _emptied(self) -> list[bytes]:
        """Forget what has lingered long enough; return what Redis must be told of."""
        now = asyncio.get_running_loop().time()
        over = [topic for topic, end in self._lingering.items() if end <= now]
        for topic in over:
            del self._lingering[topic], self._wanted[topic]
            self._sure.discard(topic)
            self._settle(topic)
        told = [topic for topic in over if topic not in self._missing]
        for topic in over:
            self._missing.pop(topic, None)
        return told

    async def _change(self) -> None:
        try:
            async with asyncio.timeout(LINGER / 2 if self._lingering else None):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _confirm(self, topic: bytes) -> None:
        under_way = self._asked.get(topic, 1) - 1
        if under_way:
            self._asked[topic] = under_way
            return
        self._asked.pop(topic, None)
        if topic in self._wanted:
            self._sure.add(topic)
        self._settle(topic)

    def _settle(self, topic: bytes) -> None:
        if (waiter := self._waiters.pop(topic, None)) is not None and not waiter.done():
            waiter.set_result(None)
        if self._restoring is not None:
            self._restoring.discard(topic)
            if not self._restoring:
                self._tell_gap()

    def _tell_gap(self) -> None:
        self._restoring = None
        logger.warning("subscriptions are back after a loss: %s topics", len(self._wanted))
        self._arrived.append(Arrival(GAP, b""))
        self._arrival.set()


def _chunks(topics: Iterable[bytes]) -> Iterator[list[bytes]]:
    remaining = iter(topics)
    while chunk := list(islice(remaining, AT_ONCE)):
        yield chunk
