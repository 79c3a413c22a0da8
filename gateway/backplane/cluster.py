"""The backplane over a Redis Cluster, by sharded pub/sub: for each master the same pair of links as for one Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

from gateway.backplane.echo import Echo
from gateway.backplane.publishing import Publication, Publishing, key_of
from gateway.backplane.shard import OverRedis, Shard, Shared
from gateway.backplane.single import RETRY, reached
from gateway.backplane.streams import Streams
from gateway.backplane.subscriptions import granted
from gateway.config import Settings
from gateway.protocol.envelope import SPOKEN, Target, is_envelope
from gateway.redis.link import Command, RedisRefused
from gateway.redis.links import Links
from gateway.redis.records import Rejections
from gateway.redis.slots import SLOTS
from gateway.redis.topology import Topology, key_slot

logger = logging.getLogger(__name__)


class ClusterBackplane(OverRedis):
    """Carries envelopes by SPUBLISH and SSUBSCRIBE, each over the links to the master that serves the topic.

    When slots move, their subscriptions move at once, and each tells its gap when the new master has granted it.
    Publications follow as soon as nothing is under way to the old master, so that their order stays: what is under way
    may still be refused there, and then has to go ahead of what came later.
    """

    def __init__(self, settings: Settings, links: Links, topology: Topology, rejections: Rejections) -> None:
        self._node = settings.node_id
        self._keys = links.keys
        self._shared = Shared(settings, links.troubles, rejections)
        self.topology = topology
        self._nowhere = self._new_shard("nowhere", is_late=False)
        """Never connected: keeps subscriptions and publications of slots that no master serves, until one does."""
        self._shards: dict[str, Shard] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._arranged = asyncio.Event()
        self._hears = [self._nowhere] * SLOTS
        """By slot: the shard that has its subscriptions."""
        self._publishes = [self._nowhere] * SLOTS
        """By slot: the shard that takes its publications; follows `_hears` when nothing is under way (`_regroup`)."""
        sizes, timeout = self._shared.sizes, self._shared.timeout
        self._streams = Streams(self._call, self._keys, sizes, timeout=timeout, rejections=rejections)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.topology.run())
            version = 0
            while True:
                version = await self.topology.changed(version)
                self._rearrange(tasks)

    async def ready(self) -> None:
        await reached(self.topology.dial_any)
        await self._arranged.wait()
        while beats := [beat for address, shard in self._shards.items() if (beat := self._beat(address, shard))]:
            # Not for longer: a master that goes meanwhile never grants its beat, and others may have come.
            await asyncio.wait(beats, timeout=RETRY)

    async def publish(self, target: Target, data: bytes) -> int:
        topic = self._keys.topic(target)
        if target.kind in SPOKEN and not is_envelope(data):
            data = self._shared.signing.sign(topic, data)
        return await self._publishes[key_slot(topic)].publishing.publish(topic, data)

    async def subscribe(self, targets: Iterable[Target]) -> None:
        topics = [(self._keys.topic(target), target) for target in targets]
        wanted = [self._hears[key_slot(topic)].subscriptions.want(topic, target) for topic, target in topics]
        await granted(wanted, self._shared.timeout)

    def unsubscribe(self, targets: Iterable[Target]) -> None:
        for topic in map(self._keys.topic, targets):
            self._hears[key_slot(topic)].subscriptions.unsubscribe(topic)

    @property
    def _echoes(self) -> Collection[Echo]:
        return [shard.echo for shard in self._shards.values()]

    async def _call(self, command: Command, *, size: int, repeatable: bool = False) -> Any:
        publishing = self._publishes[key_slot(key_of(command))].publishing
        return await publishing.call(command, size=size, repeatable=repeatable)

    # ---- following the cluster

    def _new_shard(self, address: str, *, is_late: bool) -> Shard:
        return Shard(
            self._shared,
            verbs=self._keys.verbs,
            name=address,
            is_late=is_late,
            redirected=self._redirected,
            regroup=self._regroup,
        )

    def _redirected(self, refusal: RedisRefused | None) -> None:
        """Have the layout looked at: a slot has moved. The refusal names its new master: `MOVED SLOT HOST:PORT`."""
        words = refusal.message.split() if refusal else []
        self.topology.suspect(words[2] if len(words) > 2 else "")

    def _rearrange(self, tasks: asyncio.TaskGroup) -> None:
        """Make the shards those of the topology.

        Nothing is awaited in here, so nobody sees slots half moved. First come the new shards, since what moves must
        have somewhere to go; then subscriptions move; then the links of masters that are gone are closed. Publications
        come last: `turn` may send them on at once, to the shard that has the subscriptions by now.
        """
        masters = self.topology.masters
        for address in masters - self._shards.keys():
            shard = self._shards[address] = self._new_shard(address, is_late=self._arranged.is_set())
            self._running[address] = tasks.create_task(shard.run(self.topology.dialer(address)))
        gone = [self._shards.pop(address) for address in self._shards.keys() - masters]
        losers = self._move_subscriptions()
        for address in [address for address in self._running if address not in masters]:
            self._running.pop(address).cancel()
        for shard in losers | set(gone):
            shard.publishing.turn()
        for address, shard in self._shards.items():
            self._beat(address, shard)
        self._arranged.set()

    def _move_subscriptions(self) -> set[Shard]:
        """Move the subscriptions of each slot to its shard; return the shards that lost slots."""
        losers = set()
        for slot in range(SLOTS):
            shard = self._shards.get(self.topology.shard_at(slot), self._nowhere)
            if self._hears[slot] is not shard:
                losers.add(self._hears[slot])
                self._hears[slot] = shard
        for loser in losers:
            for topic, wish in loser.subscriptions.release(partial(self._left, loser)):
                self._hears[key_slot(topic)].subscriptions.adopt(topic, wish)
        return losers

    def _left(self, shard: Shard, topic: bytes) -> bool:
        return self._hears[key_slot(topic)] is not shard

    def _regroup(self, publishing: Publishing) -> None:
        """Send on what waits at a shard, in order, each to the shard that takes it by now.

        Called when nothing is under way there. So its slots move now: from here on new publications go to the new
        shard, behind those that are handed over in this same step.
        """
        for slot in range(SLOTS):
            if self._publishes[slot].publishing is publishing:
                self._publishes[slot] = self._hears[slot]
        for publication in publishing.take():
            self._shard_for(publication).publishing.put(publication)

    def _shard_for(self, publication: Publication) -> Shard:
        """Return the shard that is to take a publication: the one a cluster asked for (`ASK`), if it is still there."""
        asking = self._shards.get(publication.asking)
        if asking is None:
            publication.asking = ""
        return asking or self._publishes[key_slot(publication.key)]

    def _beat(self, address: str, shard: Shard) -> asyncio.Future[None] | None:
        """Let a shard's beats go to a topic in a slot of its own, another one when that slot has moved away.

        Returns what to wait for until that topic is subscribed, None when it is.
        """
        topic = shard.echo.topic
        if not topic or self.topology.shard_at(key_slot(topic)) != address:
            topic = self._keys.beat(self._node, self.topology.tag_of(address))
        return shard.beat_at(topic)
