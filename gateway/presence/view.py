"""Presence for a process that is no node, such as `gateway status`: it reads, and registers nothing."""

from __future__ import annotations

from gateway.config import Rule
from gateway.connections.counters import Counters
from gateway.presence.contract import Counts, NodeInfo
from gateway.presence.listing import RedisListing
from gateway.presence.rules import Rules
from gateway.redis.links import Links
from gateway.redis.records import Rejections


class PresenceView:
    """Reads what the nodes of a cluster have written, while `run` keeps it connected.

    Raises `Unavailable` while Redis is away.
    """

    def __init__(self, links: Links) -> None:
        self._store = links.store
        rejections = Rejections(Counters())  # to its log: whoever looks on is asked for no figures
        self._listing = RedisListing(links.store, links.keys, rejections)
        self._rules = Rules(links.store, links.keys, rejections)

    async def run(self) -> None:
        """Be connected until cancelled."""
        await self._store.run()

    async def rules(self) -> tuple[Rule, ...]:
        """Return the rules of channels that the nodes go by, as far as they are about history."""
        return await self._rules.read()

    async def count(self) -> Counts:
        return await self._listing.count()

    async def node_ids(self) -> list[str]:
        """Return the ids in the set of nodes; those that have lost their lease are among them."""
        return await self._listing.node_ids()

    async def nodes(self) -> list[NodeInfo]:
        return await self._listing.nodes()
