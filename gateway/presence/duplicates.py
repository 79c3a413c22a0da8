"""Detects other processes with this node's id: an earlier one that crashed, or, by mistake, one that lives.

A lease names the incarnation, that is the process, which holds it. One that is left behind runs out within its ten
seconds, and whoever starts under the same name waits for that, unless its process is known to have ended. A lease that
is renewed meanwhile belongs to a living process, and then no other one may start. If two live all the same, because one
was frozen while the other started, they tell each other so by a key, and neither removes what it does not hold.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import NamedTuple

from gateway.presence.listing import SECONDS
from gateway.presence.processes import has_ended
from gateway.redis.keys import Keys
from gateway.redis.records import Record, Rejections, values
from gateway.redis.store import Store

logger = logging.getLogger(__name__)

PATIENCE = SECONDS + 1.5
"""Seconds after which a lease that is still there must have been renewed: its whole time, and 1.5 s for the looks."""
_FIELDS = ("incarnation", "process", "host")


class Holder(NamedTuple):
    """Another process that has the lease of this node."""

    incarnation: str
    host: str
    has_ended: bool
    """Whether that is known: its lease need not be waited for."""
    left: int
    """Milliseconds until its lease runs out."""


class Duplicates:
    """Finds out who else has this node's name, and remembers what was found."""

    def __init__(self, node: str, store: Store, keys: Keys, rejections: Rejections) -> None:
        self._node = node
        self.incarnation = secrets.token_hex(8)
        """A random word of this process, by which its lease is told from any other's."""
        self.present = ""
        """What to tell operators of another living process, "" while there is none.

        While there is one, nothing is removed for not being in this node's hub: it may be in the other's.
        """
        self._store = store
        self._key, self._rival_key = keys.node(node), keys.rival(node)
        self._rejections = rejections
        self._seen: tuple[Holder, float] | None = None
        """The holder that a start waits for, as it was with the least time left, and since when (loop time)."""

    async def holder(self) -> Holder | None:
        """Return who has the lease, if it is not this process. Raises `Unavailable`."""
        key = self._key
        found, left = await asyncio.gather(
            self._store.ask(key, ("HMGET", key, *_FIELDS)), self._store.ask(key, ("PTTL", key))
        )
        record = Record(key, values(_FIELDS, found), self._rejections)
        incarnation = record.line("incarnation")
        # Without an end (-1) a person has written it; and it may have run out (-2) between the two questions.
        if not incarnation or incarnation == self.incarnation or left < 0:
            return None
        return Holder(incarnation, record.line("host"), has_ended(record.line("process")), left)

    async def is_alone(self) -> bool:
        """Tell whether no other process of this name has said that it lives without the lease. Raises `Unavailable`."""
        rival = await self._store.ask(self._rival_key, ("GET", self._rival_key))
        return rival in (None, self.incarnation.encode())

    def lives(self, holder: Holder) -> bool:
        """Tell whether the holder, for which a start waits, has renewed its lease since it was first seen here.

        It has if there is more time left than once before, or if the lease outlives its own time.
        """
        now = asyncio.get_running_loop().time()
        if self._seen is None or self._seen[0].incarnation != holder.incarnation:
            self._seen = holder, now
            return False
        first, since = self._seen
        self._seen = min(first, holder, key=_left), since
        return holder.left > self._seen[0].left or now - since > PATIENCE

    def note(self, rival: str) -> None:
        """Remember what there is to say of another process ("" for none); log it when that begins and when it ends."""
        if rival and not self.present:
            logger.error("%s", rival)
        elif self.present and not rival:
            logger.warning("node %s is the only one of its name again", self._node)
        self.present = rival

    def said_of(self, holder: Holder | None) -> str:
        """Say, for operators, that there is another process, and on which host if that is known."""
        where = f", on {holder.host}" if holder and holder.host else ""
        return f"another process calls itself node {self._node}, too{where}: node_id must be unique"


def _left(holder: Holder) -> int:
    return holder.left
