"""Carries envelopes between nodes."""

from __future__ import annotations

from gateway.backplane.cluster import ClusterBackplane
from gateway.backplane.memory import MemoryBackplane
from gateway.backplane.options import check
from gateway.backplane.redis import RedisBackplane
from gateway.backplane.target import Arrival, Backplane, Page
from gateway.config import Settings, without_password
from gateway.config.redis_url import RedisAddress, without_secrets
from gateway.counters import Counters
from gateway.envelope import ALL, DIRECT, GAP, NODES, TAP, Target
from gateway.errors import InvalidSettings
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
    "check_redis",
    "open_backplane",
]


def open_backplane(settings: Settings, rejections: Rejections | None = None) -> Backplane:
    """Make the backplane that `redis_url` asks for; nothing is connected before it is started.

    `rejections` hears of what comes through Redis and is none of ours. Raises `InvalidSettings`, as `check_redis` does.
    """
    address = check_redis(settings)
    if address is None:
        return MemoryBackplane(history_total_bytes=settings.history_total_bytes)
    rejections = rejections or Rejections(Counters())
    kind = ClusterBackplane if address.kind == "cluster" else RedisBackplane
    return kind(settings, rejections)


def check_redis(settings: Settings) -> RedisAddress | None:
    """Return where Redis is, None for a node that is alone.

    Raises `InvalidSettings` for options in the URL that redis-py does not know, or for files that TLS cannot use.
    """
    if settings.redis_url.startswith("memory:"):
        return None
    try:
        address = RedisAddress.parse(settings.redis_url)
        check(address)
    except ValueError as error:
        url = settings.redis_url
        said = without_secrets(str(error), url) or "expected a URL whose password is percent-encoded"
        raise InvalidSettings(f"redis_url: {said}, got {without_password(url)!a}") from None
    return address
