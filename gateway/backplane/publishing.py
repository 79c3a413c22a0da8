"""The outgoing half of the Redis backplane: a bounded queue that survives an outage."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from gateway.backplane.link import Link, LinkLost, RedisRefused
from gateway.errors import Unavailable


class Publication(NamedTuple):
    topic: bytes
    data: bytes
    deadline: float
    answer: asyncio.Future[int]


class Publishing:
    """Publishes in the order of the calls, over whatever link there is; waits while there is none.

    A PUBLISH is sent once: if the link breaks before its answer, it may or may not have been carried
    out, and doing it again could double the message. Such a publication fails with `Unavailable`.
    """

    def __init__(self, *, timeout: float, messages: int, size: int) -> None:
        self._timeout = timeout
        self._most_messages = messages
        self._most_bytes = size
        self._link: Link | None = None
        self._unsent: deque[Publication] = deque()
        self._unanswered: deque[Publication] = deque()
        self._expiry: asyncio.TimerHandle | None = None
        self.waiting = 0
        """Publications that have no answer yet."""
        self.waiting_bytes = 0

    async def publish(self, topic: bytes, data: bytes) -> int:
        """Return how many subscribers got it. Raises `Unavailable`: too much waits, or it took too long."""
        self._check_room(len(data))
        loop = asyncio.get_running_loop()
        publication = Publication(topic, data, loop.time() + self._timeout, loop.create_future())
        self.waiting += 1
        self.waiting_bytes += len(data)
        try:
            self._send(publication) if self._link else self._unsent.append(publication)
            self._expire_later()
            return await publication.answer
        except (LinkLost, RedisRefused) as error:
            raise Unavailable(f"Redis did not take the message: {error}") from None
        finally:
            self.waiting -= 1
            self.waiting_bytes -= len(data)

    async def use(self, link: Link) -> None:
        """Send over this link, what waited first, until it is lost."""
        self._link = link
        while self._unsent:
            self._send(self._unsent.popleft())
        try:
            await asyncio.shield(link.lost)
        finally:
            self._link = None

    def _check_room(self, size: int) -> None:
        if 0 < self._most_messages <= self.waiting:
            raise Unavailable(f"{self.waiting} messages wait for Redis already")
        if 0 < self._most_bytes < self.waiting_bytes + size:
            raise Unavailable(f"{self.waiting_bytes} bytes wait for Redis already")

    def _send(self, publication: Publication) -> None:
        if self._link is None or publication.answer.done():
            return
        self._unanswered.append(publication)
        self._link.send(publication.answer, b"PUBLISH", publication.topic, publication.data)

    # One timer serves all: everything waits equally long, so the oldest expires first.

    def _expire_later(self) -> None:
        while self._unanswered and self._unanswered[0].answer.done():
            self._unanswered.popleft()
        if self._expiry is None and (oldest := self._oldest()):
            self._expiry = asyncio.get_running_loop().call_at(oldest.deadline, self._expire)

    def _oldest(self) -> Publication | None:
        if self._unanswered:
            return self._unanswered[0]
        return self._unsent[0] if self._unsent else None

    def _expire(self) -> None:
        self._expiry = None
        now = asyncio.get_running_loop().time()
        for waiting in (self._unanswered, self._unsent):
            while waiting and (waiting[0].answer.done() or waiting[0].deadline <= now):
                self._give_up(waiting.popleft())
        self._expire_later()

    def _give_up(self, publication: Publication) -> None:
        if publication.answer.done():
            return
        publication.answer.set_exception(Unavailable(f"Redis did not answer within {self._timeout:g} s"))
        if self._link is not None:
            self._link.abort()  # sent and never answered: this link is dead, or as good as
