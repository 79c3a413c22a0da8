"""Marks on the masters of a Redis Cluster, by which a node notices that one of them has lost its data.

A lease that is gone tells that of the one master which holds it. For the others, each master has a key with a random
word. It is lost with the rest; whoever looks next makes another one, which differs from the one that nodes remember.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from typing import Any

from gateway.errors import Unavailable
from gateway.presence.scripts import MARK
from gateway.redis.keys import Keys
from gateway.redis.store import Store

logger = logging.getLogger(__name__)

KEPT = 3600
"""Seconds for which a mark stays after the last look; nodes look every 3 s."""
PATIENCE = 1.0
"""Seconds to wait for each answer: the renewal of the lease waits for them, and must not come late."""

Known = Mapping[str, bytes]
"""Marks by their keys."""


class Marks:
    """What this node remembers of the marks. Where all keys are on one server there are none: the lease does."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self.known: Known = {}
        """The marks as they were before this node began to write what it last registered."""

    async def remember(self) -> None:
        """Remember all marks as they are: what is written from now on cannot be lost without being noticed.

        Of a master that does not answer the mark that was known stands, and where none was it counts as one that has
        lost its data as soon as it answers. Raises `Unavailable` while no master is known.
        """
        if not (self._store.whole or self._store.tags):
            raise Unavailable("the masters of the cluster are not known yet")
        found = await self._found()
        known = {**self.known, **found}
        self.known = {key: known[key] for key in self._all() if key in known}

    async def are_lost(self) -> bool:
        """Tell whether a master has another mark than is remembered; one that does not answer is passed over."""
        found = await self._found()
        if lost := {self._store.server(key) for key, mark in found.items() if self.known.get(key) != mark}:
            logger.warning("may have lost what was written there, all is written again: %s", ", ".join(sorted(lost)))
        return bool(lost)

    async def is_lost(self, name: str, known: Known) -> bool:
        """Tell whether the master that serves a key may have lost it since these marks were read.

        When it does not answer, or has moved, it may.
        """
        server = self._store.server(name)
        keys = [key for key in self._all() if self._store.server(key) == server]
        if not (self._store.whole or keys):  # the masters are others just now
            return True
        found = await asyncio.gather(*map(self._look, keys))
        return any(mark is None or mark != known.get(key) for key, mark in zip(keys, found, strict=True))

    async def _found(self) -> dict[str, bytes]:
        keys = self._all()
        found = await asyncio.gather(*map(self._look, keys))
        return {key: mark for key, mark in zip(keys, found, strict=True) if mark is not None}

    def _all(self) -> list[str]:
        return [self._keys.mark(tag) for tag in self._store.tags]

    async def _look(self, key: str) -> Any:
        """Return the mark under a key, made anew if there was none; None when its master does not answer in time."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._store.ask(key, MARK((key,), secrets.token_hex(8), KEPT))
        except (Unavailable, TimeoutError):
            return None
