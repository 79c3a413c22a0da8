"""Writes to presence's sets, in order, as many as have gathered in one pipeline."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from gateway.backplane.link import Link, LinkLost, RedisRefused

logger = logging.getLogger(__name__)

AT_ONCE = 500
"""Commands in one pipeline: what Redis does without a look at its other clients."""
_PASSING = (
    "LOADING",
    "READONLY",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "MASTERDOWN",
    "BUSY",
    "NOAUTH",
    "NOPERM",
    "NOSCRIPT",
)
"""Refusals that say something of the server and nothing of the command."""


class Script:
    """A Lua script, sent by its hash; Redis is given the text at each new connection."""

    def __init__(self, name: str) -> None:
        self.text = resources.files("gateway.presence").joinpath(f"lua/{name}.lua").read_text()
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], *arguments: str | bytes | int) -> tuple[str | bytes | int, ...]:
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


@dataclass(slots=True)
class Write:
    command: tuple[str | bytes | int, ...]
    read: Callable[[Any], Any]
    done: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


def _as_it_is(answer: object) -> object:
    return answer


class Writer:
    """Sends what is put in, in order.

    What a broken connection left unanswered is sent again: every write may be repeated, because the
    scripts act only on what they change.
    """

    def __init__(self, scripts: Sequence[Script]) -> None:
        self._scripts = scripts
        self._waiting: deque[Write] = deque()
        self._put = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def put(self, *command: str | bytes | int, read: Callable[[Any], Any] = _as_it_is) -> asyncio.Future[Any]:
        """Note a write; the future is what `read` makes of its answer. Nobody need await it."""
        write = Write(command, read)
        self._waiting.append(write)
        self._empty.clear()
        self._put.set()
        return write.done

    async def flushed(self) -> None:
        """Wait until Redis has everything."""
        await self._empty.wait()

    async def use(self, link: Link) -> None:
        """Write over this link until it is lost."""
        for script in self._scripts:
            await link.call("SCRIPT", "LOAD", script.text)
        link.lost.add_done_callback(lambda _: self._put.set())
        while not link.lost.done():
            await self._write_some(link)
            if not self._waiting:
                self._empty.set()
                self._put.clear()
                await self._put.wait()

    async def _write_some(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        writes = [self._waiting[i] for i in range(min(AT_ONCE, len(self._waiting)))]
        answers: list[asyncio.Future[Any]] = [loop.create_future() for _ in writes]
        for write, answer in zip(writes, answers, strict=True):
            link.send(answer, *write.command)
        results = await asyncio.gather(*answers, return_exceptions=True)
        for write, result in zip(writes, results, strict=True):
            if isinstance(result, LinkLost) or _is_passing(result):
                assert isinstance(result, Exception)
                raise result
            self._waiting.popleft()
            _settle(write, result)


def _settle(write: Write, result: object) -> None:
    if isinstance(result, BaseException):
        logger.error("Redis refused %s: %s", write.command[0], result)
        result = None
    answer = write.read(result) if result is not None else None
    if not write.done.done():
        write.done.set_result(answer)


def _is_passing(result: object) -> bool:
    return isinstance(result, RedisRefused) and result.message.startswith(_PASSING)
