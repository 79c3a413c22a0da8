"""One Redis master as a node uses it: a link to publish, a link that subscribes, and a heartbeat over both."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection

from gateway.backplane.contract import Arrival, Page
from gateway.backplane.counters import BackplaneCounters
from gateway.backplane.echo import Echo
from gateway.backplane.history_sizes import HistorySizes
from gateway.backplane.inbox import Inbox
from gateway.backplane.publishing import Publishing, Room
from gateway.backplane.streams import Streams
from gateway.backplane.subscriptions import Subscriptions
from gateway.config import Rule, Settings
from gateway.protocol.envelope import BEAT, Envelope
from gateway.protocol.message import Position
from gateway.redis.dialer import Dials
from gateway.redis.keys import Verbs
from gateway.redis.link import Link, RedisRefused
from gateway.redis.reconnect import SILENT, stay_connected
from gateway.redis.records import Rejections
from gateway.redis.signing import Signing
from gateway.redis.trouble import Troubles

AWAY = 0.5
"""Without a link to publish over for more seconds than this, it was Redis that was away; for less, see `_was_away`."""
HEAD_START = 1.0
"""Seconds that all nodes are given to subscribe again before what waited is published, after Redis was away, or at a
master that came while we ran: else it would reach only those that were faster. All dial again within about a second."""


class Shared:
    """What all shards of a backplane share: one inbox, one bound on what waits, one set of counters."""

    def __init__(self, settings: Settings, troubles: Troubles, rejections: Rejections) -> None:
        self.rejections = rejections
        self.signing = Signing(settings.cluster_secret)
        self.timeout = settings.publish_timeout
        self.counters = BackplaneCounters()
        self.troubles = troubles
        self.sizes = HistorySizes(settings.history_total_bytes, self.counters)
        self.inbox = Inbox(self.signing, rejections)
        self.room = Room(messages=settings.publish_queue, size=settings.publish_queue_bytes)


class OverRedis(ABC):
    """What the backplanes over one Redis and over a cluster have in common: histories, arrivals, and figures."""

    _shared: Shared
    _streams: Streams

    @property
    @abstractmethod
    def _echoes(self) -> Collection[Echo]:
        """The echo of each master."""

    async def append(self, channel: str, envelope: Envelope, rule: Rule, *, known: str = "") -> Position:
        return await self._streams.append(channel, envelope, rule, known=known)

    async def read(
        self, channel: str, *, after: Position | None = None, limit: int, seen: int = 0, size: int = 0
    ) -> Page:
        return await self._streams.read(channel, after=after, limit=limit, seen=seen, size=size)

    async def renew(self, channel: str, epoch: str, behind: int) -> None:
        await self._streams.renew(channel, epoch, behind)

    def batches(self) -> AsyncIterator[list[Arrival]]:
        return self._shared.inbox.batches()

    @property
    def troubles(self) -> Troubles:
        return self._shared.troubles

    @property
    def trouble(self) -> list[str]:
        return self._shared.troubles.now

    @property
    def deaf(self) -> bool:
        return any(echo.deaf for echo in self._echoes)

    @property
    def counters(self) -> BackplaneCounters:
        counters, room = self._shared.counters, self._shared.room
        counters.refusals = self._shared.troubles.counts
        counters.waiting, counters.waiting_bytes = room.waiting, room.waiting_bytes
        counters.lag = max((echo.lag for echo in self._echoes), default=0.0)
        return counters


class Shard:
    """The only master, or one of a cluster: its queue of publications, its subscriptions and its echo.

    There are two links, since Redis takes few commands over one that subscribes; either may be lost alone. `is_late` is
    for a master that came while the node ran. `redirected` and `regroup` are for a cluster: see `Subscriptions` and
    `Publishing`.
    """

    def __init__(
        self,
        shared: Shared,
        *,
        verbs: Verbs,
        name: str = "",
        is_late: bool = False,
        redirected: Callable[[RedisRefused | None], None] | None = None,
        regroup: Callable[[Publishing], None] | None = None,
    ) -> None:
        at = f" at {name}" if name else ""
        self._names = f"publishing{at}", f"subscription{at}"
        self._shared = shared
        self._links = 0
        self._left = asyncio.get_running_loop().time() - AWAY if is_late else 0.0
        """Loop time at which the last link to publish over was lost, or went silent for good; 0 without one."""
        self.publishing = Publishing(
            shared.room,
            timeout=shared.timeout,
            verb=verbs.publish,
            redirected=redirected,
            regroup=regroup,
        )
        self.echo = Echo(self.publishing, verbs.publish, self._names[0], shared.counters, shared.rejections)
        self.subscriptions = Subscriptions(
            shared.inbox,
            shared.troubles,
            shared.counters,
            what=f"subscription{at} (topics)",
            verbs=verbs,
            beat=self.echo.heard,
            redirected=redirected,
        )

    async def run(self, dialer: Dials) -> None:
        """Be connected until cancelled."""
        publishing, subscription = self._names
        subscriptions, troubles = self.subscriptions, self._shared.troubles
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stay_connected(dialer, self._publish_over, publishing, troubles))
            tasks.create_task(
                stay_connected(
                    dialer,
                    self._hear_over,
                    subscription,
                    troubles,
                    received=subscriptions.received,
                    ping=subscriptions.ping,
                )
            )
            tasks.create_task(self.echo.run(subscriptions))

    def beat_at(self, topic: bytes) -> asyncio.Future[None] | None:
        """Choose the topic of the beats; return what to wait for until it is subscribed, None when it is.

        Shield it, or use `asyncio.wait`: others may wait for the same.
        """
        if self.echo.topic and self.echo.topic != topic:
            self.subscriptions.unsubscribe(self.echo.topic)
        self.echo.topic = topic
        return self.subscriptions.want(topic, BEAT)

    async def _publish_over(self, link: Link) -> None:
        self._count()
        if self._was_away(link):
            await asyncio.wait((link.lost,), timeout=HEAD_START)
        try:
            await self.publishing.use(link)
        finally:
            now = asyncio.get_running_loop().time()
            # A link that broke after a long silence was of no use since it was heard last: that is when Redis went.
            self._left = link.heard if now - link.heard > SILENT else now

    def _was_away(self, link: Link) -> bool:
        """Tell whether it was Redis that was away, so that other nodes lost their links as well.

        A link that is back within `AWAY` may have been the only one to break, and then nobody should wait. But if the
        link that subscribes is away too, or was made since, both broke, which says that Redis did.
        """
        if not self._left:
            return False
        hearing = self.subscriptions.link
        return link.begun - self._left > AWAY or hearing is None or hearing.begun > self._left

    async def _hear_over(self, link: Link) -> None:
        self._count()
        await self.subscriptions.use(link)

    def _count(self) -> None:
        self._links += 1
        self._shared.counters.reconnects += self._links > 2  # the first two are no losses
