"""Asks once for all who want to know the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class InFlight(Generic[Answer]):
    """Shares questions that are dear: of each one at most is under way, and one waits behind it.

    Nobody is given the answer to a question that was under way before he came: he may know of something that it does
    not, such as a message he has just sent. All who come meanwhile share the next one. `kept`, in seconds, is how old
    an answer may be all the same.
    """

    def __init__(self, *, kept: float = 0) -> None:
        self._kept = kept
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
        if not self._kept:
            del self._next[key]
        try:
            answer = await question()
        except BaseException:
            self._forget(key, task)
            raise
        if self._kept:
            asyncio.get_running_loop().call_later(self._kept, self._forget, key, task)
        else:
            self._forget(key, task)
        return answer

    def _forget(self, key: Hashable, task: asyncio.Task[Answer]) -> None:
        for found in (self._running, self._next):
            if found.get(key) is task:
                del found[key]


def _retrieved(asked: asyncio.Task[Answer]) -> None:
    """Let asyncio not warn of a failure of which nobody wants to know any more."""
    if not asked.cancelled():
        asked.exception()
