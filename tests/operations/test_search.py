"""Lists of connections, channels and users: filter, sort, page; over one node, over many, and at 100,000."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.application.service import Handler
from gateway.connections.connection import Connection, ConnectionInfo, Profile
from gateway.connections.hub import Hub
from gateway.errors import ConnectionNotFound, InvalidChannel, InvalidParam
from gateway.operations.search import ConnectionQuery, ConnectionSort, Listed, NameQuery, NameSort, Sliced
from gateway.operations.search.connections import SORTS, find, merge
from gateway.operations.search.names import KINDS, NAME_SORTS, find_names, merge_names
from gateway.operations.search.page import SLICE
from gateway.protocol.message import make_id
from tests.harness.client import Clients
from tests.harness.directory import open_directory
from tests.harness.embedded import EmbeddedCluster
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually
from tests.harness.wire import Wires

R = TypeVar("R")
Hubs = dict[str, Hub]

MANY = 100_000
ENOUGH_BYTES = 1 << 20


def done(work: Sliced[R]) -> R:
    """Do sliced work in one go."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: R = end.value
            return result


def add(hub: Hub, node: str, unique: str, *channels: str, user: str = "", **known: Any) -> Connection:
    """Put a connection without a socket into a hub."""
    profile = Profile(user, known.pop("name", ""))
    connection = Connection(make_id(node, unique), profile, Handler(), **known)
    hub.add(connection)
    for channel in channels:
        hub.join(connection, channel)
    return connection


def page_of(hubs: Hubs, query: ConnectionQuery, most_bytes: int = ENOUGH_BYTES) -> Listed[ConnectionInfo]:
    """Ask the hubs as a directory asks their nodes, over the wire's own form."""
    sent = query.as_map()
    answers = {node: done(find(hub, ConnectionQuery.of_map(sent), most_bytes)) for node, hub in hubs.items()}
    return done(merge(answers, query))


def all_pages(
    hubs: Hubs, query: ConnectionQuery, most_bytes: int = ENOUGH_BYTES, between: Callable[[], None] | None = None
) -> list[ConnectionInfo]:
    """Follow the cursors to the end."""
    found, cursor = list[ConnectionInfo](), None
    while True:
        page = page_of(hubs, query.behind(cursor), most_bytes)
        assert len(page.items) <= query.limit
        assert page.items or page.cursor is None, "a page with a cursor has at least one row"
        found += page.items
        cursor = page.cursor
        if cursor is None:
            return found
        if between is not None:
            between()


def ids(found: Sequence[ConnectionInfo]) -> list[str]:
    return [info.id.partition("~")[2] for info in found]


def one_hub() -> Hubs:
    """Four connections: Ada twice, Bob, and somebody anonymous called Zoë."""
    hub = Hub()
    add(hub, "a", "1", "lobby", "news", user="ada", name="Ada L.", started=30, remote="192.0.2.1")
    add(hub, "a", "2", "lobby", user="bob", name="Bob", started=10, remote="192.0.2.22")
    add(hub, "a", "3", user="ada", name="Ada L.", started=20, remote="2001:db8::1")
    add(hub, "a", "4", "news", name="ZOË", started=20, remote="192.0.2.1")
    return {"a": hub}


class TestConnections:
    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({}, ["2", "3", "4", "1"]),
            ({"user": "ada"}, ["3", "1"]),
            ({"user": "a~4"}, ["4"]),
            ({"user": "ad"}, []),
            ({"channel": "lobby"}, ["2", "1"]),
            ({"channel": "lobb"}, []),
            ({"user": "ada", "channel": "news"}, ["1"]),
            ({"node": "a"}, ["2", "3", "4", "1"]),
            ({"node": "b"}, []),
            ({"id": "A~3"}, ["3"]),
            ({"name": "zoë"}, ["4"]),
            ({"name": "ada l"}, ["3", "1"]),
            ({"remote": "192.0.2.1"}, ["4", "1"]),
            ({"remote": "DB8"}, ["3"]),
            ({"text": "BOB"}, ["2"]),
            ({"text": "192.0.2.2"}, ["2"]),
            ({"text": "~4"}, ["4"]),
            ({"text": "lobby"}, []),
            ({"text": "ada", "channel": "news", "remote": "192"}, ["1"]),
        ],
    )
    def test_filters_are_exact_or_found_anywhere(self, filters: dict[str, Any], expected: list[str]) -> None:
        """User, channel and node are exact; the others are found inside, in any case; all must hold."""
        page = page_of(one_hub(), ConnectionQuery(**filters))
        assert (ids(page.items), page.total, page.cursor) == (expected, len(expected), None)

    @pytest.mark.parametrize(
        ("sort", "expected"),
        [
            ("started", ["2", "3", "4", "1"]),
            ("id", ["1", "2", "3", "4"]),
            ("user", ["1", "3", "4", "2"]),
            ("name", ["1", "3", "2", "4"]),
            ("remote", ["1", "4", "2", "3"]),
            ("node", ["1", "2", "3", "4"]),
            ("channels", ["3", "2", "4", "1"]),
        ],
    )
    def test_every_sort_goes_both_ways(self, sort: ConnectionSort, expected: list[str]) -> None:
        """Rows with the same value are in order of their id."""
        assert ids(page_of(one_hub(), ConnectionQuery(sort=sort)).items) == expected
        assert ids(page_of(one_hub(), ConnectionQuery(sort=sort, descending=True)).items) == expected[::-1]

    @settings(max_examples=150, deadline=None)
    @given(
        rows=st.lists(
            st.tuples(
                st.sampled_from("abc"), st.integers(0, 4), st.sampled_from(["", "u1", "u2"]), st.text("xÿZ\U0001f600")
            ),
            max_size=40,
        ),
        sort=st.sampled_from(SORTS),
        descending=st.booleans(),
        limit=st.integers(1, 9),
        most_bytes=st.sampled_from([1, 150, 400, ENOUGH_BYTES]),
        user=st.sampled_from(["", "u1"]),
    )
    def test_the_pages_together_are_the_whole_list(
        self, rows: list[Any], sort: ConnectionSort, descending: bool, limit: int, most_bytes: int, user: str
    ) -> None:
        """In order, each once, over several nodes, however little fits into their answers."""
        hubs = {node: Hub() for node in "abc"}
        for number, (node, started, owner, name) in enumerate(rows):
            add(hubs[node], node, str(number), *"123"[:started], user=owner, name=name, started=started)
        query = ConnectionQuery(sort=sort, descending=descending, limit=limit, user=user)
        everything = page_of(hubs, ConnectionQuery(sort=sort, descending=descending, limit=1000, user=user))
        assert len(everything.items) == everything.total == sum(user in ("", row[2]) for row in rows)
        assert all_pages(hubs, query, most_bytes) == everything.items

    def test_what_stays_is_listed_once_whatever_comes_and_goes(self) -> None:
        """Between two pages half of the others leave, the last row of a page among them, and new ones come."""
        hub = Hub()
        staying = {add(hub, "a", f"stay-{number}", started=number * 10).id for number in range(50)}
        leaving = [add(hub, "a", f"leave-{number}", started=number * 10 + 1) for number in range(50)]

        def churn() -> None:
            for _ in range(3):
                if leaving:
                    hub.remove(leaving.pop(0 if len(leaving) % 2 else -1))
            add(hub, "a", f"new-{len(leaving)}", started=len(leaving) * 5)

        found = all_pages({"a": hub}, ConnectionQuery(limit=4), between=churn)
        seen = Counter(info.id for info in found)
        assert set(seen.values()) == {1}
        assert staying <= seen.keys()

    def test_the_total_counts_all_pages(self) -> None:
        """It is the same on each of them."""
        first = page_of(one_hub(), ConnectionQuery(limit=3))
        second = page_of(one_hub(), ConnectionQuery(limit=3).behind(first.cursor))
        assert (len(first.items), first.total) == (3, 4)
        assert (len(second.items), second.total, second.cursor) == (1, 4, None)

    @pytest.mark.parametrize(
        ("field", "value"),
        [("limit", 0), ("limit", 1001), ("limit", True), ("sort", "age"), ("text", "x" * 201), ("channel", "x" * 201)],
    )
    def test_a_wrong_query_is_named(self, field: str, value: Any) -> None:
        """The error says which field, and what was expected."""
        with pytest.raises(InvalidParam, match=f"expected {field} to") as refused:
            ConnectionQuery(**{field: value})
        assert refused.value.fields["field"] == field

    @pytest.mark.parametrize("cursor", ["", "x", "äöü", "e30", "W10", "ඞ", "A" * 1000])
    def test_a_wrong_cursor_is_named(self, cursor: str) -> None:
        """So is one of another order: its place means nothing here."""
        other = page_of(one_hub(), ConnectionQuery(sort="name", limit=1)).cursor
        for wrong in (cursor, other):
            with pytest.raises(InvalidParam, match="cursor") as refused:
                ConnectionQuery(sort="id").behind(wrong)
            assert refused.value.fields["field"] == "cursor"

    def test_the_direction_belongs_to_the_cursor(self) -> None:
        """Turning the order around in the middle is refused."""
        cursor = page_of(one_hub(), ConnectionQuery(limit=1)).cursor
        with pytest.raises(InvalidParam, match="cursor"):
            ConnectionQuery(descending=True).behind(cursor)

    @pytest.mark.parametrize("answer", [None, {}, {"rows": 1}, {"rows": [[1]], "matched": 1, "cut": False}, "x", []])
    def test_a_node_that_answers_nonsense_is_silent(self, answer: object) -> None:
        """The others' rows are shown."""
        good = done(find(one_hub()["a"], ConnectionQuery(), ENOUGH_BYTES))
        page = done(merge({"a": good, "b": answer}, ConnectionQuery(), ["z"]))
        assert (len(page.items), page.silent) == (4, ["b", "z"])

    def test_an_answer_keeps_to_its_bytes(self) -> None:
        """The page ends where nothing more is known, and the next one goes on there."""
        hub = Hub()
        for number in range(30):
            add(hub, "a", f"{number:03}", *(f"{number}-{'x' * 190}-{k}" for k in range(10)), started=number)
        answer = done(find(hub, ConnectionQuery(limit=20), 10_000))
        assert 0 < len(answer["rows"]) < 6  # type: ignore[arg-type]
        assert len(all_pages({"a": hub}, ConnectionQuery(limit=20), 10_000)) == 30

    def test_a_search_stops_after_every_slice(self) -> None:
        """Whoever drives it can do something else in between."""
        hub = Hub()
        for number in range(3 * SLICE + 1):
            add(hub, "a", str(number))
        assert len(list(find(hub, ConnectionQuery(text="nobody"), ENOUGH_BYTES))) == 4


def names_page(hubs: Hubs, query: NameQuery, most_bytes: int = ENOUGH_BYTES) -> Any:
    sent = query.as_map()
    answers = {node: done(find_names(hub, NameQuery.of_map(sent), most_bytes)) for node, hub in hubs.items()}
    return done(merge_names(answers, query))


def all_names(hubs: Hubs, query: NameQuery, most_bytes: int = ENOUGH_BYTES) -> list[tuple[str, int]]:
    """Follow the cursors to the end."""
    found, cursor = list[tuple[str, int]](), None
    while True:
        page = names_page(hubs, query.behind(cursor), most_bytes)
        found += [(name.name, name.size) for name in page.names]
        cursor = page.cursor
        if cursor is None:
            return found


class TestNames:
    @settings(max_examples=150, deadline=None)
    @given(
        rows=st.lists(
            st.tuples(st.sampled_from("abc"), st.lists(st.sampled_from(["x1", "x2", "y", "ÿ", "\U0001f600"]))),
            max_size=30,
        ),
        sort=st.sampled_from(NAME_SORTS),
        prefix=st.sampled_from(["", "x", "none"]),
        limit=st.integers(1, 4),
        most_bytes=st.sampled_from([1, 60, ENOUGH_BYTES]),
    )
    def test_the_pages_together_are_the_whole_list(
        self, rows: list[Any], sort: NameSort, prefix: str, limit: int, most_bytes: int
    ) -> None:
        """Channels and users alike: each once, with what all nodes hold of it, by name or the largest first."""
        hubs = {node: Hub() for node in "abc"}
        sizes = Counter[str]()
        for number, (node, names) in enumerate(rows):
            add(hubs[node], node, f"c{number}", *dict.fromkeys(names))
            sizes.update(dict.fromkeys(names, 1))
            for tab, name in enumerate(dict.fromkeys(names)):
                add(hubs[node], node, f"u{number}-{tab}", user=name)
        expected = sorted((name, size) for name, size in sizes.items() if name.startswith(prefix))
        if sort == "size":
            expected.sort(key=lambda pair: -pair[1])
            most_bytes = ENOUGH_BYTES  # the order by size is of what fits
        for kind in KINDS:
            found = all_names(hubs, NameQuery(kind, prefix, sort, limit=limit), most_bytes)
            if most_bytes == ENOUGH_BYTES:
                assert found == expected
            else:
                assert [name for name, _ in found] == [name for name, _ in expected]

    def test_the_total_is_told_when_it_is_known(self) -> None:
        """Of one node it is; of two only when all names are on the page, since the same ones are on both."""
        hubs = {"a": Hub(), "b": Hub()}
        add(hubs["a"], "a", "1", "c1", "c2", "c3")
        assert names_page(hubs, NameQuery("channels", limit=1)).total == 3
        add(hubs["b"], "b", "1", "c3", "c4")
        assert names_page(hubs, NameQuery("channels", limit=1)).total is None
        assert names_page(hubs, NameQuery("channels")).total == 4
        assert names_page(hubs, NameQuery("users")).total == 0

    def test_a_user_has_a_display_name(self) -> None:
        """That of any connection they have."""
        hub = Hub()
        add(hub, "a", "1", user="ada", name="Ada")
        assert names_page({"a": hub}, NameQuery("users")).names == [("ada", 1, "Ada")]

    @pytest.mark.parametrize(
        ("field", "value"), [("limit", 0), ("sort", "age"), ("kind", "things"), ("prefix", "x" * 201)]
    )
    def test_a_wrong_query_is_named(self, field: str, value: Any) -> None:
        with pytest.raises(InvalidParam, match=f"expected {field} to") as refused:
            NameQuery(**({"kind": "users"} | {field: value}))
        assert refused.value.fields["field"] == field

    def test_a_cursor_belongs_to_its_list(self) -> None:
        """One of channels is refused for users."""
        cursor = names_page(one_hub(), NameQuery("channels", limit=1)).cursor
        with pytest.raises(InvalidParam, match="cursor"):
            NameQuery("users").behind(cursor)

    @pytest.mark.parametrize("answer", [None, {}, {"names": [[1, 1, ""]], "matched": 1, "cut": False}])
    def test_a_node_that_answers_nonsense_is_silent(self, answer: object) -> None:
        good = done(find_names(one_hub()["a"], NameQuery("channels"), ENOUGH_BYTES))
        page = done(merge_names({"a": good, "b": answer}, NameQuery("channels")))
        assert ([name.name for name in page.names], page.silent) == (["lobby", "news"], ["b"])


async def test_a_hundred_thousand_connections() -> None:
    """Every way of asking gives the right page; how long each took is printed, and decides nothing."""
    directory = open_directory(MANY)
    asked: dict[str, dict[str, Any]] = {
        "first": {},
        "newest": {"descending": True},
        "by name": {"sort": "name"},
        "most channels, 1000 rows": {"sort": "channels", "descending": True, "limit": 1000},
        "text of few": {"text": "name 4711"},
        "user": {"user": "user-7"},
        "channel": {"channel": "room-7"},
    }
    totals = {}
    for what, options in asked.items():
        began = time.perf_counter()
        page = await directory.find_connections(**options)
        print(f"{what}: {(time.perf_counter() - began) * 1000:.1f} ms")
        totals[what] = page.total
        rest = await directory.find_connections(**options, cursor=page.cursor) if page.cursor else None
        assert rest is None or not {info.id for info in page.items} & {info.id for info in rest.items}
    in_channel = sum(7 in (number % 1000, number * 7 % 1000, number * 13 % 1000) for number in range(MANY))
    assert list(totals.values()) == [MANY, MANY, MANY, MANY, 1 + 10, 2, in_channel]

    channels = await directory.find_channels(limit=1000)
    assert (len(channels.items), channels.total, channels.cursor) == (1000, 1000, None)
    largest = await directory.find_channels(sort="size", limit=1)
    assert largest.items[0].members == max(row.members for row in channels.items)
    users = await directory.find_users("user-1", limit=5)
    assert [row.connections for row in users.items] == [2] * 5
    assert (await directory.find_users(limit=1)).total == MANY // 2 + 1


class TestCluster:
    """Two nodes on one Redis, in this process."""

    @pytest.fixture
    async def cluster(self, redis: RedisServer, connect: Clients) -> Any:
        cluster = EmbeddedCluster(redis.url, connect)
        await cluster.start()
        for node in cluster.nodes:
            node.service.directory.patience = 60
        yield cluster
        await cluster.stop()

    async def test_any_node_lists_what_all_hold(self, cluster: EmbeddedCluster) -> None:
        """Connections, channels and users; the same from both, a page at a time."""
        members = [
            await cluster.connect(node, channel, user=user, name=f"Name of {user}")
            for node, channel, user in [(cluster.a, "x", "ada"), (cluster.b, "x", "ada"), (cluster.b, "y", "bob")]
        ]
        for service in (cluster.a.service, cluster.b.service):
            first = await service.directory.find_connections(limit=2)
            rest = await service.directory.find_connections(limit=2, cursor=first.cursor)
            found = [*first.items, *rest.items]
            assert {info.id for info in found} == {member.id for member in members}
            assert found == sorted(found, key=lambda info: (info.started, info.id))  # many come in one millisecond
            assert (first.total, first.silent, rest.cursor) == (3, [], None)
            own = await service.directory.find_connections(node=cluster.b.service.node_id)
            assert {info.id for info in own.items} == {member.id for member in members[1:]}
            assert (await service.directory.find_channels()).items == [("x", 2, 1), ("y", 1, 1)]
            assert (await service.directory.find_channels(sort="size", limit=1)).items == [("x", 2, 1)]
            users = await service.directory.find_users()
            assert users.items == [("ada", "Name of ada", 2), ("bob", "Name of bob", 1)]

    async def test_one_channel_is_told_by_node(self, cluster: EmbeddedCluster) -> None:
        """With who is online; one without members has zeros."""
        for node, user in [(cluster.a, "ada"), (cluster.b, "bob"), (cluster.b, "ada")]:
            await cluster.connect(node, "x", user=user)
        detail = await cluster.a.service.directory.channel("x")
        assert (detail.members, detail.online, detail.users, detail.silent) == (3, 2, ["ada", "bob"], [])
        assert detail.nodes == {cluster.a.service.node_id: 1, cluster.b.service.node_id: 2}
        nothing = await cluster.a.service.directory.channel("nobody")
        assert (nothing.members, nothing.online, nothing.users, nothing.nodes) == (0, 0, [], {})
        with pytest.raises(InvalidChannel):
            await cluster.a.service.directory.channel("a b")

    async def test_one_connection_is_told_by_its_node(self, cluster: EmbeddedCluster) -> None:
        """What it has done so far, from whichever node is asked."""
        member = await cluster.connect(cluster.b, "x", user="ada", headers={"User-Agent": "tests/1"})
        await member.client.request("ping")
        for service in (cluster.a.service, cluster.b.service):
            detail = await service.directory.connection(member.id)
            assert (detail.connection.id, detail.connection.channels) == (member.id, ("x",))
            assert (detail.agent, detail.protocol, detail.received) == ("tests/1", "", 1)
            assert not detail.is_behind
        for unknown in ("nobody", member.id + "0", "nowhere~1"):
            with pytest.raises(ConnectionNotFound):
                await cluster.a.service.directory.connection(unknown)

    async def test_a_header_that_is_no_utf8_harms_nobody(self, cluster: EmbeddedCluster, wire: Wires) -> None:
        """Redis and other nodes are told what can be told of it."""
        client = await wire.open(cluster.b, "x")
        await client.write(client.upgrade(headers={"User-Agent": "?-?/1"}).replace(b"?-?", b"\xff-\xed\xa0\x80"))
        assert (await client.read_head()).status == 101
        directory = cluster.a.service.directory

        async def listed() -> list[ConnectionInfo]:
            return (await directory.find_connections(channel="x")).items

        (info,) = await eventually(listed)
        detail = await directory.connection(info.id)
        assert (detail.connection, detail.agent) == (info, "?-???/1")
        (stored,) = [info async for info in cluster.a.service.get_connections()]
        assert stored.id == info.id

    async def test_a_node_that_is_gone_is_named_at_once(self, cluster: EmbeddedCluster, redis: RedisServer) -> None:
        """It is in the set of nodes still, but nobody hears questions to it."""
        await redis.command("SADD", "gateway:nodes", "ghost")
        member = await cluster.connect(cluster.b, "x")
        directory = cluster.a.service.directory
        page = await directory.find_connections()
        assert ([info.id for info in page.items], page.silent) == ([member.id], ["ghost"])
        assert (await directory.find_channels()).silent == ["ghost"]
        assert (await directory.channel("x")).silent == ["ghost"]

    async def test_memory_is_a_cluster_of_one(self, connect: Clients) -> None:
        cluster = EmbeddedCluster("memory://", connect)
        await cluster.start()
        member = await cluster.connect(cluster.a, "x", user="ada")
        directory = cluster.a.service.directory
        assert [info.id for info in (await directory.find_connections()).items] == [member.id]
        assert (await directory.find_channels()).items == [("x", 1, 1)]
        assert (await directory.find_users()).items == [("ada", "", 1)]
        assert (await directory.channel("x")).nodes == {cluster.a.service.node_id: 1}
        assert (await directory.connection(member.id)).connection.user == "ada"
        await cluster.stop()
