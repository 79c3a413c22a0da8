"""Finds connections: filter and sort on each node, merge on the node that was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import orjson

from gateway.connections.connection import Connection, ConnectionInfo
from gateway.connections.hub import Hub
from gateway.errors import InvalidEnvelope
from gateway.operations.search.page import Best, Key, Listed, Paged, Sliced, check_choice, check_text, slices

ConnectionSort = Literal["started", "id", "user", "name", "remote", "node", "channels"]
SORTS: tuple[ConnectionSort, ...] = get_args(ConnectionSort)
Test = Callable[[Connection], bool]


@dataclass(frozen=True, slots=True)
class ConnectionQuery(Paged):
    """What to look for among connections, and which page of it. An empty string does not filter.

    `user`, `channel` and `node` are exact. `id`, `name` and `remote` are found anywhere inside, `text` anywhere
    inside id, user, name or address; upper and lower case are the same there. `sort` by "channels" is by their
    number. Raises `InvalidParam` that names the field.
    """

    text: str = ""
    id: str = ""
    user: str = ""
    name: str = ""
    remote: str = ""
    channel: str = ""
    node: str = ""
    sort: ConnectionSort = "started"
    descending: bool = False

    def _check(self) -> None:
        check_choice("sort", self.sort, SORTS)
        check_choice("descending", self.descending, (False, True))
        for field in ("text", "id", "user", "name", "remote", "channel", "node"):
            check_text(field, getattr(self, field))

    @property
    def order(self) -> str:
        return f"connections by {self.sort}{' descending' if self.descending else ''}"

    @property
    def by_number(self) -> bool:
        return self.sort in ("started", "channels")


class Row(NamedTuple):
    """One connection with the value it is sorted by."""

    value: int | str
    connection: ConnectionInfo

    @property
    def key(self) -> Key:
        return self.value, self.connection.id


# ---- on the node that holds the connections


def find(hub: Hub, query: ConnectionQuery, most_bytes: int) -> Sliced[dict[str, object]]:
    """Go through a node's connections; end with what `merge` reads, of about so many bytes at most."""
    tests, value, matched = _tests(query), _VALUES[query.sort], 0
    best = Best(query.limit + 1, value=value, id=_id, after=query.after, descending=query.descending)
    for connections in slices(_candidates(hub, query)):
        for test in tests:
            connections = list(filter(test, connections))
        matched += len(connections)
        best.add(connections)
        yield
    return _answer(best.rows, matched, most_bytes)


def _answer(found: Sequence[tuple[Key, Connection]], matched: int, most_bytes: int) -> dict[str, object]:
    """Say what was found, as one node tells it to another: as many rows as fit, but at least one."""
    rows: list[tuple[object, ...]] = []
    for (value, _), connection in found:
        row = (value, *connection.info())
        most_bytes -= len(orjson.dumps(row))
        if rows and most_bytes < 0:
            break
        rows.append(row)
    return {"rows": rows, "matched": matched, "cut": len(rows) < len(found)}


def _candidates(hub: Hub, query: ConnectionQuery) -> list[Connection]:
    """Return those of a node that a query may be about, by the hub's own index where there is one."""
    if query.user:
        anonymous = hub.connections.get(query.user)
        found = list(dict.fromkeys((*hub.of_user(query.user), *([anonymous] if anonymous else ()))))
    else:
        found = list(hub.members(query.channel) if query.channel else hub.connections.values())
    if query.descending:  # they stand in the order they came, and the newest are asked for most
        found.reverse()
    return found


_VALUES: dict[ConnectionSort, Callable[[Connection], int | str]] = {
    "started": lambda connection: connection.started,
    "id": lambda connection: connection.id,
    "user": lambda connection: connection.profile.id or connection.id,
    "name": lambda connection: connection.profile.name.casefold(),
    "remote": lambda connection: connection.remote,
    "node": lambda connection: connection.node,
    "channels": lambda connection: len(connection.channels),
}


def _id(connection: Connection) -> str:
    return connection.id


def _tests(query: ConnectionQuery) -> list[Test]:
    """Make the tests that a connection must pass, the cheap ones first."""
    text, id, name, remote = (part.casefold() for part in (query.text, query.id, query.name, query.remote))
    made: list[tuple[str, Test]] = [
        (query.node, lambda connection: connection.node == query.node),
        (query.channel, lambda connection: query.channel in connection.channels),
        (id, lambda connection: id in connection.id.casefold()),
        (name, lambda connection: name in connection.profile.name.casefold()),
        (remote, lambda connection: remote in connection.remote.casefold()),
        (text, lambda connection: text in _text_of(connection)),
    ]
    return [test for word, test in made if word]


def _text_of(connection: Connection) -> str:
    profile = connection.profile
    return f"{connection.id}\n{profile.id}\n{profile.name}\n{connection.remote}".casefold()


# ---- on the node that asked


def merge(
    answers: Mapping[str, object], query: ConnectionQuery, silent: Iterable[str] = ()
) -> Sliced[Listed[ConnectionInfo]]:
    """Make one page of the nodes' answers, one after the other. A node whose answer is none counts as silent."""
    rows, matched, ends, mute = list[Row](), 0, list[Key](), list(silent)
    for node, answer in answers.items():
        try:
            found, count, cut = _read(answer)
        except InvalidEnvelope:
            mute.append(node)
            continue
        rows += found
        matched += count
        if cut and found:
            ends.append(found[-1].key)
        yield
    page, cursor = _page(rows, ends, query)
    return Listed([row.connection for row in page], cursor, matched, sorted(mute))


def _page(rows: list[Row], ends: list[Key], query: ConnectionQuery) -> tuple[list[Row], str | None]:
    """Cut a page. Of a node whose answer did not fit nothing is known behind its end: the page ends there, too."""
    rows.sort(key=lambda row: row.key, reverse=query.descending)
    ordered = rows[: query.limit + 1]
    page = ordered[: query.limit]
    if ends:
        end = max(ends) if query.descending else min(ends)
        page = [row for row in page if (row.key >= end if query.descending else row.key <= end)]
    return page, query.cursor(page[-1].key) if ends or len(page) < len(ordered) else None


def _read(answer: object) -> tuple[list[Row], int, bool]:
    match answer:
        case {"rows": [*rows], "matched": int(matched), "cut": bool(cut)}:
            return [_row(row) for row in rows], matched, cut
    raise InvalidEnvelope("expected rows")


def _row(row: object) -> Row:
    match row:
        case [int() | str() as value, *fields]:
            return Row(value, read_info(fields))
    raise InvalidEnvelope("expected a connection")


def read_info(fields: Sequence[object]) -> ConnectionInfo:
    """Read what another node knows of a connection; raise `InvalidEnvelope`."""
    match fields:
        case [str(id), str(node), str(user), str(name), [*channels], int(started), str(remote)]:
            return ConnectionInfo(id, node, user, name, tuple(map(str, channels)), started, remote)
    raise InvalidEnvelope("expected a connection")
