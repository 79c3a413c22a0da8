"""Keeps the histories that this process writes to within `history_total_bytes`: the longest unwritten are dropped."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from typing import NamedTuple

from gateway.backplane.counters import BackplaneCounters
from gateway.protocol.message import Position

logger = logging.getLogger(__name__)

OVERHEAD = 4096
"""Bytes counted for a history beside its messages: the first block of a Redis stream (`stream-node-max-bytes`)."""
LINGER = 24 * 3600
"""Seconds for which a position outlives its messages (`position.lua` says why)."""
LOG_PERIOD = 60.0
"""Seconds between two warnings, for all channels together."""


class Entry(NamedTuple):
    """A history as it was after our last message to it: position, bytes, and when (monotonic, s) that was."""

    position: Position
    size: int
    written: float


class HistorySizes:
    """The histories that this process has written to; those not written to for longest go first.

    Clients choose channels, so without it they could fill Redis with histories. Other nodes may write to the same
    channels, and count them too: the sum over all nodes is the most that is held. Messages that have expired count
    until their position has expired as well, a day later; such histories go first, and are no loss.
    """

    def __init__(self, most: int, counters: BackplaneCounters) -> None:
        self._most = most
        self._counters = counters
        self._queues: dict[int, OrderedDict[str, Entry]] = {}
        """By time to live, since the rules have few: in each the first is the one written to least recently, and so
        also the first to expire."""
        self._size = 0
        self._logged = -math.inf

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def epoch(self, channel: str) -> str:
        """Return the epoch in which this process last wrote to a channel; "" where it has not, or forgot it."""
        return next((queue[channel].position.epoch for queue in self._queues.values() if channel in queue), "")

    def note(self, channel: str, position: Position, size: int, ttl: int, now: float) -> list[tuple[str, Position]]:
        """Note what a history holds after a message: `size` bytes, kept for `ttl` seconds (0: for good).

        Returns the channels whose histories must be dropped for it, with their last positions as known here; the one
        just written to is never among them. They are forgotten here at once; dropping them is up to the caller.
        """
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
        """Count messages that left a channel's history because of `history_bytes`, not of `history`."""
        self._counters.history_trimmed += messages
        if messages:
            self._warn(f"history_bytes keeps fewer messages of {channel} than history says", now)

    def dropped(self, channel: str, now: float) -> None:
        """Count a history that was given up."""
        self._counters.histories_dropped += 1
        self._warn(f"all histories together exceed history_total_bytes: that of {channel} was dropped", now)

    def _warn(self, what: str, now: float) -> None:
        """Log it once a minute, for all channels together: strangers must not fill the log either."""
        if now - self._logged >= LOG_PERIOD:
            self._logged = now
            counters = self._counters
            numbers = (counters.history_trimmed, counters.histories_dropped)
            logger.warning("%s; since the start %s messages and %s histories went so", what, *numbers)


def _held(entry: Entry | None) -> int:
    return 0 if entry is None else entry.size + OVERHEAD
