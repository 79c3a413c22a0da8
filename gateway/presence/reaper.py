"""Removes what a dead node left behind, and announces who is gone.

Every node looks for nodes whose lease has run out; a claim lets one of them at a time do the work. All of
it may be done twice without harm, so a reaper that dies is followed by another, who finds what is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container

from gateway.backplane.keys import Keys
from gateway.presence.claims import Claims
from gateway.presence.listing import node_ids, pages
from gateway.presence.registry import FIELDS, Registry, info_of
from gateway.presence.store import Store

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
        registry: Registry,
        claims: Claims,
        reaped: Callable[[str, int], Awaitable[object]],
    ) -> None:
        self._store = store
        self._keys = keys
        self._registry = registry
        self._claims = claims
        self._reaped = reaped

    async def reap_dead(self, own: str) -> None:
        """Reap every node without a lease that nobody else is reaping. Raises `Unavailable`.

        Where the lease of this node, `own`, is gone as well Redis has lost its data: then nobody is dead.
        """
        dead = await self._dead()
        if dead and not await self._is_alive(own):
            return
        for node in dead:
            if await self._claims.take(node):
                await self._reap(node)
                await self._claims.give_back(node)

    async def remove_ghosts(self, node: str, held: Container[str]) -> int:
        """Remove the node's connections that are not among those `held`; return how many. Needs the claim."""
        removed = 0
        async for ids in pages(self._store, self._keys.node_connections(node)):
            ghosts = [id for id in ids if id not in held]
            for start in range(0, len(ghosts), AT_ONCE):
                await self._remove(node, ghosts[start : start + AT_ONCE])
            removed += len(ghosts)
            await self._claims.take(node)
        return removed

    async def _dead(self) -> list[str]:
        nodes = await node_ids(self._store, self._keys)
        leases = [self._keys.node(node) for node in nodes]
        if self._store.whole and await self._store.ask(self._keys.nodes, ("EXISTS", *leases)) == len(nodes):
            return []
        alive = await asyncio.gather(*map(self._is_alive, nodes))
        return [node for node, is_alive in zip(nodes, alive, strict=True) if not is_alive]

    async def _is_alive(self, node: str) -> bool:
        lease = self._keys.node(node)
        return bool(await self._store.ask(lease, ("EXISTS", lease)))

    async def _reap(self, node: str) -> None:
        reaped = self._keys.reaped(node)
        if await self._is_alive(node):  # it came back before the claim was ours
            return
        logger.warning("node %s has no lease any more: removing what it held", node)
        await self._store.ask(reaped, ("SET", reaped, 1, "EX", REMEMBERED))
        removed = await self.remove_ghosts(node, ())
        await self._store.ask(self._keys.nodes, ("SREM", self._keys.nodes, node))
        logger.warning("node %s is cleaned up: %s connections", node, removed)
        await self._reaped(node, removed)

    async def _remove(self, node: str, ids: list[str]) -> None:
        found = await asyncio.gather(*(self._record(id) for id in ids))
        for id, values in zip(ids, found, strict=True):
            self._registry.lose(info_of(id, values)._replace(node=node))
        await self._store.flushed()

    async def _record(self, id: str) -> list[bytes | None]:
        key = self._keys.connection(id)
        values: list[bytes | None] = await self._store.ask(key, ("HMGET", key, *FIELDS))
        return values
