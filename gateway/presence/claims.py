"""Claims (locks that expire) on a node's part of the sets: one process at a time writes all of it, or removes it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.presence.scripts import CLAIM, DISCLAIM
from gateway.redis.keys import Keys
from gateway.redis.store import Store

HELD = 10.0
"""Seconds after which a claim expires that is not renewed: as long as a lease, so that a process that died half-way
holds nobody up for longer than that."""
RETRY = 0.25
"""Seconds until a claim that another process has is asked for again."""


class Claims:
    """This process's claims. A claim is no fence: who was frozen for longer than `HELD` may still act on an old one."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._claimant = secrets.token_hex(8)

    async def take(self, node: str) -> bool:
        """Take or renew the claim on a node; tell whether this process has it now. Raises `Unavailable`."""
        key = self._keys.claim(node)
        return bool(await self._store.ask(key, CLAIM((key,), self._claimant, round(HELD * 1000))))

    async def give_back(self, node: str) -> None:
        """Let others have it; harmless if it is theirs by now. Raises `Unavailable`; then it expires by itself."""
        key = self._keys.claim(node)
        await self._store.ask(key, DISCLAIM((key,), self._claimant))

    @asynccontextmanager
    async def held(self, node: str) -> AsyncIterator[None]:
        """Wait for the claim, and hold it; whoever is longer than `HELD` has to `take` it again. Raises `Unavailable`.

        After an error it is not given back: what is half done is this process's to finish, which can take its own claim
        again at once. If it does not come back, the claim expires.
        """
        while not await self.take(node):  # noqa: ASYNC110 (another process has it; there is no event)
            await asyncio.sleep(RETRY)
        yield
        await self.give_back(node)
