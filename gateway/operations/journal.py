"""Events, audit log and refused log-ins of the cluster: bounded lists in Redis that any node shows.

A node watches its own counters as often as its vital figures are taken, so that a thousand slow readers make
one entry and not a thousand. Nothing is read or written while nothing happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, Literal, Protocol, get_args

import orjson

from gateway.connections.counters import Counters
from gateway.errors import Unavailable
from gateway.operations.journal_store import entry
from gateway.presence.contract import Vital
from gateway.redis.records import Rejections, is_moment

logger = logging.getLogger(__name__)
audit_logger = logging.getLogger("gateway.audit")

Book = Literal["events", "audit", "refusals"]

MOST_WAITING = 100
"""Entries of each book that wait for Redis; past that the oldest is forgotten."""
ENTRY_LENGTH = 64 * 1024
"""Characters of an entry that are read; ours are shorter, a hand may have written others."""
RETRY = 1.0
"""Seconds between two tries while Redis is away."""
DRAINING = "draining"
"""Noted by who drains, for whom no sample may come again, and a state that samples tell."""
_COUNTED = {
    "slow": "closed: read too slowly",
    "rejected": "since the last look",
    "gaps": "lost subscriptions: messages may have been missed",
    "handler_errors": "exceptions of the application's handler",
    "repairs": "repairs of what Redis holds of this node",
}


class Books(Protocol):
    """Where the entries of all nodes are kept."""

    async def record(self, book: str, entry: str) -> None: ...

    async def records(self, book: str, *, limit: int, before: str = "") -> list[tuple[str, str]]: ...


class Journal:
    """Keeps the books of this node."""

    def __init__(self, node: str, books: Books, counters: Counters, rejections: Rejections | None = None) -> None:
        self._node = node
        self._rejections = rejections or Rejections(counters)
        self._books = books
        self._counters = counters
        self._state = "ok"
        self._counted = self._counts()
        self._waiting: dict[Book, deque[str]] = {book: deque(maxlen=MOST_WAITING) for book in get_args(Book)}
        """Of each book its own: what strangers do must not push out what operators did."""
        self._due = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()

    async def run(self) -> None:
        """Write what is noted, in order, until cancelled; while Redis is away it waits."""
        while await self._due.wait():
            try:
                await self._write()
            except Unavailable:
                await asyncio.sleep(RETRY)

    async def _write(self) -> None:
        while waiting := next(filter(lambda item: item[1], self._waiting.items()), None):
            book, entries = waiting
            oldest = entries[0]
            await self._books.record(book, oldest)
            # It stays until Redis has it, so that none is lost, and may have been pushed out meanwhile by a newer one.
            if entries and entries[0] is oldest:
                entries.popleft()
        self._due.clear()
        self._written.set()

    async def flushed(self) -> None:
        """Wait until Redis has everything."""
        await self._written.wait()

    def event(self, kind: str, text: str = "", **details: object) -> None:
        """Note that something happened to this node."""
        if kind == DRAINING:
            self._state = kind  # so that the next sample is no news
        self._note("events", {"kind": kind, "text": text, **details})

    def lost(self, node: str, removed: int) -> None:
        """Note that another node is dead, which this one has cleaned up after; so many connections it had."""
        text = f"its lease ran out; {removed} connections were removed"
        self._note("events", {"kind": "lost", "text": text}, node=node)

    def audit(self, who: str, action: str, target: str, **details: object) -> None:
        """Note what an operator did; logged, too, because whoever reads logs may not read Redis."""
        audit_logger.info("who=%s action=%s target=%s details=%s", *map(ascii, (who, action, target, details)))
        self._note("audit", {"who": who, "action": action, "target": target, "details": details})

    def refusal(self, who: str, text: str) -> None:
        """Note that somebody was not let in to the pages."""
        self._note("refusals", {"who": who, "text": text})

    def sampled(self, vital: Vital) -> None:
        """Note what has changed since the last look."""
        if vital.state != self._state:
            self._state = vital.state
            self.event(vital.state, "; ".join(vital.trouble))
        counts = self._counts()
        for name, count in counts.items():
            if count > self._counted[name]:
                more = count - self._counted[name]
                self.event(name, self._said(name, more), count=more)
        self._counted = counts

    def _said(self, name: str, more: int) -> str:
        said = f"{more} {_COUNTED[name]}"
        return f"{self._counters.rejection} ({said})" if name == "rejected" else said

    async def read(self, book: Book, *, limit: int, before: str = "") -> list[dict[str, Any]]:
        """Read the newest entries of all nodes, newest first; `id` of the last gives the ones before it."""
        found = await self._books.records(book, limit=limit, before=before)
        return [entry for id, line in found if (entry := self._entry(book, id, line)) is not None]

    def _entry(self, book: Book, id: str, line: str) -> dict[str, Any] | None:
        """Read an entry; None for what no node writes."""
        try:
            fields = orjson.loads(line) if len(line) <= ENTRY_LENGTH else None
        except orjson.JSONDecodeError:
            fields = None
        if isinstance(fields, dict) and _is_entry(fields):
            return {"at": 0, "node": "", **fields, "id": id}
        self._rejections.stands(f"the book of {book}", "expected an entry that a node has written", line)
        return None

    def _note(self, book: Book, fields: dict[str, object], *, node: str = "") -> None:
        self._waiting[book].append(entry(node or self._node, **fields))
        self._written.clear()
        self._due.set()

    def _counts(self) -> dict[str, int]:
        return {name: getattr(self._counters, name) for name in _COUNTED}


def _is_entry(fields: dict[str, object]) -> bool:
    texts = all(isinstance(fields.get(name, ""), str) for name in ("node", "kind", "text", "who", "action", "target"))
    return texts and is_moment(fields.get("at", 0)) and isinstance(fields.get("details", {}), dict)
