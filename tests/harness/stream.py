"""A steady stream of numbered messages to a channel that keeps a history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

from gateway.protocol import codec
from gateway.protocol.envelope import Envelope


class Stream:
    """Writes number after number, each once the one before is stored."""

    def __init__(self, write: Callable[[int], Awaitable[object]], *, pause: float = 0.01) -> None:
        self.sent = 0
        self._write = write
        self._pause = pause

    @staticmethod
    def envelope(channel: str, number: int) -> Envelope:
        """Return a number as what nodes write to a channel."""
        return Envelope(codec.encode("n", number, channel))

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[Stream]:
        """Write for the length of a `with`."""
        writing = asyncio.create_task(self._write_on())
        try:
            yield self
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing
            await self._one()

    async def _write_on(self) -> None:
        while True:
            await asyncio.shield(self._one())
            await asyncio.sleep(self._pause)

    async def _one(self) -> None:
        self.sent += 1
        await self._write(self.sent)


def assert_whole(found: Sequence[object], last: int) -> None:
    """Fail unless the numbers are complete and in order, from the first one found to the last one sent."""
    numbers = [number for number in found if isinstance(number, int)]
    assert len(numbers) == len(found), f"not only numbers: {[odd for odd in found if not isinstance(odd, int)][:5]}"
    assert numbers, "nothing came"
    wrong = [(one, two) for one, two in pairwise(numbers) if two != one + 1]
    assert not wrong, f"not one after the other: {wrong[:5]}"
    assert numbers[-1] == last, f"the last is {numbers[-1]}, not {last}"
