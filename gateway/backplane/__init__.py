"""Carries envelopes between nodes."""

from __future__ import annotations

from gateway.address import RedisAddress
from gateway.backplane.cluster import ClusterBackplane
from gateway.backplane.memory import MemoryBackplane
from gateway.backplane.redis import RedisBackplane
from gateway.backplane.target import ALL, DIRECT, GAP, NODES, TAP, Arrival, Backplane, Page, Target
from gateway.config import Settings, without_password
from gateway.errors import InvalidSettings

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


def open_backplane(settings: Settings) -> Backplane:
    """Make the backplane that `redis_url` asks for; nothing is connected before it is started."""
    if settings.redis_url.startswith("memory:"):
        return MemoryBackplane()
    try:
        kind = RedisAddress.parse(settings.redis_url).kind
        return ClusterBackplane(settings) if kind == "cluster" else RedisBackplane(settings)
    except ValueError as error:  # of redis-py, for what follows the scheme
        raise InvalidSettings(f"redis_url: {error}, got {without_password(settings.redis_url)!r}") from None
