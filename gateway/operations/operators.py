"""What an operator sees and does beside a service's own verbs, from any node for all: figures, logs, taps, drain."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from gateway.backplane import Backplane
from gateway.backplane.questions import Questions
from gateway.errors import InvalidEnvelope, InvalidParam, Unavailable
from gateway.operations.journal import Book, Journal
from gateway.operations.observers import Observers
from gateway.operations.revocations import Revocations
from gateway.operations.silent_nodes import Condition, conditions_of
from gateway.operations.taps import Taps
from gateway.operations.vitals import SERIES, Sample, Vitals, of_cluster
from gateway.presence import Listing
from gateway.redis.records import DIGITS, is_moment

QUESTIONS = frozenset({"series", "rates", "state", "drain", "log-out"})
"""What nodes ask each other about themselves."""
WITHIN = 2.0
"""Seconds a node has to answer what a page asks: one that is only busy does, and people wait for the others."""


class Series(NamedTuple):
    """Samples of several nodes put together."""

    samples: list[dict[str, float]]
    """Oldest first."""
    silent: list[str]
    """Nodes that did not tell theirs in time."""


class Operations:
    """Asks all nodes, and answers when they ask."""

    def __init__(
        self,
        backplane: Backplane,
        questions: Questions,
        presence: Listing,
        vitals: Vitals,
        journal: Journal,
        revocations: Revocations,
        taps: Taps,
    ) -> None:
        self._backplane = backplane
        self._questions = questions
        self._presence = presence
        self._vitals = vitals
        self._journal = journal
        self._taps = taps
        self.revocations = revocations
        """Which sessions of operators are over."""
        self.observers = Observers(backplane, taps)

    # ---- figures and books

    async def series(self, *, node: str = "", since: int = 0) -> Series:
        """Return the samples of the last minutes, of one node or of all together.

        `since` is the number of a sample: only later ones. What a node does not tell in time is missing.
        """
        nodes = [node] if node else [known.id for known in await self._presence.nodes()]
        heard = await self._questions.ask_all(nodes, "series", within=WITHIN, since=since)
        return Series(of_cluster(map(_samples, heard.answers.values()), since=since), heard.silent)

    @property
    def in_vain(self) -> float:
        """Seconds that this node has waited in all for other nodes that did not answer."""
        return self._questions.in_vain

    async def node_ids(self) -> list[str]:
        """Return the ids in the set of nodes: those without a lease, too. Raises `Unavailable`."""
        return await self._presence.node_ids()

    async def conditions(self, nodes: Iterable[str]) -> dict[str, Condition]:
        """Tell how nodes are that have no lease."""
        return await conditions_of(self._questions, nodes)

    @property
    def notices(self) -> list[str]:
        """What operators should know of this node's Redis, and is no trouble yet."""
        return [notice for notice in self._backplane.troubles.notices.values() if notice]

    def announce(self) -> None:
        """Log what operators should know of this node's Redis from the start."""
        self._backplane.troubles.announce()

    async def rates(self, channels: Sequence[str]) -> dict[str, float]:
        """Return messages a second of channels, as far as they have any: of the last seconds, or 0 at the first ask.

        Nodes count while they are asked, what reaches them: where there are members on several, each counts all.
        """
        nodes = [known.id for known in await self._presence.nodes()]
        heard = await self._questions.ask_all(nodes, "rates", within=WITHIN, channels=list(channels))
        rates: dict[str, float] = {}
        for answer in heard.answers.values():
            for name, rate in answer.items() if isinstance(answer, dict) else ():
                if isinstance(name, str) and _is_figure(rate):
                    rates[name] = max(rate, rates.get(name, 0.0))
        return rates

    async def read(self, book: Book, *, limit: int = 50, before: str = "") -> list[dict[str, Any]]:
        """Read the newest entries of the events or of the audit, newest first. Raises `Unavailable`."""
        return await self._journal.read(book, limit=limit, before=before)

    def audit(self, who: str, action: str, target: str, **details: object) -> None:
        """Note what an operator did, and to whom: in the log, and in the audit that any node shows."""
        self._journal.audit(who, action, target, **details)

    async def drain(self, node: str) -> None:
        """Have a node stop as SIGTERM does. Raises `InvalidParam` when it does not answer."""
        heard = await self._questions.ask_all([node], "drain", within=WITHIN, patient=True)
        if heard.silent:
            raise InvalidParam(f"no node {node!r} answers", field="node")

    def refusal(self, who: str, text: str) -> None:
        """Note that somebody was not let in to the pages, apart from what operators did."""
        self._journal.refusal(who, text)

    async def end_session(self, session: str, seconds: int) -> None:
        """End an operator's session on all nodes, open pages included: those that are cut off hear of it later."""
        await self.revocations.end(session, seconds)
        with suppress(Unavailable):
            nodes = [known.id for known in await self._presence.nodes()]
            await self._questions.ask_all(nodes, "log-out", within=WITHIN, session=session)

    # ---- what other nodes ask

    async def answer(self, verb: str, arguments: dict[str, Any]) -> object:
        """Do what a node was asked about itself. Raises `InvalidEnvelope` for what it does not know."""
        match verb, arguments:
            case "series", {"since": int(since)}:
                return self._vitals.since(since)
            case "rates", {"channels": [*channels]} if all(isinstance(name, str) for name in channels):
                return self._taps.rates.of(channels, asyncio.get_running_loop().time())
            case "state", _:
                return {"trouble": list(self._vitals.current().trouble)}
            case "log-out", {"session": str(session)}:
                self.revocations.heard(session[:100])
                return None
            case "drain", _:
                asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)  # the answer first
                return None
        raise InvalidEnvelope(f"expected a question, got {verb} with other arguments")


def _samples(answer: Any) -> list[Sample]:
    """Read what a node told; what is no sample is left out."""
    return [(sample[0], tuple(sample[1])) for sample in answer if _is_sample(sample)] if _is_list(answer) else []


def _is_sample(sample: object) -> bool:
    match sample:
        case [number, [*values]]:
            return is_moment(number) and len(values) <= len(SERIES) and all(map(_is_figure, values))
    return False


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _is_figure(value: object) -> bool:
    """Tell whether this may be drawn and added up."""
    return isinstance(value, int | float) and abs(value) < 10**DIGITS  # NaN is not
