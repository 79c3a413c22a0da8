"""The backplane of a cluster: Redis pub/sub over two links, one to publish and one to hear."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable

from gateway.backplane.keys import Keys
from gateway.backplane.link import Dialer, Link, stay_connected
from gateway.backplane.publishing import Publishing
from gateway.backplane.subscriptions import Subscriptions
from gateway.backplane.target import Arrival, Target
from gateway.config import Settings
from gateway.errors import Unavailable

logger = logging.getLogger(__name__)

BEAT = 1.0
"""How often a node publishes to itself (a dead TCP connection that stays open raises no error)."""
DEAF = 3.0
"""Silence, while beats are being published, after which the subscription is dialled again."""


class RedisBackplane:
    """Carries envelopes by PUBLISH and SUBSCRIBE; no pattern subscriptions, no reads per message."""

    def __init__(self, settings: Settings) -> None:
        self._keys = Keys(settings.prefix)
        self._dialer = Dialer(settings.redis_url, f"{settings.prefix}-{settings.node_id}")
        self._beat_topic = self._keys.topic(Target("beat", settings.node_id))
        self._beat_target = Target("beat", settings.node_id)
        self._publishing = Publishing(
            timeout=settings.publish_timeout,
            messages=settings.publish_queue,
            size=settings.publish_queue_bytes,
        )
        self._subscriptions = Subscriptions(timeout=settings.publish_timeout)
        self._listening: Link | None = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stay_connected(self._dialer.dial, self._publishing.use, "publishing"))
            tasks.create_task(stay_connected(self._listen, self._subscriptions.use, "subscription"))
            tasks.create_task(self._beat())

    async def ready(self) -> None:
        (await self._dialer.dial()).abort()
        await self._subscriptions.subscribe({self._beat_topic: self._beat_target})

    async def publish(self, target: Target, data: bytes) -> int:
        return await self._publishing.publish(self._keys.topic(target), data)

    async def subscribe(self, targets: Iterable[Target]) -> None:
        await self._subscriptions.subscribe({self._keys.topic(target): target for target in targets})

    def unsubscribe(self, targets: Iterable[Target]) -> None:
        self._subscriptions.unsubscribe(self._keys.topic(target) for target in targets)

    def batches(self) -> AsyncIterator[list[Arrival]]:
        return self._subscriptions.batches()

    async def _listen(self) -> Link:
        self._listening = await self._dialer.dial(self._subscriptions.received)
        self._subscriptions.heard = asyncio.get_running_loop().time()
        return self._listening

    async def _beat(self) -> None:
        """Publish to oneself; where that works and nothing is heard, the subscription is deaf."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(BEAT)
            try:
                await self._publishing.publish(self._beat_topic, b"")
            except Unavailable:
                continue
            silence = loop.time() - self._subscriptions.heard
            if silence > DEAF and self._listening is not None and not self._listening.lost.done():
                logger.warning("deaf for %.1f s while Redis answers: dialling the subscription again", silence)
                self._listening.abort()
