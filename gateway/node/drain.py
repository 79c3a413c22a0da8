"""Graceful shutdown: clients are closed with 1012 in waves, then the node's entries in Redis are removed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from gateway.config import Settings
from gateway.connections.connection import Connection
from gateway.connections.hub import Hub
from gateway.errors import GOING_AWAY, RESTART, Unavailable
from gateway.node.health import Health
from gateway.node.lifecycle import Lifecycle
from gateway.operations.journal import Journal
from gateway.presence import Presence

logger = logging.getLogger(__name__)

WAVE = 0.1
"""Seconds from one wave to the next: ten waves a second are as good as a steady stream to those who take them in."""
SMALLEST = 10
"""Connections in a wave, while there are as many: the others take in a hundred a second without noticing."""
RESTART_SPREAD = 5.0
"""Seconds over which clients are asked to spread their return: all at once they would be too many for the others."""
PAUSING = 0.25
"""Of the seconds to drain: what may pass before the first wave. Closing them takes most of the time."""
ANSWERING = 0.15
"""Of the time for the clients: what the last wave has for its answers, three seconds by default."""
CLEANING = 2.0
"""Of the seconds to drain: kept for cutting off who is left, and for what Redis holds: `HASTE` each."""
CUTTING = 0.1
"""Seconds for those who are left then to hear why, before they are cut off: they had all the time before."""
HASTE = 1.0
"""Seconds for all of it when the clients are sent away at once, and again for what Redis holds: whoever hurries a node
(a second SIGTERM, Ctrl-C) does not wait longer before he kills it."""


def waves(count: int, seconds: float) -> list[int]:
    """Divide connections into waves, as even as they can be, that fill the seconds unless they are few."""
    number = max(1, min(int(seconds / WAVE), -(-count // SMALLEST)))
    return [count * (wave + 1) // number - count * wave // number for wave in range(number)]


def pause(count: int, most: float, drain_seconds: float) -> float:
    """Return how long balancers have to notice, before connections close: not for long when these are few."""
    return min(most, drain_seconds * PAUSING, count * WAVE / SMALLEST)


def patience(drain_seconds: float) -> float:
    """Return how long all clients together have; not to wait for any would cut off all of them."""
    return max(drain_seconds - CLEANING, drain_seconds / 2) or HASTE


def returns(count: int) -> Iterator[float]:
    """Yield after how many seconds each client is asked back, in the order of their waves; it never ends.

    The first ones at once, the last ones after the whole spread: so they return evenly from the first wave until the
    spread after the last. By lot alone, one drain in twenty gave some second more than twice the average.
    """
    yield from (RESTART_SPREAD * (number + random.random()) / count for number in range(count))
    while True:
        yield random.uniform(0, RESTART_SPREAD)


class Drain:
    """Ends one node, once."""

    def __init__(
        self,
        hub: Hub,
        lifecycle: Lifecycle,
        health: Health,
        journal: Journal,
        presence: Presence,
        settings: Settings,
    ) -> None:
        self._hub = hub
        self._lifecycle = lifecycle
        self._health = health
        self._journal = journal
        self._presence = presence
        self._settings = settings
        self._hurried = asyncio.Event()
        self._limit: asyncio.Timeout | None = None

    async def run(self) -> None:
        """Take nobody in, send everybody away, forget what is left; waits for `drain_seconds` at most.

        Repeating it is harmless, and does not wait.
        """
        if self._health.draining:
            return
        # Before anything is awaited: handshakes look at it once more when they have waited, so none comes in behind.
        self._health.draining = True
        self._journal.event("draining")
        facts = {"node": self._settings.node_id, "connections": len(self._hub)}
        logger.info("draining: node=%(node)s connections=%(connections)s", facts)
        seconds = HASTE if self._hurried.is_set() else patience(self._settings.drain_seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds) as self._limit:
                await self._send_away()
                await self._lifecycle.finished()
        self._limit = None
        await self._cut_off()
        await self._clean()
        logger.info("stopped: node=%(node)s", {"node": self._settings.node_id})

    def hurry(self) -> None:
        """Send everybody away at once, and hardly wait for them: whether it has begun, or is about to."""
        if self._hurried.is_set():
            return
        self._hurried.set()
        # Before the drain has begun there is no limit: `run` looks at the event. Only ever brought forward.
        if self._limit is not None and not self._limit.expired():
            soon = asyncio.get_running_loop().time() + HASTE
            self._limit.reschedule(min(self._limit.when() or soon, soon))

    async def _send_away(self) -> None:
        # `left` are those who were there when it began. Who leaves meanwhile is closed again, which does nothing.
        count, seconds = len(self._hub), self._settings.drain_seconds
        rest, left, after = pause(count, self._settings.drain_pause, seconds), iter(self._hub), returns(count)
        for wave in waves(count, patience(seconds) * (1 - ANSWERING) - rest if seconds else 0):
            await self._wait(rest)
            _restart(islice(left, wave), after)
            rest = WAVE
        _restart(iter(self._hub), after)  # those who were let in when the end began; to the others it does nothing

    async def _wait(self, seconds: float) -> None:
        """Let time pass, unless there is haste."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()

    async def _cut_off(self) -> None:
        """End the connections that are left; their handlers may still be at work."""
        for connection in self._hub:
            logger.warning("cut off: connection=%(connection)s did not answer the close", {"connection": connection.id})
            connection.socket.end(GOING_AWAY, within=CUTTING)
        # The sockets keep their deadlines by themselves; should one of them fail, the node must end all the same.
        with suppress(TimeoutError):
            async with asyncio.timeout(HASTE):
                await self._lifecycle.emptied()

    async def _clean(self) -> None:
        try:
            async with asyncio.timeout(HASTE):
                self._journal.event("down")
                await self._journal.flushed()
                await self._presence.close()
        except (TimeoutError, Unavailable):
            logger.warning("stopped while Redis is away: what this node wrote there is left to the others")


def _restart(connections: Iterator[Connection], returns: Iterator[float]) -> None:
    """Ask clients to come back, each at a moment of its own."""
    for connection, after in zip(connections, returns, strict=False):
        connection.socket.close(RESTART.after(after))
