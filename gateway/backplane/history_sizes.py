"""What the histories hold that this process writes to, so that strangers who name channels cannot fill the memory."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from typing import NamedTuple

from gateway.backplane.counters import BackplaneCounters
from gateway.protocol.message import Position

logger = logging.getLogger(__name__)

OVERHEAD = 4096
"""Bytes that a history takes beside its messages: Redis makes the first block of a stream this large."""
LINGER = 24 * 3600
"""Seconds for which a position outlives its messages (`position.lua` says why)."""
LOG_PERIOD = 60.0


class Entry(NamedTuple):
    """A history as it was after our last message to it."""

    position: Position
    size: int
    written: float


class Ledger:
    """The histories by when this process wrote to them last; the ones it has not written to for longest go first.

    Others may write to the same channels, and count them as well: the sum is what is held at most. It takes what has
    expired for held until its position has, too: this comes first when something has to go, and is no loss.
    """

    def __init__(self, most: int, counters: BackplaneCounters) -> None:
        self._most = most
        self._counters = counters
        self._queues: dict[int, OrderedDict[str, Entry]] = {}
        """By time to live, of which the rules have few: the first in each is the first to expire."""
        self._size = 0
        self._logged = -math.inf

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def epoch(self, channel: str) -> str:
        """Return the epoch in which this process wrote to a channel last, "" where it has not, or long ago."""
        return next((queue[channel].position.epoch for queue in self._queues.values() if channel in queue), "")

    def note(self, channel: str, position: Position, size: int, ttl: int, now: float) -> list[tuple[str, Position]]:
        """Note what a history holds after a message; return those that must go for it, and where they ended."""
        for queue in self._queues.values():
            self._size -= _held(queue.pop(channel, None))
        self._forget_expired(now)
        self._queues.setdefault(ttl, OrderedDict())[channel] = Entry(position, size, now)
        self._size += size + OVERHEAD
        dropped = []
        while 0 < self._most < self._size and len(self) > 1:
            queue = min(filter(None, self._queues.values()), key=lambda queue: next(iter(queue.values())).written)
            oldest, entry = queue.popitem(last=False)
            self._size -= _held(entry)
            dropped.append((oldest, entry.position))
        return dropped

    def _forget_expired(self, now: float) -> None:
        for ttl, queue in self._queues.items():
            while ttl and queue and next(iter(queue.values())).written + ttl + LINGER <= now:
                self._size -= _held(queue.popitem(last=False)[1])

    def trimmed(self, channel: str, messages: int, now: float) -> None:
        """Count messages that gave way to later ones because of their bytes, and not of their number."""
        self._counters.history_trimmed += messages
        if messages:
            self._warn(f"history_bytes keeps fewer messages of {channel} than history says", now)

    def dropped(self, channel: str, now: float) -> None:
        """Count a history that was given up."""
        self._counters.histories_dropped += 1
        self._warn(f"all histories together exceed history_total_bytes: that of {channel} was dropped", now)

    def _warn(self, what: str, now: float) -> None:
        """Say it once a minute, for all channels together: strangers must not fill the log either."""
        if now - self._logged >= LOG_PERIOD:
            self._logged = now
            counters = self._counters
            numbers = (counters.history_trimmed, counters.histories_dropped)
            logger.warning("%s; since the start %s messages and %s histories went so", what, *numbers)


def _held(entry: Entry | None) -> int:
    return 0 if entry is None else entry.size + OVERHEAD
