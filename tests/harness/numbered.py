"""Numbered messages under steady load, from one backplane to another, and what is known of those that are missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import count, pairwise
from typing import Any

from gateway.backplane import GAP, Backplane, Target, open_backplane
from gateway.config import Settings
from gateway.errors import Unavailable
from gateway.redis.links import open_links
from tests.harness.wait import eventually

PAUSE = 0.004

_nodes = count(1)


@asynccontextmanager
async def started(url: str, **settings: Any) -> AsyncIterator[Backplane]:
    """Run the backplane of one node for the length of a `with`, ready or not; fail if it ended by itself."""
    found = Settings(redis_url=url, node_id=f"node-{next(_nodes)}", **settings)
    backplane = open_backplane(found, open_links(found))
    task = asyncio.create_task(backplane.run())
    try:
        yield backplane
    finally:
        task.cancel()
        await asyncio.wait((task,))
    assert task.cancelled(), task.exception()


@asynccontextmanager
async def running(url: str, **settings: Any) -> AsyncIterator[Backplane]:
    """Run the backplane of one node, as `started` does, and wait until it is ready."""
    async with started(url, **settings) as backplane:
        async with asyncio.timeout(20):
            await backplane.ready()
        yield backplane


class Load:
    """Publishes number after number to each channel by one backplane, and keeps what another one brings.

    Publications are not awaited one by one, so that many are under way when a fault comes.
    """

    def __init__(self, publisher: Backplane, listener: Backplane, channels: Iterable[str]) -> None:
        self.publisher = publisher
        self.listener = listener
        self._targets = [Target("channel", channel) for channel in channels]
        # By channel: the last number given out, and those whose publication failed, which its caller was told.
        self.sent = dict.fromkeys(self._targets, 0)
        self.failed: dict[Target, set[int]] = {target: set() for target in self._targets}
        # By channel: numbers, and None for a gap, in the order of arrival.
        self.received: dict[Target, list[int | None]] = {target: [] for target in self._targets}
        self.gaps = 0
        self._under_way: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[Load]:
        """Keep publishing for the length of a `with`; afterwards everything sent has arrived or is lost."""
        await self.listener.subscribe(self._targets)
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._publish_on())]
        try:
            await self.flows()
            yield self
            await self.flows()
            tasks.pop().cancel()
            await self._end()
        finally:
            for task in (*tasks, *self._under_way):
                task.cancel()
            await asyncio.wait(tasks)

    async def flows(self, deadline: float = 20.0) -> float:
        """Wait until a message published from now on has arrived in every channel; return how long it took."""
        loop, before = asyncio.get_running_loop(), dict(self.sent)
        began = loop.time()
        await eventually(
            lambda: all(self._last(target) > number for target, number in before.items()),
            deadline,
            what="messages in every channel",
        )
        return loop.time() - began

    def lost(self) -> int:
        """Check order and doubles, and that all that is missing lies where a gap was told; return how much it is."""
        return sum(self._lost(target) for target in self._targets)

    def _lost(self, target: Target) -> int:
        numbers = [number for number in self.received[target] if number is not None]
        assert len(numbers) == len(set(numbers)), f"{target}: doubled"
        # Nobody knows what became of a publication that failed because the link broke: it may come late.
        sure = [number for number in numbers if number not in self.failed[target]]
        assert all(one < next for one, next in pairwise(sure)), f"{target}: out of order"
        missing, last, told = 0, 0, False
        for number in self.received[target]:
            if number is None:
                told = True
            if number is None or number in self.failed[target]:
                continue
            skipped = set(range(last + 1, number)) - self.failed[target]
            assert told or not skipped, f"{target}: nobody told of {sorted(skipped)}"
            missing, last, told = missing + len(skipped), number, False
        return missing

    def _last(self, target: Target) -> int:
        return next((number for number in reversed(self.received[target]) if number is not None), 0)

    async def _read(self) -> None:
        async for batch in self.listener.batches():
            for target, data in batch:
                if target in self.received:
                    self.received[target].append(int(data))
                elif target == GAP:
                    self.gaps += 1
                elif target.kind == GAP.kind and (channel := Target("channel", target.name)) in self.received:
                    self.received[channel].append(None)

    async def _publish_on(self) -> None:
        while True:
            for target in self._targets:
                self._start(target)
                await asyncio.sleep(PAUSE)

    def _start(self, target: Target) -> None:
        self.sent[target] += 1
        task = asyncio.create_task(self._publish(target, self.sent[target]))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _publish(self, target: Target, number: int) -> None:
        try:
            await self.publisher.publish(target, b"%d" % number)
        except Unavailable:
            self.failed[target].add(number)

    async def _end(self) -> None:
        """Publish a last message behind everything, and wait for it."""
        await eventually(lambda: not self._under_way, 20, what="every publication answered")
        for target in self._targets:
            self._start(target)
        await eventually(lambda: all(self._last(t) == self.sent[t] for t in self._targets), 20, what="the last ones")


@asynccontextmanager
async def load(publisher_url: str, listener_url: str, channels: Iterable[str]) -> AsyncIterator[Load]:
    """Run two backplanes, and a load from one to the other, for the length of a `with`."""
    async with (
        running(publisher_url) as publisher,
        running(listener_url) as listener,
        Load(publisher, listener, channels).flowing() as flowing,
    ):
        yield flowing
