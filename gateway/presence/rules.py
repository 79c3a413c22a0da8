"""The rules of channels in Redis: whoever publishes without being a node keeps history as nodes do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson
from pydantic import ValidationError

from gateway.backplane.keys import Keys
from gateway.config import Rule
from gateway.presence.store import Store

_FIELDS = {"match", "history", "ttl"}


class Rules:
    """What the nodes are set to, all of them alike. Raises `Unavailable` while Redis is away."""

    def __init__(self, store: Store, keys: Keys, rules: Sequence[Rule] = ()) -> None:
        self._store = store
        self._key = keys.rules
        self._text = orjson.dumps([rule.model_dump(include=_FIELDS) for rule in rules])
        self._has_any = bool(rules)

    async def write(self) -> None:
        """Let the others know the rules of this node."""
        await self._store.ask(self._key, ("SET", self._key, self._text) if self._has_any else ("DEL", self._key))

    async def read(self) -> tuple[Rule, ...]:
        """Return the rules of the node that wrote them last; none when there are none."""
        return tuple(_rules(await self._store.ask(self._key, ("GET", self._key)) or b"[]"))


def _rules(text: bytes) -> Iterator[Rule]:
    """Read rules, leniently: a node of another version may have written them, or a person."""
    try:
        tables = orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    for table in tables if isinstance(tables, list) else ():
        if isinstance(table, dict):
            try:
                yield Rule(**{name: value for name, value in table.items() if name in _FIELDS})
            except ValidationError:
                continue
