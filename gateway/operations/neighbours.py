"""Detects another cluster with the same prefix in the same Redis, whose messages would cross over to ours.

Each node says on the topic of all nodes, now and then, which database it writes to: its number, and a word that lies
there. One that hears another word answers at once, so that both sides know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from gateway.backplane import NODES, Backplane
from gateway.errors import InvalidEnvelope, Unavailable
from gateway.presence import Presence
from gateway.protocol.envelope import pack_map
from gateway.protocol.message import is_name
from gateway.redis.records import is_moment

logger = logging.getLogger(__name__)

PERIOD = 60.0
"""Seconds between two greetings: it is a mistake in a configuration, which is there for hours."""
LAPSE = 2.5 * PERIOD
"""Seconds after which a neighbour that is not heard any more is forgotten: it may miss one greeting."""
SOON = 5.0
"""Seconds between two answers to strangers at least: each answer is a greeting that may be answered in turn."""
ENOUGH = 2
"""Greetings after which a neighbour is sure."""
MOST = 100
"""Neighbours that are remembered: anybody may publish greetings."""
WORD_LENGTH = 64
"""Characters of a word that are taken; ours are shorter."""


@dataclass(slots=True)
class _Neighbour:
    node: str
    database: int
    at: float
    """When it was heard last."""
    times: int = 1
    is_sure: bool = False
    """Whether it was heard again since our own word was looked at: Redis may lose its data, and all words with it."""


class Neighbours:
    """Greets, and hears the greetings of others."""

    def __init__(self, node: str, prefix: str, database: int, backplane: Backplane, presence: Presence) -> None:
        self._node = node
        self._prefix = prefix
        self._database = database
        self._backplane = backplane
        self._presence = presence
        self._word = ""
        self._heard: dict[str, _Neighbour] = {}
        """By word."""
        self._strange = asyncio.Event()
        self._warned: set[int] = set()

    async def run(self) -> None:
        """Greet until cancelled, and look again at what is ours when a strange greeting came."""
        while True:
            self._strange.clear()
            with suppress(Unavailable):
                await self._greet()
            await asyncio.sleep(SOON)
            with suppress(TimeoutError):
                async with asyncio.timeout(PERIOD - SOON):
                    await self._strange.wait()

    async def _greet(self) -> None:
        self._word = await self._presence.database()
        if not self._word:
            return
        self._heard.pop(self._word, None)  # Redis had lost its data, and another node has found a new word first
        greeting = {"greets": self._node, "database": self._database, "word": self._word}
        await self._backplane.publish(NODES, pack_map(greeting))
        for neighbour in self._heard.values():
            neighbour.is_sure = neighbour.times >= ENOUGH
            if neighbour.is_sure and neighbour.database not in self._warned:
                self._warned.add(neighbour.database)
                logger.warning("%s", self._said(neighbour))

    def heard(self, fields: Mapping[str, object]) -> None:
        """Take a greeting. Raises `InvalidEnvelope`."""
        match fields:
            case {"greets": str(node), "database": int(number), "word": str(word)} if is_name(node) and is_moment(
                number
            ):
                if self._word and word != self._word and 0 < len(word) <= WORD_LENGTH:
                    self._note(word, node, number)
            case _:
                raise InvalidEnvelope("expected a greeting")

    def _note(self, word: str, node: str, database: int) -> None:
        now, known = asyncio.get_running_loop().time(), self._heard.get(word)
        if known is not None:
            known.at, known.times = now, known.times + 1
        elif len(self._heard) < MOST:
            known = self._heard[word] = _Neighbour(node, database, now)
        if known is not None and known.times <= ENOUGH:
            self._strange.set()

    @property
    def trouble(self) -> list[str]:
        """Say that there are neighbours, in short lines for people."""
        oldest = asyncio.get_running_loop().time() - LAPSE
        for word in [word for word, neighbour in self._heard.items() if neighbour.at < oldest]:
            del self._heard[word]
        return [self._said(neighbour) for neighbour in self._heard.values() if neighbour.is_sure]

    def _said(self, other: _Neighbour) -> str:
        return (
            f"prefix {self._prefix!r} is used in database {other.database} (node {other.node}) and in database "
            f"{self._database}: messages cross over, since topics know no databases; give one of them another prefix"
        )
