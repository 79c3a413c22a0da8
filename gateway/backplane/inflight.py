"""Coalesces equal questions: those who ask the same at the same time share one answer (single flight)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class InFlight(Generic[Answer]):
    """Shares expensive questions: of each key one at most is under way, and one waits behind it.

    Nobody gets the answer to a question that was under way before they came: it may be older than what they know,
    such as a message they have just sent. All who come meanwhile share the next one.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[Answer]] = {}
        self._next: dict[Hashable, asyncio.Task[Answer]] = {}
        """Questions that wait behind those, not asked yet: whoever comes may join."""

    async def ask(self, key: Hashable, question: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer to a question, which is the same for everybody who names this key.

        Raises what the question raises, to all who share it. Waits for the one under way first, however that ends.
        """
        asked = self._next.get(key)
        if asked is None:
            asked = self._next[key] = asyncio.create_task(self._ask(key, question))
            asked.add_done_callback(_retrieved)
        # Shielded: one who is cancelled does not take it from the others.
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
        # In one step with the question's first: whoever comes from now on is not given this answer.
        self._running[key] = task
        del self._next[key]
        try:
            return await question()
        finally:
            if self._running.get(key) is task:
                del self._running[key]


def _retrieved(asked: asyncio.Task[Answer]) -> None:
    """Keep asyncio from logging a failure that nobody waits for any more."""
    if not asked.cancelled():
        asked.exception()
