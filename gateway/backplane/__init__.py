"""Carries envelopes between nodes over Redis pub/sub, and keeps the histories of channels in Redis streams."""

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
    """Make the backplane over these links, or the one of a node that is alone; nothing is connected before it runs.

    `rejections` counts what comes through Redis and no node can have said.
    """
    if links is None:
        return MemoryBackplane(history_total_bytes=settings.history_total_bytes)
    rejections = rejections or Rejections(Counters())
    if links.topology is not None:
        return ClusterBackplane(settings, links, links.topology, rejections)
    return RedisBackplane(settings, links, rejections)
