"""The backplane over one Redis server, or the master that Sentinel names, by plain pub/sub."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from typing import Any

from gateway.backplane.echo import Echo
from gateway.backplane.shard import OverRedis, Shard, Shared
from gateway.backplane.streams import Streams
from gateway.backplane.subscriptions import granted
from gateway.config import Settings
from gateway.protocol.envelope import SPOKEN, Target, is_envelope
from gateway.redis.link import Link, LinkLost, RedisRefused
from gateway.redis.links import Links
from gateway.redis.records import Rejections
from gateway.redis.refusal import is_password_refused

RETRY = 0.25
"""Seconds, in the mean, between two attempts to reach a Redis while a node starts."""


class RedisBackplane(OverRedis):
    """Carries envelopes by PUBLISH and SUBSCRIBE: one command for each message, and one topic for each target.

    No pattern subscriptions: Redis would match each message with every one of them.
    """

    def __init__(self, settings: Settings, links: Links, rejections: Rejections) -> None:
        self._keys = links.keys
        self._dialer = links.dialer()
        self._shared = Shared(settings, links.troubles, rejections)
        self._shard = Shard(self._shared, verbs=self._keys.verbs)
        call, timeout = self._shard.publishing.call, self._shared.timeout
        self._streams = Streams(call, self._keys, self._shared.sizes, timeout=timeout, rejections=rejections)
        self._beat_topic = self._keys.beat(settings.node_id)

    async def run(self) -> None:
        self._shard.beat_at(self._beat_topic)
        await self._shard.run(self._dialer)

    async def ready(self) -> None:
        await reached(self._dialer.dial)
        if beat := self._shard.beat_at(self._beat_topic):
            await asyncio.shield(beat)  # others may wait for the same

    def publish(self, target: Target, data: bytes) -> Coroutine[Any, Any, int]:
        topic = self._keys.topic(target)
        if target.kind in SPOKEN and not is_envelope(data):
            data = self._shared.signing.sign(topic, data)
        return self._shard.publishing.publish(topic, data)

    async def subscribe(self, targets: Iterable[Target]) -> None:
        want = self._shard.subscriptions.want
        await granted([want(self._keys.topic(target), target) for target in targets], self._shared.timeout)

    def unsubscribe(self, targets: Iterable[Target]) -> None:
        for target in targets:
            self._shard.subscriptions.unsubscribe(self._keys.topic(target))

    @property
    def _echoes(self) -> Collection[Echo]:
        return (self._shard.echo,)


async def reached(dial: Callable[[], Awaitable[Link]]) -> None:
    """Wait until Redis can be reached, however long that takes. Raises `RedisRefused` when it refuses the password.

    Other refusals pass, or can be mended without starting anew: a server that is loading, or has too many clients.
    """
    while True:
        try:
            (await dial()).abort()
            return
        except RedisRefused as error:
            if is_password_refused(error):
                raise
        except (OSError, LinkLost):
            pass
        await asyncio.sleep(random.uniform(0, 2 * RETRY))
