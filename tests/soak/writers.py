"""Write numbered messages to every channel, at a steady pace: half by a `Publisher`, half by clients."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway.errors import GatewayError
from tests.soak.ledger import Stream

TEXT = "x" * 80

Write = Callable[[str, dict[str, object], str], Awaitable[object]]


class Writer:
    """Writes one stream.

    One that is `patient` waits for each answer; the others have many numbers under way while Redis is away.
    """

    def __init__(self, stream: Stream, write: Write, *, patient: bool) -> None:
        self.stream = stream
        self.accepted = 0
        """Numbers whose writer was told that they are taken."""
        self._write = write
        self._patient = patient
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, pause: float, opened: asyncio.Event) -> None:
        """Write until cancelled, whenever it is opened."""
        loop = asyncio.get_running_loop()
        due = loop.time() + random.random() * pause
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            await opened.wait()
            # What could not be written in time is not made up for: that would be another load.
            due = max(due + pause, loop.time())
            task = asyncio.create_task(self._one())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            if self._patient:
                await asyncio.wait([task])

    async def _one(self) -> None:
        stream = self.stream
        stream.sent += 1
        stream.under_way += 1
        number = stream.sent
        try:
            await self._write("n", {"by": stream.writer, "n": number, "text": TEXT}, stream.channel)
            self.accepted += 1
        except GatewayError:
            stream.unsure.add(number)
        finally:
            stream.under_way -= 1


class Writers:
    """All writers, which pause and go on together."""

    def __init__(self, writers: list[Writer], *, rate: float) -> None:
        self._writers = writers
        self._pause = len(writers) / rate
        self._opened = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def sent(self) -> int:
        return sum(writer.stream.sent for writer in self._writers)

    @property
    def unsure(self) -> int:
        return sum(len(writer.stream.unsure) for writer in self._writers)

    @property
    def under_way(self) -> int:
        return sum(writer.stream.under_way for writer in self._writers)

    @property
    def marks(self) -> dict[Stream, int]:
        """The newest number of each stream."""
        return {writer.stream: writer.stream.sent for writer in self._writers}

    def start(self) -> None:
        self._opened.set()
        self._tasks = [asyncio.create_task(writer.run(self._pause, self._opened)) for writer in self._writers]

    def pause(self) -> None:
        self._opened.clear()

    def go_on(self) -> None:
        self._opened.set()

    async def stop(self) -> None:
        self.pause()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
