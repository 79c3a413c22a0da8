"""The store of sets and books over the masters of a Redis Cluster: a queue of writes for each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from gateway.errors import Unavailable
from gateway.redis.link import Command, Link, LinkLost, RedisRefused
from gateway.redis.pipeline import Read, Write, Writer, answer_of
from gateway.redis.reconnect import stay_connected
from gateway.redis.script import Script
from gateway.redis.store import LinkedStore, refusal_of
from gateway.redis.topology import Topology
from gateway.redis.trouble import Troubles

RETRY = 0.1
"""Seconds before a write is tried again that the cluster could not take."""
TRIES = 20
"""How often a question is asked: for 2 s, time for a look at the layout and a new link, but not for a failover."""


class ClusterStore(LinkedStore):
    """One writer for each master; what a master does not serve (any more) goes to the one that does.

    There is no order between masters, so the writes of one turn go out one at a time: the next when the one before is
    answered. Those of different turns do not wait for each other, and may be carried out in any order.
    """

    whole = False

    def __init__(self, topology: Topology, troubles: Troubles, *, scripts: Sequence[Script] = ()) -> None:
        super().__init__(troubles, scripts)
        self._topology = topology
        self._writers: dict[str, Writer] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.tags: Sequence[str] = ()
        self._homeless: list[Write] = []
        """Writes on keys that no master serves at the moment; sent when the layout has changed."""
        self._turns: dict[str, deque[Write]] = {}
        """For every turn with a write under way: what waits behind that."""
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            version = 0
            while True:
                version = await self._topology.changed(version)
                self._rearrange(tasks)

    def write(self, turn: str, key: str, command: Command, read: Read | None = None) -> asyncio.Future[Any]:
        write = Write(command, read, asyncio.get_running_loop().create_future(), key)
        # Done only when it is answered, by whichever master in the end: one that has to move keeps its turn waiting.
        write.done.add_done_callback(lambda _: self._next(turn))
        if (waiting := self._turns.get(turn)) is not None:
            waiting.append(write)
        else:
            self._turns[turn] = deque()
            self._idle.clear()
            self._send(write)
        return write.done

    async def ask(self, key: str, command: Command) -> Any:
        for _ in range(TRIES):
            link = self._link(key)
            if link is not None:
                try:
                    return await answer_of(link, command, self._scripts)
                except LinkLost:  # asked again: every question must bear that, too
                    self._topology.suspect()
                except RedisRefused as refusal:
                    if not refusal.elsewhere:
                        raise refusal_of(command, refusal, self._misplaced) from None
                    self._topology.suspect()
            await asyncio.sleep(RETRY)
        raise Unavailable("the cluster does not answer")

    async def flushed(self) -> None:
        await self._idle.wait()

    def take_overflow(self) -> bool:
        overflowed = any(writer.overflowed for writer in self._writers.values())
        for writer in self._writers.values():
            writer.overflowed = False
        return overflowed

    def server(self, key: str) -> str:
        with suppress(Unavailable):
            return self._topology.shard_of(key)
        return ""

    # ----

    def _next(self, turn: str) -> None:
        """Send the next write of a turn, whose last one has been answered, or forget the turn."""
        if waiting := self._turns[turn]:
            self._send(waiting.popleft())
            return
        del self._turns[turn]
        if not self._turns:
            self._idle.set()

    def _send(self, write: Write) -> None:
        """Give a write to the master that serves its key now, or keep it until one does."""
        with suppress(Unavailable):
            if (writer := self._writers.get(self._topology.shard_of(write.key))) is not None:
                writer.add(write)
                return
        self._homeless.append(write)

    def _link(self, key: str) -> Link | None:
        with suppress(Unavailable):
            writer = self._writers.get(self._topology.shard_of(key))
            return writer.link if writer else None
        return None

    def _moved(self, write: Write, refusal: RedisRefused) -> None:
        """Try a write again that was refused because its slot is, or will soon be, somewhere else.

        Not at once: by then the topology has looked, and else the old master would refuse it as fast as we ask.
        """
        self._topology.suspect()
        asyncio.get_running_loop().call_later(RETRY, self._send, write)

    def _rearrange(self, tasks: asyncio.TaskGroup) -> None:
        """Make the writers those of the masters that there are now. Waits for nothing."""
        masters, first_time = self._topology.masters, not self._writers
        # New masters first: what those that are gone had not answered may be theirs now.
        for shard in masters - self._writers.keys():
            writer = self._writers[shard] = Writer(self._moved, self._misplaced)
            dialer = self._topology.dialer(shard)
            use = partial(self._use_with, writer, shard=shard)
            self._tasks[shard] = tasks.create_task(stay_connected(dialer, use, f"presence at {shard}", self._troubles))
        for shard in self._writers.keys() - masters:
            # Cancelled at its next step, in which it settles nothing any more: what is taken here is sent by others.
            self._tasks.pop(shard).cancel()
            self._homeless += self._writers.pop(shard).take()
            self._runs.pop(shard, None)
        self.tags = [self._topology.tag_of(shard) for shard in sorted(masters)]
        homeless, self._homeless = self._homeless, []
        for write in homeless:
            self._send(write)
        if not first_time:
            self._rearranged()
