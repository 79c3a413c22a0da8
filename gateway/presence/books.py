"""The cluster's books, of which only the newest entries are kept: one stream each; and what is over before its time."""

from __future__ import annotations

import json
import time
from collections import deque
from itertools import count

from gateway.backplane.keys import Keys
from gateway.backplane.store import RefusedCommand, Store, looked
from gateway.redis.records import Rejections, entries_in
from gateway.redis.signing import EntrySigning

KEPT = {"events": 500, "audit": 10_000, "refusals": 500}
"""Who is refused is no operator, and has a book that holds nothing else: what operators did is not washed away."""


def entry(node: str, **fields: object) -> str:
    """Write an entry about a node, with the time."""
    now = time.time_ns() // 1_000_000
    return json.dumps({"at": now, "node": node, **fields}, ensure_ascii=True, default=str)


class Books:
    """Books in Redis. Raises `Unavailable`.

    Where the cluster has a secret each entry is signed, and what is not is dropped: an entry that anybody can write
    proves nothing.
    """

    def __init__(self, store: Store, keys: Keys, rejections: Rejections, secret: str = "") -> None:
        self._store = store
        self._keys = keys
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


class MemoryBooks:
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
