"""Revoked sessions and used log-in links of operators.

Signed things hold by themselves wherever the key is known, so that they are over is kept in Redis until they would be
anyway, and here what this node has heard of, for while Redis is away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Protocol

from gateway.errors import Unavailable

LONGEST = 12 * 3600
"""Seconds that anything is valid that can be revoked: a session, by then an operator logs in again."""
WITHIN = 2.0
"""Seconds Redis has to answer before a node goes by what it knows itself: every page asks, and people wait for it."""
RETRY = 1.0
"""Seconds between two tries to tell Redis."""
KNOWN = 10_000
"""How many a node remembers: more log-outs than operators can make in half a day."""


class Store(Protocol):
    """Where all nodes find it."""

    async def revoke(self, id: str, seconds: int) -> bool: ...

    async def is_revoked(self, id: str) -> bool: ...


class Revocations:
    """Knows which sessions and links are over, and tells the pages that are open in such a session."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, float] = {}
        """Until when each would have held, in the order in which they were heard of."""
        self._unwritten: dict[str, float] = {}
        """Those that Redis has yet to be told."""
        self._due = asyncio.Event()
        self.listeners: list[Callable[[str], None]] = []
        """Hear of each that is over."""

    async def run(self) -> None:
        """Tell Redis what it missed while it was away, until cancelled."""
        while await self._due.wait():
            await asyncio.sleep(RETRY)
            await self._write()

    async def take(self, id: str, seconds: int) -> bool:
        """Revoke what may be used once; tell whether this is the first time. Raises `Unavailable`."""
        if self.knows(id):  # Redis may have lost its data since
            return False
        is_first = await self._stored(id, seconds)  # of two who use it at the same time Redis lets one be the first
        self.heard(id)
        return is_first

    async def end(self, id: str, seconds: int) -> None:
        """Revoke a session: here at once, and elsewhere as soon as Redis can be told."""
        # Here before anything is awaited: the next request with it may come before Redis has answered.
        self.heard(id)
        self._unwritten[id] = time.time() + seconds
        await self._write()

    def heard(self, id: str) -> None:
        """Take note that another node has revoked a session."""
        self._known.pop(id, None)
        self._known[id] = time.time() + LONGEST
        if len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]
        for listener in self.listeners:
            listener(id)

    def knows(self, id: str) -> bool:
        """Tell whether this node has heard that a session is over."""
        return self._known.get(id, 0) > time.time()

    async def has(self, id: str) -> bool:
        """Tell whether a session is over, as far as can be told within two seconds."""
        if self.knows(id):
            return True
        try:
            async with asyncio.timeout(WITHIN):
                return await self._store.is_revoked(id)
        except (Unavailable, TimeoutError):
            return False

    async def catch_up(self, ids: Collection[str]) -> None:
        """Hear which of these are over: this node may have been cut off when it was told."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WITHIN):
                for id in ids:
                    if await self.has(id):
                        self.heard(id)

    async def _write(self) -> None:
        for id, until in list(self._unwritten.items()):
            if (seconds := round(until - time.time())) > 0:
                try:
                    await self._stored(id, seconds)
                except Unavailable:
                    return self._due.set()
            self._unwritten.pop(id, None)
        # One that came meanwhile may have failed to be written: `run` has to hear of that.
        if not self._unwritten:
            self._due.clear()

    async def _stored(self, id: str, seconds: int) -> bool:
        """Have Redis know; tell whether it did not before. Raises `Unavailable`."""
        try:
            async with asyncio.timeout(WITHIN):
                return await self._store.revoke(id, seconds)
        except TimeoutError:
            raise Unavailable("Redis did not answer in time") from None
