"""Removes what a dead node left behind, and announces who is gone.

Every node looks for nodes whose lease has run out; a claim lets one of them at a time do the work. All of
it may be done twice without harm, so a reaper that dies is followed by another, who finds what is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container

from gateway.presence.claims import Claims
from gateway.presence.listing import raw_pages
from gateway.presence.marks import Marks
from gateway.presence.registry import RedisRegistry, described, info_of
from gateway.protocol.message import node_of
from gateway.redis.keys import Keys
from gateway.redis.records import Rejections, sorted_out
from gateway.redis.store import Store

logger = logging.getLogger(__name__)

AT_ONCE = 100
"""Connections that are removed before the loop turns and Redis has answered: some milliseconds."""
REMEMBERED = 3600
"""Seconds for which a node that comes back can still see that it was reaped."""


class Reaper:
    """Cleans up after nodes."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        registry: RedisRegistry,
        claims: Claims,
        rejections: Rejections,
        marks: Marks,
        reaped: Callable[[str, int], None],
    ) -> None:
        """`reaped` hears of each node that was cleaned up after, and how many connections that were."""
        self._store = store
        self._keys = keys
        self._registry = registry
        self._claims = claims
        self._rejections = rejections
        self._marks = marks
        self._reaped = reaped

    async def reap_dead(self, own: str) -> None:
        """Reap every node without a lease that nobody else is reaping. Raises `Unavailable`.

        Where the lease of this node, `own`, is gone as well Redis has lost its data: then nobody is dead.
        In a cluster it may be the one master that has a node's lease.
        """
        known = self._marks.known  # this node may register anew meanwhile, and then remembers what is there now
        dead = await self._dead()
        if dead and not await self._is_alive(own):
            return
        for node in dead:
            if await self._marks.is_lost(self._keys.node(node), known):
                continue
            if await self._claims.take(node):
                await self._reap(node)
                await self._claims.give_back(node)

    async def remove_ghosts(self, node: str, held: Container[str]) -> int:
        """Remove the node's connections that are not among those `held`; return how many. Needs the claim.

        What a hand has put among them, names of other nodes' connections included, is taken out of this set alone.
        """
        key, removed = self._keys.node_connections(node), 0
        async for ids, others in raw_pages(self._store, key, self._rejections):
            others += [id.encode() for id in ids if node_of(id) != node]
            if others:
                await self._store.ask(key, ("SREM", key, *others))
            ghosts = [id for id in ids if id not in held and node_of(id) == node]
            for start in range(0, len(ghosts), AT_ONCE):
                await self._remove(node, ghosts[start : start + AT_ONCE])
            removed += len(ghosts)
            await self._claims.take(node)
        return removed

    async def _dead(self) -> list[str]:
        key = self._keys.nodes
        nodes, others = sorted_out(key, await self._store.ask(key, ("SMEMBERS", key)), self._rejections)
        if others:
            await self._store.ask(key, ("SREM", key, *others))
        leases = [self._keys.node(node) for node in nodes]
        if not nodes:  # nor this one: it will be again
            return []
        if self._store.whole and await self._store.ask(self._keys.nodes, ("EXISTS", *leases)) == len(nodes):
            return []
        alive = await asyncio.gather(*map(self._is_alive, nodes))
        return [node for node, is_alive in zip(nodes, alive, strict=True) if not is_alive]

    async def _is_alive(self, node: str) -> bool:
        # One that has its name's lease no more, but lives, says so elsewhere: its connections are no ghosts.
        lease, rival = self._keys.node(node), self._keys.rival(node)
        return bool(await self._store.ask(lease, ("EXISTS", lease, rival)))

    async def _reap(self, node: str) -> None:
        reaped = self._keys.reaped(node)
        if await self._is_alive(node):  # it came back before the claim was ours
            return
        logger.warning("node %(lost)s has no lease any more: removing what it held", {"lost": node})
        await self._store.ask(reaped, ("SET", reaped, 1, "EX", REMEMBERED))
        removed = await self.remove_ghosts(node, ())
        await self._store.ask(self._keys.nodes, ("SREM", self._keys.nodes, node))
        facts = {"lost": node, "connections": removed}
        logger.warning("node %(lost)s is cleaned up: %(connections)s connections", facts)
        self._reaped(node, removed)

    async def _remove(self, node: str, ids: list[str]) -> None:
        found = await asyncio.gather(*(described(self._store, self._keys, id, self._rejections) for id in ids))
        for id, record in zip(ids, found, strict=True):
            self._registry.lose(info_of(id, record)._replace(node=node))
        await self._store.flushed()
