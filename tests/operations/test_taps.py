"""Taps: who sees what, how much of it, and what is counted instead."""

from __future__ import annotations

import asyncio
import sys
from types import FrameType
from typing import Any

import pytest

from gateway.application.service import Handler
from gateway.backplane import ALL, DIRECT, Target
from gateway.connections.connection import Connection, Profile
from gateway.errors import InvalidEnvelope, Unavailable
from gateway.operations.taps import MOST_COPIED, MOST_COPIED_BYTES, MOST_WAITING, Filter, Sight, Taps, fits
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope, pack_map, unpack
from gateway.protocol.message import Message


def _sight(**fields) -> Sight:
    payload = codec.encode(fields.pop("cmd", "chat"), fields.pop("param", None), "lobby", fields.pop("sender", None))
    known: dict[str, Any] = {
        "at": 1,
        "node": "n",
        "direction": "out",
        "kind": "channel",
        "name": "lobby",
        "connection": "",
        "user": "",
    }
    return Sight(**(known | fields), payload=payload)


@pytest.mark.parametrize(
    ("wanted", "sight", "expected"),
    [
        (Filter(), _sight(), True),
        (Filter(channel="lobby"), _sight(), True),
        (Filter(channel="other"), _sight(), False),
        (Filter(channel="lobby"), _sight(kind="user", name="lobby"), False),
        (Filter(cmd="chat"), _sight(), True),
        (Filter(cmd="ping"), _sight(), False),
        (Filter(user="ada"), _sight(sender="ada"), True),
        (Filter(user="ada"), _sight(kind="user", name="ada"), True),
        (Filter(user="ada"), _sight(user="ada", direction="in"), True),
        (Filter(user="ada"), _sight(sender="grace"), False),
        (Filter(connection="n~1"), _sight(connection="n~1"), True),
        (Filter(connection="n~1"), _sight(), False),
        (Filter(connection="n~1", also="user:ada channel:lobby"), _sight(), True),
        (Filter(connection="n~1", also="user:ada"), _sight(), False),
        (Filter(connection="n~1", also="user:ada"), _sight(kind="all", name=""), True),
        (Filter(direction="in"), _sight(), False),
        (Filter(direction="out", channel="lobby", cmd="chat"), _sight(), True),
        (Filter(cmd="chat"), _sight()._replace(payload=b"rubbish"), False),
        (Filter(), _sight()._replace(payload=b"rubbish"), True),
    ],
)
def test_a_filter_says_what_fits(wanted: Filter, sight: Sight, expected: bool) -> None:
    """Every field that is given must fit."""
    assert fits(wanted, sight) == expected


class Cluster:
    """Two nodes whose copies go from one to the other, when the test says so."""

    def __init__(self) -> None:
        self.a, self.b = Taps("a"), Taps("b")
        self.published: list[bytes] = []

    async def carry(self) -> None:
        """Let node b publish what it has copied, and node a show it."""

        async def publish(data: bytes) -> None:
            self.published.append(data)
            self.a.show(data)

        copying = asyncio.create_task(self.b.run(publish))
        await asyncio.sleep(0.1)
        copying.cancel()

    def tap(self, wanted: Filter):
        return self.a.observing(wanted)


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster()


def _envelope(cmd: str, channel: str = "lobby", param: object = None) -> Envelope:
    return Envelope(codec.encode(cmd, param, channel))


async def test_without_an_observer_nothing_is_copied(cluster: Cluster) -> None:
    """Nor after the last one has gone."""
    assert not cluster.b.wanted
    with cluster.tap(Filter()):
        cluster.b.wished(cluster.a.wish())
        assert cluster.b.wanted
    cluster.b.wished(cluster.a.wish())
    assert not cluster.b.wanted
    cluster.b.written(ALL, _envelope("x"))
    await cluster.carry()
    assert cluster.published == []


async def test_who_comes_late_copies_without_having_heard_of_a_wish(cluster: Cluster) -> None:
    """At once where asked to, and once: a process that writes one message may end with it."""
    published: list[bytes] = []

    async def publish(data: bytes) -> None:
        published.append(data)

    cluster.b.suppose()
    with cluster.tap(Filter()) as tap:
        for count in (1, 2):
            cluster.b.written(ALL, _envelope("x"))
            for _ in range(2):
                await cluster.b.flush(publish)
            assert len(published) == count
        for data in published:
            cluster.a.show(data)
        assert (tap.waiting.qsize(), tap.missed) == (2, 0)


async def test_what_any_node_writes_is_seen_with_where_it_goes(cluster: Cluster) -> None:
    """To a channel, a user, a connection, everyone."""
    with cluster.tap(Filter()) as tap:
        cluster.b.wished(cluster.a.wish())
        for target in (Target("channel", "lobby"), Target("user", "ada"), ALL):
            cluster.b.written(target, _envelope("x"))
        cluster.b.written(DIRECT, Envelope(codec.encode("x"), connection="b~1"))
        await cluster.carry()
        seen = [tap.waiting.get_nowait() for _ in range(4)]
    assert [(s.kind, s.name) for s in seen] == [
        ("channel", "lobby"),
        ("user", "ada"),
        ("all", ""),
        ("connection", "b~1"),
    ]
    assert {(s.node, s.direction) for s in seen} == {("b", "out")}


async def test_what_clients_send_is_seen_without_their_tokens(cluster: Cluster) -> None:
    """With their connection and user; the parameter of `$auth` is nobody's business."""
    client = Connection("b~1", Profile("ada"), Handler())
    client.channels = ("lobby",)
    with cluster.tap(Filter(direction="in")) as tap:
        cluster.b.wished(cluster.a.wish())
        cluster.b.heard(client, Message("", "chat", {"text": "hi"}))
        cluster.b.heard(client, Message("", "$auth", {"token": "secret"}))
        cluster.b.heard(client, Message("", "odd", {1: b"bytes"}))
        cluster.b.written(ALL, _envelope("x"))
        await cluster.carry()
        seen = [tap.waiting.get_nowait() for _ in range(3)]
        assert tap.waiting.empty()
    assert (seen[0].name, seen[0].connection, seen[0].user) == ("lobby", "b~1", "ada")
    assert seen[0].message.param == {"text": "hi"}
    assert b"secret" not in cluster.published[0]
    assert seen[2].message.param is None


async def test_nodes_copy_only_what_somebody_wants_to_see(cluster: Cluster) -> None:
    """A filter is applied where the messages are, not behind the wire."""
    with cluster.tap(Filter(channel="lobby")), cluster.tap(Filter(cmd="ping")):
        cluster.b.wished(cluster.a.wish())
        cluster.b.written(Target("channel", "other"), _envelope("chat", "other"))
        await cluster.carry()
        assert cluster.published == []
        cluster.b.written(Target("channel", "other"), _envelope("ping", "other"))
        await cluster.carry()
        assert len(cluster.published) == 1


@pytest.mark.parametrize(("count", "size"), [(MOST_COPIED + 50, 10), (20, MOST_COPIED_BYTES // 10)])
async def test_what_does_not_fit_the_buffer_is_counted(cluster: Cluster, count: int, size: int) -> None:
    """In messages and in bytes: shown and missed are all there were."""
    with cluster.tap(Filter()) as tap:
        cluster.b.wished(cluster.a.wish())
        for _ in range(count):
            cluster.b.written(ALL, _envelope("x", param="x" * size))
        await cluster.carry()
        assert tap.missed > 0
        assert tap.waiting.qsize() + tap.missed == count


async def test_copies_that_redis_did_not_take_are_counted(cluster: Cluster) -> None:
    """They come with the next ones, as missed."""

    async def refuse(data: bytes) -> None:
        raise Unavailable("away")

    with cluster.tap(Filter()) as tap:
        cluster.b.wished(cluster.a.wish())
        cluster.b.written(ALL, _envelope("lost"))
        copying = asyncio.create_task(cluster.b.run(refuse))
        await asyncio.sleep(0.1)
        copying.cancel()
        cluster.b.written(ALL, _envelope("shown"))
        await cluster.carry()
        assert (tap.waiting.qsize(), tap.missed) == (1, 1)


async def test_an_observer_that_is_slow_misses_and_knows_it() -> None:
    """Its queue is bounded; nobody waits for it."""
    taps = Taps("a")
    with taps.observing(Filter()) as tap:
        for _ in range(MOST_WAITING + 7):
            tap.show(_sight())
        assert tap.missed == 7


async def test_an_injection_that_two_nodes_deliver_is_seen_once(cluster: Cluster) -> None:
    """But as often as it was published."""
    target, data = Target("channel", "lobby"), b'{"cmd":"x"}'
    with cluster.tap(Filter()) as tap:
        for _ in range(2):
            for node in (cluster.a, cluster.b):
                cluster.a.show(node.injection(data, target, unpack(data, "lobby")))
        assert tap.waiting.qsize() == 2
        assert (await tap.waiting.get()).message.cmd == "x"


@pytest.mark.parametrize("nodes", [1, 2])
async def test_a_flood_of_injections_is_copied_as_everything_else(cluster: Cluster, nodes: int) -> None:
    """In a few publications, as far as there is room; what is shown and what is missed are all there were."""
    other, count = Taps("c"), 3 * MOST_COPIED
    with cluster.tap(Filter(channel="lobby")) as tap:
        for node in (cluster.b, other):
            node.wished(cluster.a.wish())
        for number in range(count):
            for node in (cluster.b, other)[:nodes]:
                _inject(node, number)
            _inject(cluster.b, number, "elsewhere")
        await cluster.carry()
        cluster.b = other
        await cluster.carry()
        assert tap.waiting.qsize() + tap.missed == count
        assert tap.waiting.qsize() == MOST_WAITING
        assert len(cluster.published) == nodes


async def test_what_a_report_costs_does_not_grow_with_those_before_it(cluster: Cluster) -> None:
    """Lines of code that run for the second thousand are as many as for the first."""
    with cluster.tap(Filter(cmd="nothing")):
        reports = [
            cluster.b.injection(data, Target("channel", "lobby"), unpack(data, "lobby"))
            for data in (b'{"cmd":"x","param":%d}' % number for number in range(2000))
        ]
        first, second = (_lines_run(cluster.a, reports[start : start + 1000]) for start in (0, 1000))
    assert second <= first * 1.01


def _inject(node: Taps, number: int, channel: str = "lobby") -> None:
    """Let a node hear what a person has published."""
    data, target = b'{"cmd":"x","param":%d}' % number, Target("channel", channel)
    assert node.arrived(target, data)
    node.report(data, target, unpack(data, channel))


def _lines_run(taps: Taps, reports: list[bytes]) -> int:
    """Count the lines that showing these runs."""
    lines = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        for report in reports:
            taps.show(report)
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("payload", [b'{"cmd":"x"}', b'{"channel":"lobby","cmd":"x"}', b"{%b}" % (b" " * 5000)])
async def test_a_report_of_what_is_no_message_is_refused(cluster: Cluster, payload: bytes) -> None:
    """Whoever observes reads what it is shown, and would fail at that."""
    report = {"node": "b", "injected": b"x", "kind": "channel", "name": "lobby", "payload": payload, "connection": ""}
    with cluster.tap(Filter()) as tap:
        with pytest.raises(InvalidEnvelope):
            cluster.a.show(pack_map(report))
        assert tap.waiting.empty()


@pytest.mark.parametrize("data", [b"", b"{", pack_map({}), pack_map({"node": "b", "sights": [1], "missed": 0})])
async def test_rubbish_is_refused(cluster: Cluster, data: bytes) -> None:
    """Whatever a stranger publishes there."""
    for hear in (cluster.a.show, cluster.a.wished):
        with pytest.raises(InvalidEnvelope):
            hear(data)
