"""A bounded queue of received messages, as an async iterator."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self

from gateway.client.progress import gap_of
from gateway.protocol.message import Message


class Inbox:
    """An async iterator over the messages that come from the moment it was made; made by `Client.messages`.

    It ends with `close()`, and with the end of the client once what came before is read; when the server has refused
    the client for good, it then raises why. Up to `limit` messages wait for a slow reader. Past that the oldest are
    dropped (`dropped` counts them), and a `$gap` stands in their place.
    """

    def __init__(self, wanted: Callable[[Message], bool], limit: int, forget: Callable[[Inbox], None]) -> None:
        self.dropped = 0
        self._wanted = wanted
        self._limit = limit
        self._forget = forget
        self._waiting: deque[Message] = deque()
        self._missed: str | None = None
        """The channel of the newest dropped message, until its reader is told."""
        self._arrived = asyncio.Event()
        self._is_open = True
        self._failure: BaseException | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while not self._waiting:
            if not self._is_open:
                if self._failure is not None:
                    raise self._failure
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        if self._missed is not None:
            channel, self._missed = self._missed, None
            return Message(channel, "$gap", gap_of(None, None))
        return self._waiting.popleft()

    def put(self, message: Message) -> int:
        """Take a message that is wanted here; return how many were dropped for it."""
        if not self._is_open or not self._wanted(message):
            return 0
        self._waiting.append(message)
        self._arrived.set()
        if len(self._waiting) <= self._limit:
            return 0
        self._missed = self._waiting.popleft().channel
        self.dropped += 1
        return 1

    def end(self, failure: BaseException | None = None) -> None:
        """Let nothing more in."""
        self._is_open, self._failure = False, failure
        self._arrived.set()

    def close(self) -> None:
        """Stop hearing; what waits is forgotten."""
        self._waiting.clear()
        self._missed = None
        self.end()
        self._forget(self)
