"""One page of an ordered list, and the cursor to the next."""

from __future__ import annotations

import base64
from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

import orjson

from gateway.errors import InvalidEnvelope, InvalidParam

T = TypeVar("T")
R = TypeVar("R")
Q = TypeVar("Q", bound="Paged")

MOST_ROWS = 1000
"""Rows on one page at most."""
TEXT_LENGTH = 200
"""Characters in one search word at most."""
SLICE = 1000
"""What is looked at in one go: a few milliseconds at most, while the node has other things to do."""

Key = tuple[int | str, str]
"""What rows are ordered by: the value sorted by, then the id, which no two rows share."""

Sliced = Generator[None, None, R]
"""Work that stops after every slice, and ends with a result."""


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """One page of a list that covers the cluster."""

    items: list[T]
    cursor: str | None
    """Gives the next page; None on the last one. A page that has one may still hold fewer rows than asked for."""
    total: int | None
    """How many there are on all pages; None when that is not known."""
    silent: list[str]
    """Nodes that did not answer in time: what they hold is missing here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paged:
    """A query for one page of ordered rows."""

    limit: int = 100
    after: Key | None = None
    """The key of the last row of the page before."""

    def __post_init__(self) -> None:
        check_limit(self.limit)
        self._check()

    @abstractmethod
    def _check(self) -> None:
        """Raise `InvalidParam` that names the field."""

    @property
    @abstractmethod
    def order(self) -> str:
        """Names what is listed and how it is sorted: a cursor is good for one order only."""

    @property
    @abstractmethod
    def by_number(self) -> bool:
        """Whether what it is sorted by is a number."""

    def behind(self: Q, cursor: str | None) -> Q:
        """Return the query for the page behind a cursor. Raises `InvalidParam`."""
        kind = int if self.by_number else str
        return self if cursor is None else replace(self, after=read_cursor(cursor, self.order, kind))

    def cursor(self, key: Key) -> str:
        """Name a row as the last of a page."""
        return write_cursor(self.order, key)

    def as_map(self) -> dict[str, Any]:
        """Return the fields as one node tells them to another."""
        return asdict(self)

    @classmethod
    def of_map(cls: type[Q], fields: Mapping[str, Any]) -> Q:
        """Read what `as_map` made; raise `InvalidEnvelope` for anything else."""
        try:
            query = cls(**fields)
        except (TypeError, InvalidParam) as error:
            raise InvalidEnvelope(f"expected a query: {error}") from None
        match query.after:
            case None:
                return query
            case [int() | str() as value, str(id)] if isinstance(value, int) is query.by_number:
                return replace(query, after=(value, id))
        raise InvalidEnvelope("expected the key of a row to go on behind")


class Best(Generic[T]):
    """The first rows of a page, behind a cursor's key, among all that is added in any order."""

    def __init__(
        self,
        count: int,
        *,
        value: Callable[[T], int | str],
        id: Callable[[T], str],
        after: Key | None = None,
        descending: bool = False,
    ) -> None:
        self.rows: list[tuple[Key, T]] = []
        self._count = count
        self._value = value
        self._id = id
        self._after = after
        self._descending = descending

    def add(self, items: Collection[T]) -> None:
        """Look at a slice. No two items have the same id."""
        pairs: Iterable[tuple[Any, T]] = zip(map(self._value, items), items, strict=True)
        if len(self.rows) == self._count:
            pairs = self._before(self.rows[-1][0], pairs)
        if self._after is not None:
            pairs = self._behind(self._after, pairs)
        rows = [((value, self._id(item)), item) for value, item in pairs]
        if rows:
            self.rows = sorted(self.rows + rows, key=_key, reverse=self._descending)[: self._count]

    # Most items are no candidates, and this is done for each: written out, because a call of a function for each
    # would take longer than all the rest.

    def _before(self, key: Key, pairs: Iterable[tuple[Any, T]]) -> list[tuple[Any, T]]:
        (least, last), id = key, self._id
        if self._descending:
            return [pair for pair in pairs if pair[0] > least or (pair[0] == least and id(pair[1]) > last)]
        return [pair for pair in pairs if pair[0] < least or (pair[0] == least and id(pair[1]) < last)]

    def _behind(self, key: Key, pairs: Iterable[tuple[Any, T]]) -> list[tuple[Any, T]]:
        (most, first), id = key, self._id
        if self._descending:
            return [pair for pair in pairs if pair[0] < most or (pair[0] == most and id(pair[1]) < first)]
        return [pair for pair in pairs if pair[0] > most or (pair[0] == most and id(pair[1]) > first)]


def _key(row: tuple[Key, object]) -> Key:
    return row[0]


def slices(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield all in slices."""
    return (items[start : start + SLICE] for start in range(0, len(items), SLICE))


def write_cursor(order: str, key: Key) -> str:
    """Name the last row of a page in an order, in letters that need no escaping in a URL."""
    return base64.urlsafe_b64encode(orjson.dumps((order, *key))).rstrip(b"=").decode()


def read_cursor(cursor: str, order: str, kind: type) -> Key:
    """Return the key in a cursor of this order, whose value is of this kind; raise `InvalidParam`."""
    try:
        fields = orjson.loads(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
    except ValueError:
        fields = None
    match fields:
        case [str(written), int() | str() as value, str(id)] if written == order and type(value) is kind:
            return value, id
    raise InvalidParam("expected the cursor of a page with the same sort", field="cursor")


def check_text(field: str, text: str) -> None:
    """Raise `InvalidParam` for a search word that is too long, or none."""
    if not isinstance(text, str):
        raise InvalidParam(f"expected {field} to be text", field=field)
    if len(text) > TEXT_LENGTH:
        raise InvalidParam(f"expected {field} to have at most {TEXT_LENGTH} characters, got {len(text)}", field=field)


def check_limit(limit: int) -> None:
    """Raise `InvalidParam` for a page that is empty or too large."""
    if type(limit) is not int or not 0 < limit <= MOST_ROWS:
        raise InvalidParam(f"expected limit to be an integer from 1 to {MOST_ROWS}", field="limit")


def check_choice(field: str, value: object, choices: Sequence[object]) -> None:
    """Raise `InvalidParam` for what is not one of the choices."""
    if value not in choices:
        raise InvalidParam(f"expected {field} to be one of {', '.join(map(str, choices))}", field=field)
