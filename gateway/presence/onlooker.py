"""Presence as seen by somebody who is no node: it reads, and writes nothing."""

from __future__ import annotations

from gateway.backplane import Backplane
from gateway.backplane.cluster import ClusterBackplane
from gateway.backplane.cluster_store import ClusterStore
from gateway.backplane.keys import Keys
from gateway.backplane.link import Link
from gateway.backplane.sentinel import open_dialer
from gateway.backplane.store import SingleStore, Store
from gateway.config import Rule, Settings
from gateway.counters import Counters
from gateway.presence.listing import Listing
from gateway.presence.protocol import Counts, NodeInfo
from gateway.presence.rules import Rules
from gateway.redis.records import Rejections


class Onlooker:
    """Reads what the nodes of a cluster have written. Raises `Unavailable` while Redis is away."""

    def __init__(self, settings: Settings, backplane: Backplane) -> None:
        if isinstance(backplane, ClusterBackplane):
            keys = Keys(settings.prefix, cluster=True)
            self._store: Store = ClusterStore(backplane.topology, lambda: None, backplane.troubles)
        else:
            keys = Keys(settings.prefix)
            dialer = open_dialer(settings.redis_url, f"{settings.prefix}-{settings.node_id}-presence")
            self._store = SingleStore(dialer, _ignore, backplane.troubles)
        rejections = Rejections(Counters())  # to its log: whoever looks on is asked for no figures
        self._listing = Listing(self._store, keys, rejections)
        self._rules = Rules(self._store, keys, rejections)

    async def run(self) -> None:
        """Be connected until cancelled."""
        await self._store.run()

    async def rules(self) -> tuple[Rule, ...]:
        """Return the rules of channels that the nodes go by."""
        return await self._rules.read()

    async def count(self) -> Counts:
        return await self._listing.count()

    async def node_ids(self) -> list[str]:
        """Return the ids in the set of nodes: those without a lease, too."""
        return await self._listing.node_ids()

    async def nodes(self) -> list[NodeInfo]:
        return await self._listing.nodes()


async def _ignore(link: Link) -> None:
    pass
