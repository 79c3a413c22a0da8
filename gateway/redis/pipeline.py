"""Writes to one Redis server, in order, as many commands in one pipeline as have gathered."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from gateway.errors import Unavailable
from gateway.redis.link import Command, Link, LinkLost, RedisRefused
from gateway.redis.refusal import PASSING
from gateway.redis.script import Script

logger = logging.getLogger(__name__)

AT_ONCE = 500
"""Commands in one pipeline: what Redis does without a look at its other clients."""
MOST_WAITING = 200_000
"""Writes that may wait for Redis; past that they are dropped, and the node registers anew when it is back."""
_PASSING = PASSING | {"NOAUTH", "NOPERM", "NOSCRIPT"}
"""Refusals that say something of the server and nothing of the command: it is sent again."""

FIRST_PAUSE, LAST_PAUSE = 0.05, 1.0
"""Seconds before what was refused is sent again."""

Read = Callable[[Any], Any]


class Write:
    """A command, what to make of its answer, and the future of that."""

    __slots__ = ("command", "done", "key", "read")

    def __init__(self, command: Command, read: Read | None, done: asyncio.Future[Any], key: str = "") -> None:
        self.command = command
        self.read = read
        self.key = key
        self.done = done

    def settle(self, answer: Any, misplaced: Callable[[Command], None]) -> None:
        """Take the answer. One that Redis refused for good, of which the link's witness knows, is None to who waits."""
        if isinstance(answer, BaseException):
            if isinstance(answer, RedisRefused) and is_wrong_type(answer):
                misplaced(self.command)
            answer = None
        result = self.read(answer) if self.read is not None and answer is not None else answer
        if not self.done.done():
            self.done.set_result(result)

    def drop(self) -> None:
        """Give up: whoever waits is told, and nobody need be waiting."""
        if not self.done.done():
            self.done.set_exception(Unavailable("too much waits for Redis already"))
            self.done.exception()


class Writer:
    """Sends what is put in, in order, over whatever link there is.

    What a broken link left unanswered is sent again: every write may be repeated, because
    its scripts act only on what they change.
    """

    def __init__(
        self,
        moved: Callable[[Write, RedisRefused], None] | None = None,
        misplaced: Callable[[Command], None] = lambda command: None,
    ) -> None:
        self._moved = moved
        """Takes writes that this server of a cluster refused because another one serves the key."""
        self._misplaced = misplaced
        """Hears of a write that met a key of a wrong type: it was not made."""
        self._waiting: deque[Write] = deque()
        self._put = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.link: Link | None = None
        self.overflowed = False
        """Whether writes were dropped: what Redis holds is not what this node holds."""

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """Asked for once: on CPython 3.11 each time is a system call."""
        return asyncio.get_running_loop()

    def put(self, command: Command, read: Read | None = None) -> asyncio.Future[Any]:
        """Note a write; the future is what `read` makes of its answer. Nobody need await it."""
        write = Write(command, read, self._loop.create_future())
        self.add(write)
        return write.done

    def add(self, write: Write) -> None:
        """Note a write made elsewhere."""
        if len(self._waiting) >= MOST_WAITING:
            self._drop_all()
        self._waiting.append(write)
        self._empty.clear()
        self._put.set()

    def take(self) -> list[Write]:
        """Take back what has not been answered."""
        writes = list(self._waiting)
        self._waiting.clear()
        return writes

    async def flushed(self) -> None:
        """Wait until Redis has answered everything."""
        await self._empty.wait()

    async def use(self, link: Link) -> None:
        """Write over this link, which has the scripts, until it is lost.

        Raises `RedisRefused` when another server, or another log-in, is needed.
        """
        link.lost.add_done_callback(lambda _: self._put.set())
        self.link, pause = link, FIRST_PAUSE
        try:
            while not link.lost.done():
                if not await self._write_some(link):
                    await asyncio.wait((link.lost,), timeout=pause)
                    pause = min(pause * 2, LAST_PAUSE)
                    continue
                pause = FIRST_PAUSE
                if not self._waiting:
                    self._empty.set()
                    self._put.clear()
                    await self._put.wait()
        finally:
            self.link = None

    async def _write_some(self, link: Link) -> bool:
        """Send as many as go together; tell whether they were taken, or need a while."""
        writes = [self._waiting[i] for i in range(min(AT_ONCE, len(self._waiting)))]
        # Nothing here holds an error once it is raised: it holds this frame, and circles wait for the collector.
        answers = deque(
            await asyncio.gather(*[link.request(*write.command) for write in writes], return_exceptions=True)
        )
        for write in writes:
            if isinstance(answers[0], LinkLost) or _needs_dialling(answers[0]):
                raise answers.popleft()
            if _is_passing(answers[0]):
                return False
            self._answered(write, answers.popleft())
        return True

    def _answered(self, write: Write, answer: Any) -> None:
        if self._waiting and self._waiting[0] is write:  # else all was dropped meanwhile
            self._waiting.popleft()
        if self._moved is not None and isinstance(answer, RedisRefused) and answer.elsewhere:
            self._moved(write, answer)
        else:
            write.settle(answer, self._misplaced)

    def _drop_all(self) -> None:
        logger.error("more than %s writes wait for Redis: registering anew when it is back", MOST_WAITING)
        self.overflowed = True
        while self._waiting:
            self._waiting.popleft().drop()


async def answer_of(link: Link, command: Command, scripts: Iterable[Script]) -> Any:
    """Send a command ahead of all writes, and return the answer; give Redis the scripts if it has forgotten them.

    Raises `LinkLost` and `RedisRefused`.
    """
    try:
        return await link.call(*command)
    except RedisRefused as refusal:
        if refusal.word != "NOSCRIPT":
            raise
    await load_scripts(link, scripts)
    return await link.call(*command)


async def load_scripts(link: Link, scripts: Iterable[Script]) -> None:
    """Give a server the text of the scripts, which are then called by their hash."""
    for script in scripts:
        await link.call("SCRIPT", "LOAD", script.text)


def _needs_dialling(answer: object) -> bool:
    return isinstance(answer, RedisRefused) and answer.word in ("READONLY", "NOAUTH", "NOSCRIPT")


def _is_passing(answer: object) -> bool:
    return isinstance(answer, RedisRefused) and answer.word in _PASSING and not answer.elsewhere


def is_wrong_type(refusal: RedisRefused) -> bool:
    """Tell whether a key was not of the type that the command is for; within a script the word may stand later."""
    return "WRONGTYPE" in refusal.message


def keys_of(command: Command) -> list[str]:
    """Return the keys that a command is about."""
    if command[0] not in ("EVALSHA", "EVAL"):
        return [str(command[1])]
    return [str(key) for key in command[3 : 3 + int(command[2])] if key]
