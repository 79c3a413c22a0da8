"""Carries envelopes between nodes."""

from __future__ import annotations

from gateway.backplane.cluster import ClusterBackplane
from gateway.backplane.memory import MemoryBackplane
from gateway.backplane.options import check
from gateway.backplane.redis import RedisBackplane
from gateway.backplane.target import ALL, DIRECT, GAP, NODES, TAP, Arrival, Backplane, Page, Target
from gateway.config import Settings, without_password
from gateway.config.redis_url import RedisAddress, without_secrets
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
    """Make the backplane that `redis_url` asks for; nothing is connected before it is started.

    Raises `InvalidSettings` for options in it that redis-py does not know, or for files that TLS cannot use.
    """
    if settings.redis_url.startswith("memory:"):
        return MemoryBackplane(history_total_bytes=settings.history_total_bytes)
    try:
        address = RedisAddress.parse(settings.redis_url)
        check(address)
    except ValueError as error:
        url = settings.redis_url
        said = without_secrets(str(error), url) or "expected a URL whose password is percent-encoded"
        raise InvalidSettings(f"redis_url: {said}, got {without_password(url)!a}") from None
    return ClusterBackplane(settings) if address.kind == "cluster" else RedisBackplane(settings)
