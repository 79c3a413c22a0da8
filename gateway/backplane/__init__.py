"""Carries envelopes between nodes."""

from __future__ import annotations

from gateway.backplane.memory import MemoryBackplane
from gateway.backplane.redis import RedisBackplane
from gateway.backplane.target import ALL, DIRECT, GAP, NODES, TAP, Arrival, Backplane, Target
from gateway.config import Settings

__all__ = [
    "ALL",
    "DIRECT",
    "GAP",
    "NODES",
    "TAP",
    "Arrival",
    "Backplane",
    "MemoryBackplane",
    "Target",
    "open_backplane",
]


def open_backplane(settings: Settings) -> Backplane:
    """Make the backplane that `redis_url` asks for; nothing is connected before it is started."""
    if settings.redis_url.startswith("memory:"):
        return MemoryBackplane()
    return RedisBackplane(settings)
