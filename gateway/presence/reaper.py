"""Removes from the sets what a dead node left behind, and so announces its users as gone.

Every node looks for nodes whose lease has run out; a claim lets one of them at a time do the work. All of it may be
done twice without harm, so a reaper that dies is followed by another one, which finds what is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container

from gateway.errors import Unavailable
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
"""Connections that are removed before the loop turns and Redis has answered: a few milliseconds."""
REMEMBERED = 3600
"""Seconds for which a node that comes back can still see that it was reaped, and so announces its users again."""


class Reaper:
    """Cleans up after dead nodes, and after earlier processes of this one's name."""

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
        """`reaped` is called with each node that was cleaned up after, and how many connections it had."""
        self._store = store
        self._keys = keys
        self._registry = registry
        self._claims = claims
        self._rejections = rejections
        self._marks = marks
        self._reaped = reaped

    async def reap_dead(self, own: str) -> None:
        """Reap every node without a lease that nobody else is reaping. Raises `Unavailable`.

        If the lease of this node, `own`, is gone as well, Redis has lost its data, and nobody is taken for dead. In a
        cluster the one master that had a node's lease may have lost its data: that is told by its mark.
        """
        known = self._marks.known  # this node may register anew meanwhile, and then remembers what is there now
        dead = await self._dead()
        # Behind that: had the data been lost before this question, our lease would be gone, too.
        if dead and not await self._is_alive(own):
            return
        for node in dead:
            if await self._marks.is_lost(self._keys.node(node), known):
                continue
            if await self._claims.take(node):
                await self._reap(node)
                await self._claims.give_back(node)

    async def remove_ghosts(self, node: str, held: Container[str], *, is_dead: bool = False) -> int:
        """Remove the node's connections that are not among those `held`; return how many. Needs the claim, renews it.

        What was put among them by hand, ids of other nodes' connections included, is taken out of this set alone.
        Raises `Unavailable`, also when another process has the claim by now, or a node that `is_dead` has come back;
        then some are left.
        """
        key, removed = self._keys.node_connections(node), 0
        async for ids, others in raw_pages(self._store, key, self._rejections):
            others += [id.encode() for id in ids if node_of(id) != node]
            if others:
                await self._store.ask(key, ("SREM", key, *others))
            ghosts = [id for id in ids if id not in held and node_of(id) == node]
            for start in range(0, len(ghosts), AT_ONCE):
                await self._make_sure(node, is_dead=is_dead)
                await self._remove(node, ghosts[start : start + AT_ONCE])
            removed += len(ghosts)
            await self._make_sure(node, is_dead=is_dead)
        return removed

    async def _make_sure(self, node: str, *, is_dead: bool) -> None:
        """Renew the claim on a node. Raises `Unavailable` when the node is another's to write, or back.

        A process that was frozen for longer than a claim is held goes on where it stood, while the node may have come
        back, written what it holds and given its own claim back: that must not be removed.
        """
        if not await self._claims.take(node):
            raise Unavailable(f"another process writes, or removes, what node {node} holds")
        if is_dead and await self._is_alive(node):
            await self._claims.give_back(node)
            raise Unavailable(f"node {node} has come back")

    async def _dead(self) -> list[str]:
        """Return the nodes in the set that have no lease; on one server that takes two questions while all is well."""
        key = self._keys.nodes
        nodes, others = sorted_out(key, await self._store.ask(key, ("SMEMBERS", key)), self._rejections)
        if others:
            await self._store.ask(key, ("SREM", key, *others))
        leases = [self._keys.node(node) for node in nodes]
        if not nodes:  # not even this one: Redis has lost the set, and the next renewal writes it again
            return []
        if self._store.whole and await self._store.ask(self._keys.nodes, ("EXISTS", *leases)) == len(nodes):
            return []
        alive = await asyncio.gather(*map(self._is_alive, nodes))
        return [node for node, is_alive in zip(nodes, alive, strict=True) if not is_alive]

    async def _is_alive(self, node: str) -> bool:
        """Tell whether a process of this name has said within a lease's time that it lives."""
        # A process that has lost the lease to another one of its name, but lives, says so under the second key: its
        # connections are real.
        lease, rival = self._keys.node(node), self._keys.rival(node)
        return bool(await self._store.ask(lease, ("EXISTS", lease, rival)))

    async def _reap(self, node: str) -> None:
        reaped = self._keys.reaped(node)
        # Asked again, now that the claim is ours: it may have come back in between. From here on it has to wait for
        # the claim, and it reads `reaped` behind that.
        if await self._is_alive(node):
            return
        logger.warning("node %(lost)s has no lease any more: removing what it held", {"lost": node})
        # Before anything is removed: if this reaper dies half-way and the node comes back, some of its users have been
        # announced as gone, and it has to announce them again.
        await self._store.ask(reaped, ("SET", reaped, 1, "EX", REMEMBERED))
        removed = await self.remove_ghosts(node, (), is_dead=True)
        # Last: as long as it is in the set, another reaper finds what is left.
        await self._store.ask(self._keys.nodes, ("SREM", self._keys.nodes, node))
        facts = {"lost": node, "connections": removed}
        logger.warning("node %(lost)s is cleaned up: %(connections)s connections", facts)
        self._reaped(node, removed)

    async def _remove(self, node: str, ids: list[str]) -> None:
        found = await asyncio.gather(*(described(self._store, self._keys, id, self._rejections) for id in ids))
        for id, record in zip(ids, found, strict=True):
            # Of this node, even if its hash has another name or none: that is the set in which it was found.
            self._registry.lose(info_of(id, record)._replace(node=node))
        await self._store.flushed()
