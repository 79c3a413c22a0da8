"""A queue of writes to one Redis server, sent in order, in pipelines, and again after a broken connection."""

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
"""Commands in one pipeline: Redis may carry out all of them before it looks at its other clients."""
MOST_WAITING = 200_000
"""Writes that may wait for Redis; past that all are dropped, and the node writes everything anew when it is back."""
_PASSING = PASSING | {"NOAUTH", "NOPERM", "NOSCRIPT"}
"""Refusals that say something of the server and nothing of the command: it is sent again."""

FIRST_PAUSE, LAST_PAUSE = 0.05, 1.0
"""Seconds before what was refused is sent again: doubled each time, until Redis takes it."""

Read = Callable[[Any], Any]
"""Makes the result of an answer."""


class Write:
    """A command, what to make of its answer, and the future of that.

    `key` is what a cluster routes by. Cancelling the future does not take the write back.
    """

    __slots__ = ("command", "done", "key", "read")

    def __init__(self, command: Command, read: Read | None, done: asyncio.Future[Any], key: str = "") -> None:
        self.command = command
        self.read = read
        self.key = key
        self.done = done

    def settle(self, answer: Any, misplaced: Callable[[Command], None]) -> None:
        """Take the answer, or the error that came instead.

        Whoever waits for a write that Redis refused for good gets None: the link's witness has reported it, and the
        one who waits could do nothing about it.
        """
        if isinstance(answer, BaseException):
            if isinstance(answer, RedisRefused) and is_wrong_type(answer):
                misplaced(self.command)
            answer = None
        result = self.read(answer) if self.read is not None and answer is not None else answer
        if not self.done.done():
            self.done.set_result(result)

    def drop(self) -> None:
        """Give up: whoever waits gets `Unavailable`."""
        if not self.done.done():
            self.done.set_exception(Unavailable("too much waits for Redis already"))
            self.done.exception()  # looked at, so that asyncio does not log it where nobody waits


class Writer:
    """Sends what is put in, in order, over whatever link there is; what waits survives an outage.

    What a broken link left unanswered is sent again, so writes are carried out at least once: each must bear being
    repeated, which its scripts do by acting only on what they change. Past `MOST_WAITING` all are dropped.
    """

    def __init__(
        self,
        moved: Callable[[Write, RedisRefused], None] | None = None,
        misplaced: Callable[[Command], None] = lambda command: None,
    ) -> None:
        self._moved = moved
        """In a cluster: takes a write that this master refused because another one serves the key, or soon will."""
        self._misplaced = misplaced
        """Called with a write that met a key of a wrong type, and so was not made."""
        self._waiting: deque[Write] = deque()
        """All that has no answer yet, what is under way included: it leaves only when Redis has answered."""
        self._put = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.link: Link | None = None
        self.overflowed = False
        """Whether writes were dropped, so that Redis does not hold what this node holds; whoever asked resets it."""

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """The running loop, asked for once: on CPython 3.11 each time is a system call."""
        return asyncio.get_running_loop()

    def put(self, command: Command, read: Read | None = None) -> asyncio.Future[Any]:
        """Note a write and return the future of what `read` makes of its answer; nobody need await it.

        The future is None for a write that Redis refused for good, and raises `Unavailable` for one that was dropped.
        """
        write = Write(command, read, self._loop.create_future())
        self.add(write)
        return write.done

    def add(self, write: Write) -> None:
        """Note a write made elsewhere. When `MOST_WAITING` wait already, all those are dropped."""
        if len(self._waiting) >= MOST_WAITING:
            self._drop_all()
        self._waiting.append(write)
        self._empty.clear()
        self._put.set()

    def take(self) -> list[Write]:
        """Take back what has not been answered, in order; some of it may have been carried out."""
        writes = list(self._waiting)
        self._waiting.clear()
        return writes

    async def flushed(self) -> None:
        """Wait until Redis has answered everything; while there is no link that takes as long as the outage."""
        await self._empty.wait()

    async def use(self, link: Link) -> None:
        """Write over this link, which has the scripts, until it is lost.

        Raises `LinkLost` where writes were under way, and `RedisRefused` when another server, another log-in, or the
        scripts are needed: the next link has them. What was not answered stays in the queue.
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
                    # Nothing is awaited between the look and the wait: what is put from here on, or the loss of the
                    # link, sets the event again.
                    self._put.clear()
                    await self._put.wait()
        finally:
            self.link = None

    async def _write_some(self, link: Link) -> bool:
        """Send as many as go together; tell whether all were taken, False where the rest needs a while."""
        # They stay in the queue until they are answered: a link that breaks in between leaves it as it was.
        writes = [self._waiting[i] for i in range(min(AT_ONCE, len(self._waiting)))]
        # Nothing here holds an error once it is raised: it holds this frame, and circles wait for the collector.
        answers = deque(
            await asyncio.gather(*[link.request(*write.command) for write in writes], return_exceptions=True)
        )
        for write in writes:
            if isinstance(answers[0], LinkLost) or _needs_dialling(answers[0]):
                raise answers.popleft()
            if _is_passing(answers[0]):
                # Those behind it may have been taken, and are sent again behind it all the same: that way the last word
                # on each key is the one that was put in last.
                return False
            self._answered(write, answers.popleft())
        return True

    def _answered(self, write: Write, answer: Any) -> None:
        if self._waiting and self._waiting[0] is write:  # else all was dropped while it was under way
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
    """Send a command ahead of all writes that wait, and return the answer; give Redis the scripts if it forgot them.

    It stands behind the pipeline that is under way: Redis serves one connection in order. Waits for as long as the
    link lasts. Raises `LinkLost`, after which it may have been carried out or not, and `RedisRefused`.
    """
    try:
        return await link.call(*command)
    except RedisRefused as refusal:
        if refusal.word != "NOSCRIPT":
            raise
    await load_scripts(link, scripts)
    return await link.call(*command)


async def load_scripts(link: Link, scripts: Iterable[Script]) -> None:
    """Give a server the text of the scripts, so that they can be called by their hash. Raises as `answer_of` does."""
    for script in scripts:
        await link.call("SCRIPT", "LOAD", script.text)


def _needs_dialling(answer: object) -> bool:
    return isinstance(answer, RedisRefused) and answer.word in ("READONLY", "NOAUTH", "NOSCRIPT")


def _is_passing(answer: object) -> bool:
    return isinstance(answer, RedisRefused) and answer.word in _PASSING and not answer.elsewhere


def is_wrong_type(refusal: RedisRefused) -> bool:
    """Tell whether a key was not of the type that the command is for; from a script the word is not the first one."""
    return "WRONGTYPE" in refusal.message


def keys_of(command: Command) -> list[str]:
    """Return the keys that a command names: those of a script, or the first argument of any other command."""
    if command[0] not in ("EVALSHA", "EVAL"):
        return [str(command[1])]
    return [str(key) for key in command[3 : 3 + int(command[2])] if key]
