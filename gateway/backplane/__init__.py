"""Carries envelopes between nodes."""

from __future__ import annotations

from gateway.backplane.cluster import ClusterBackplane
from gateway.backplane.contract import Arrival, Backplane, Page
from gateway.backplane.memory import MemoryBackplane
from gateway.backplane.single import RedisBackplane
from gateway.config import Settings
from gateway.connections.counters import Counters
from gateway.protocol.envelope import ALL, DIRECT, GAP, NODES, TAP, Target
from gateway.redis.links import Links
from gateway.redis.records import Rejections

__all__ = [
    "ALL",
    "DIRECT",
    "GAP",
    "NODES",
    "TAP",
    "Arrival",
    "Backplane",
    "ClusterBackplane",
    "MemoryBackplane",
    "Page",
    "Target",
    "open_backplane",
]


def open_backplane(settings: Settings, links: Links | None, rejections: Rejections | None = None) -> Backplane:
    """Make the backplane over these links, or that of a node that is alone; nothing is connected before it is started.

    `rejections` hears of what comes through Redis and is none of ours.
    """
    if links is None:
        return MemoryBackplane(history_total_bytes=settings.history_total_bytes)
    rejections = rejections or Rejections(Counters())
    if links.topology is not None:
        return ClusterBackplane(settings, links, links.topology, rejections)
    return RedisBackplane(settings, links, rejections)
