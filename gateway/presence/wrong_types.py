"""Mends keys that somebody has overwritten with another type, since Redis refuses (WRONGTYPE) what is written there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.errors import Unavailable
from gateway.presence.scripts import MEND
from gateway.redis.keys import Keys
from gateway.redis.link import Command
from gateway.redis.pipeline import keys_of
from gateway.redis.records import Rejections
from gateway.redis.store import Store

PERIOD = 1.0
"""Seconds from one mending to the next: whoever spoils keys again and again costs one registration in each."""


class WrongTypes:
    """Removes what is in the way, and has this node write again what belongs there.

    Every node that has met the key writes again, whichever of them removed it; others find what they lost by their
    audits.
    """

    def __init__(self, store: Store, keys: Keys, rejections: Rejections, write_again: Callable[[], None]) -> None:
        self._store = store
        self._keys = keys
        self._rejections = rejections
        self._write_again = write_again
        self._broken: dict[str, None] = {}
        self._due = asyncio.Event()

    def misplaced(self, command: Command) -> None:
        """Note a command that met a key of a wrong type: all its keys are looked at soon."""
        self._broken.update(dict.fromkeys(keys_of(command)))
        self._due.set()

    async def run(self) -> None:
        """Mend what is broken, until cancelled."""
        while await self._due.wait():
            self._due.clear()
            broken, self._broken = self._broken, {}
            try:
                if any([await self._mend(key) for key in broken]):
                    self._write_again()
            except Unavailable:  # all of them again, and what was met meanwhile
                self._broken.update(broken)
                self._due.set()
            await asyncio.sleep(PERIOD)

    async def _mend(self, key: str) -> bool:
        """Remove what does not belong there; tell whether it is a key of ours, and so has to be written again.

        That is so even if nothing is in the way any more: another node was faster, and has written what it holds; what
        this one wanted to write was refused before that.
        """
        if not (expected := self._keys.type_of(key)):
            return False
        found = await self._store.ask(key, MEND((key,), expected))
        if found:
            self._rejections.stands(key, f"expected a {expected}, found a {found.decode()}, which is removed", b"")
        return True
