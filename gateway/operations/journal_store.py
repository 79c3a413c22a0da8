"""Where the cluster keeps its journal (a capped stream in Redis for each book) and what was revoked."""

from __future__ import annotations

import json
import time
from collections import deque
from itertools import count
from typing import Protocol

from gateway.redis.links import Links
from gateway.redis.records import Rejections, entries_in
from gateway.redis.signing import EntrySigning
from gateway.redis.store import RefusedCommand, looked

KEPT = {"events": 500, "audit": 10_000, "refusals": 500}
"""Who is refused is no operator, and has a book that holds nothing else: what operators did is not washed away."""


def entry(node: str, **fields: object) -> str:
    """Write an entry about a node, with the time."""
    now = time.time_ns() // 1_000_000
    return json.dumps({"at": now, "node": node, **fields}, ensure_ascii=True, default=str)


class JournalStore(Protocol):
    """Where all nodes find what any of them has noted."""

    async def record(self, book: str, entry: str) -> None:
        """Add an entry to one of the books, of which only the newest are kept."""

    async def records(self, book: str, *, limit: int, before: str = "") -> list[tuple[str, str]]:
        """Read the newest entries, or those before an id, with their ids, newest first."""

    async def revoke(self, id: str, seconds: int) -> bool:
        """Keep for so long that something is over; tell whether that is news."""

    async def is_revoked(self, id: str) -> bool: ...


def open_journal_store(links: Links | None, rejections: Rejections, *, secret: str = "") -> JournalStore:
    """Make the store over these links, or that of a node that is alone.

    `rejections` hears of entries that are none of ours, as those without the signature of the cluster's `secret`.
    """
    return MemoryJournalStore() if links is None else RedisJournalStore(links, rejections, secret)


class RedisJournalStore:
    """Books in Redis, over the store that presence keeps connected. Raises `Unavailable`.

    Where the cluster has a secret each entry is signed, and what is not is dropped: an entry that anybody can write
    proves nothing.
    """

    def __init__(self, links: Links, rejections: Rejections, secret: str = "") -> None:
        self._store = links.store
        self._keys = links.keys
        self._rejections = rejections
        self._signing = EntrySigning(secret)

    async def record(self, book: str, entry: str) -> None:
        key, signature = self._keys.book(book), self._signing.sign(book, entry)
        signed = ("signature", signature) if signature else ()
        command = ("XADD", key, "MAXLEN", "~", KEPT[book], "*", "entry", entry, *signed)
        try:
            await self._store.ask(key, command)
        except RefusedCommand as error:
            if "ID" not in str(error):
                raise
            # A hand has added an entry with the highest id there is, behind which none fits.
            await self._store.ask(key, ("DEL", key))
            await self._store.ask(key, command)

    async def records(self, book: str, *, limit: int, before: str = "") -> list[tuple[str, str]]:
        key = self._keys.book(book)
        end = f"({before}" if before else "+"
        found = await looked(self._store, key, ("XREVRANGE", key, end, "-", "COUNT", limit), [], self._rejections)
        entries: list[tuple[str, str]] = []
        for id, fields in entries_in(found):
            written = fields.get(b"entry", b"")
            if self._signing.is_right(book, written, fields.get(b"signature", b"")):
                entries.append((id.decode(), written.decode(errors="replace")))
            else:
                self._rejections.stands(key, "expected an entry signed with this cluster's cluster_secret", written)
        return entries

    async def revoke(self, id: str, seconds: int) -> bool:
        key = self._keys.revoked(id)
        return await self._store.ask(key, ("SET", key, 1, "NX", "EX", seconds)) is not None

    async def is_revoked(self, id: str) -> bool:
        key = self._keys.revoked(id)
        return bool(await self._store.ask(key, ("EXISTS", key)))


class MemoryJournalStore:
    """The same of a node that is alone."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._books: dict[str, deque[tuple[int, str]]] = {name: deque(maxlen=kept) for name, kept in KEPT.items()}
        self._revoked: dict[str, float] = {}
        """Until when each would have held."""

    async def record(self, book: str, entry: str) -> None:
        self._books[book].append((next(self._numbers), entry))

    async def records(self, book: str, *, limit: int, before: str = "") -> list[tuple[str, str]]:
        end = int(before) if before.isdigit() else None
        found = [(str(id), entry) for id, entry in reversed(self._books[book]) if end is None or id < end]
        return found[:limit]

    async def revoke(self, id: str, seconds: int) -> bool:
        now = time.time()
        self._revoked = {id: until for id, until in self._revoked.items() if until > now}
        is_first = id not in self._revoked
        self._revoked.setdefault(id, now + seconds)
        return is_first

    async def is_revoked(self, id: str) -> bool:
        return self._revoked.get(id, 0) > time.time()
