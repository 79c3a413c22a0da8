"""The rules of channels as nodes write them to Redis, by which publishers that are no nodes keep history as well."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from pydantic import ValidationError

from gateway.config import Rule
from gateway.redis.keys import Keys
from gateway.redis.records import Rejections, is_moment, objects_in
from gateway.redis.store import Store, looked

MOST = 1000
"""Rules that are read, at most."""
_FIELDS = {"match", "history", "ttl"}


class Rules:
    """The rules that the nodes go by, all of them the same. Everything raises `Unavailable` while Redis is away."""

    def __init__(self, store: Store, keys: Keys, rejections: Rejections, rules: Sequence[Rule] = ()) -> None:
        self._store = store
        self._key = keys.rules
        self._rejections = rejections
        self._text = orjson.dumps([rule.model_dump(include=_FIELDS) for rule in rules])
        self._has_any = bool(rules)

    async def write(self) -> None:
        """Let others know the rules of this node; whichever node registers last is believed."""
        await self._store.ask(self._key, ("SET", self._key, self._text) if self._has_any else ("DEL", self._key))

    async def read(self) -> tuple[Rule, ...]:
        """Return the rules of the node that wrote them last, less those that no node can have written."""
        return tuple(rule for table in await self._tables() or () if (rule := self._rule(table)) is not None)

    async def mend(self) -> None:
        """Write them again if what stands there is not a list of rules."""
        if await self._tables() is None:
            await self.write()

    async def _tables(self) -> list[dict[str, object]] | None:
        text = await looked(self._store, self._key, ("GET", self._key), b"", self._rejections)
        return objects_in(self._key, b"[]" if text is None else text, self._rejections, most=MOST)

    def _rule(self, table: dict[str, object]) -> Rule | None:
        """Read a rule, without what a node of another version may have added; None for what is none."""
        try:
            rule = Rule.model_validate({name: value for name, value in table.items() if name in _FIELDS})
        except ValidationError:
            rule = None
        if rule is None or not (is_moment(rule.history) and is_moment(rule.ttl)):
            self._rejections.stands(self._key, "expected rules of channels", str(table))
            return None
        return rule
