"""Lists channels and users by name."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from gateway.connections.hub import Hub
from gateway.errors import InvalidEnvelope
from gateway.operations.search.page import Best, Key, Paged, Sliced, check_choice, check_text, slices

Kind = Literal["channels", "users"]
NameSort = Literal["name", "size"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NAME_SORTS: tuple[NameSort, ...] = get_args(NameSort)

RANKED = 1000
"""Names on all pages sorted by size: each node tells so many of its largest, which the asker adds up."""


@dataclass(frozen=True, slots=True)
class NameQuery(Paged):
    """Which channels or users to list: those whose name begins so, by name, or the largest first.

    The size of a channel is its number of members, that of a user the number of connections. Sorted by size
    only the largest 1,000 are listed. Raises `InvalidParam` that names the field.
    """

    kind: Kind
    prefix: str = ""
    sort: NameSort = "name"

    def _check(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_choice("sort", self.sort, NAME_SORTS)
        check_text("prefix", self.prefix)

    @property
    def order(self) -> str:
        return f"{self.kind} by {self.sort}"

    @property
    def by_number(self) -> bool:
        return self.sort == "size"


NUMBER_BYTES = 16
"""Counted for the size of each row, and for what packs it."""


class Name(NamedTuple):
    """A channel or user, and how large it is on the nodes that answered."""

    name: str
    size: int
    label: str = ""
    """Of a user: a display name that one of their connections has."""


# ---- on the node that holds them


def find_names(hub: Hub, query: NameQuery, most_bytes: int) -> Sliced[dict[str, object]]:
    """Go through what a node holds; end with what `merge_names` reads, of about so many bytes at most."""
    held = list(hub.channels if query.kind == "channels" else hub.users)
    members = hub.members if query.kind == "channels" else hub.of_user
    if query.sort == "size":
        best = Best[str](RANKED, value=lambda name: -len(members(name)), id=str)
    else:
        best = Best[str](query.limit + 1, value=str, id=str, after=query.after)
    matched = 0
    for names in slices(held):
        found = [name for name in names if name.startswith(query.prefix)]
        matched += len(found)
        best.add(found)
        yield
    return _answer([_describe(hub, query.kind, name) for _, name in best.rows], matched, most_bytes)


def _describe(hub: Hub, kind: Kind, name: str) -> Name:
    if kind == "channels":
        return Name(name, len(hub.members(name)))
    tabs = hub.of_user(name)
    return Name(name, len(tabs), next((tab.profile.name for tab in tabs), ""))


def _answer(found: list[Name], matched: int, most_bytes: int) -> dict[str, object]:
    """Say what was found, as one node tells it to another: as many names as fit, but at least one."""
    names: list[Name] = []
    for name in found:
        most_bytes -= len(name.name.encode()) + len(name.label.encode()) + NUMBER_BYTES
        if names and most_bytes < 0:
            break
        names.append(name)
    return {"names": names, "matched": matched, "cut": len(names) < len(found)}


# ---- on the node that asked


class Names(NamedTuple):
    """One page of names, before anybody has counted exactly."""

    names: list[Name]
    cursor: str | None
    total: int | None
    silent: list[str]


def merge_names(answers: Mapping[str, object], query: NameQuery, silent: Iterable[str] = ()) -> Sliced[Names]:
    """Make one page of the nodes' answers, one after the other. A node whose answer is none counts as silent."""
    sizes, labels, ends, totals, mute = Counter[str](), dict[str, str](), list[str](), list[int](), list(silent)
    for node, answer in answers.items():
        try:
            found, matched, cut = _read(answer)
        except InvalidEnvelope:
            mute.append(node)
            continue
        for name in found:
            sizes[name.name] += name.size
            labels.setdefault(name.name, name.label)
        totals.append(matched)
        if cut and query.sort == "name":
            ends.append(found[-1].name)
        yield
    if query.sort == "size":
        keys: list[Key] = heapq.nsmallest(RANKED, ((-size, name) for name, size in sizes.items()))
    else:
        keys = [(name, name) for name in sorted(sizes)]
    page, cursor = _page(keys, ends, query)
    everything = query.after is None and cursor is None and query.sort == "name"
    names = [Name(name, sizes[name], labels[name]) for _, name in page]
    return Names(names, cursor, len(page) if everything else _only(totals), sorted(mute))


def _only(totals: Sequence[int]) -> int | None:
    """Return the one total there is: those of several nodes overlap, nobody knows how far."""
    counted = [total for total in totals if total]
    return counted[0] if len(counted) == 1 else (None if counted else 0)


def _page(keys: list[Key], ends: list[str], query: NameQuery) -> tuple[list[Key], str | None]:
    behind = [key for key in keys if query.after is None or key > query.after]
    ordered = behind[: query.limit + 1]
    page = [key for key in ordered[: query.limit] if not ends or key[1] <= min(ends)]
    more = bool(ends) or len(page) < len(ordered)
    return page, query.cursor(page[-1]) if more else None


def _read(answer: object) -> tuple[list[Name], int, bool]:
    match answer:
        case {"names": [*names], "matched": int(matched), "cut": bool(cut)}:
            return [_name(name) for name in names], matched, cut
    raise InvalidEnvelope("expected names")


def _name(row: Any) -> Name:
    # Up to 1,000 from each node: a pattern to match would take twice the time.
    if isinstance(row, list | tuple) and [*map(type, row)] == _ROW:
        return Name._make(row)
    raise InvalidEnvelope("expected a name")


_ROW = [str, int, str]
