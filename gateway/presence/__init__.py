"""Presence: which connections, members and online users there are in the whole cluster, and on which node."""

from __future__ import annotations

from collections.abc import Callable

from gateway.backplane import Backplane, MemoryBackplane
from gateway.config import Settings
from gateway.connections.counters import Counters
from gateway.connections.hub import Hub
from gateway.presence.contract import Counts, Listing, NodeInfo, Presence, Registry, Vital
from gateway.presence.memory import MemoryPresence
from gateway.presence.redis import RedisPresence
from gateway.presence.scripts import SCRIPTS
from gateway.redis.links import Links
from gateway.redis.records import Rejections

__all__ = ["SCRIPTS", "Counts", "Listing", "NodeInfo", "Presence", "Registry", "open_presence"]


def open_presence(
    settings: Settings,
    links: Links | None,
    backplane: Backplane,
    hub: Hub,
    counters: Counters,
    rejections: Rejections | None = None,
    *,
    vital: Callable[[], Vital] = Vital,
    reaped: Callable[[str, int], None] = lambda node, removed: None,
) -> Presence:
    """Make the presence over these links, or the one of a node that is alone; nothing is connected before it runs.

    `rejections` counts what is found in Redis and no node can have written. `vital` returns how this node is, for the
    others to read. `reaped` is called with the id of each dead node that this one cleaned up after, and how many
    connections it had.
    """
    if links is None:
        assert isinstance(backplane, MemoryBackplane)  # as `open_backplane` makes it where there are no links
        return MemoryPresence(settings, backplane, vital)
    return RedisPresence(settings, links, backplane, hub, counters, rejections or Rejections(counters), vital, reaped)
