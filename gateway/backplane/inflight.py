"""Asks once for all who want to know the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class InFlight(Generic[Answer]):
    """Shares questions that are dear: of each one at most is under way, and one waits behind it.

    Nobody is given the answer to a question that was under way before he came: he may know of something that it does
    not, such as a message he has just sent. All who come meanwhile share the next one.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[Answer]] = {}
        self._next: dict[Hashable, asyncio.Task[Answer]] = {}
        """Not asked yet: whoever comes may join."""

    async def ask(self, key: Hashable, question: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer to a question, which is the same for everybody who names this key."""
        asked = self._next.get(key)
        if asked is None:
            asked = self._next[key] = asyncio.create_task(self._ask(key, question))
            asked.add_done_callback(_retrieved)
        # Shielded: one who goes away, or is cancelled, takes it from nobody else.
        return await asyncio.shield(asked)

    async def close(self) -> None:
        """Ask nothing more, and wait for the end of what is asked."""
        tasks = {*self._running.values(), *self._next.values()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, key: Hashable, question: Callable[[], Awaitable[Answer]]) -> Answer:
        task = self._next[key]
        if (before := self._running.get(key)) is not None:
            await asyncio.wait((before,))
        self._running[key] = task
        del self._next[key]
        try:
            return await question()
        finally:
            if self._running.get(key) is task:
                del self._running[key]


def _retrieved(asked: asyncio.Task[Answer]) -> None:
    """Let asyncio not warn of a failure of which nobody wants to know any more."""
    if not asked.cancelled():
        asked.exception()
