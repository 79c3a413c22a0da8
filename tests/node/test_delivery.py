"""From envelopes to sockets: who gets what, in which order, in how many writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.backplane import ALL, DIRECT, Target
from gateway.config import Rule, Settings
from gateway.connections.counters import Counters
from gateway.connections.hub import Hub
from gateway.node.delivery import Delivery
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope, to_client
from gateway.protocol.message import Position
from tests.harness.fakes import RecordingSocket, make_connection
from tests.harness.wait import eventually

LOBBY = Target("channel", "lobby")


class Node:
    """A hub with sockets that record, and the delivery in front of it."""

    def __init__(self, *rules: Rule) -> None:
        self.hub = Hub()
        self.counters = Counters()
        self.delivery = Delivery(self.hub, Settings(channels=rules).rule, self.counters)

    def add(self, id: str, *channels: str, user: str = "", protocol: str = codec.PLAIN) -> RecordingSocket:
        connection, socket = make_connection(id, user=user)
        connection.dialect = codec.dialect_of(protocol)
        self.hub.add(connection)
        for channel in channels:
            self.hub.join(connection, channel)
        return socket

    def deliver(self, *arrivals: tuple[Target, Envelope]) -> int:
        """Deliver one batch; return how many messages reached sockets."""
        for target, envelope in arrivals:
            self.delivery.add(target, envelope)
        before = self.counters.delivered
        self.delivery.write()
        return self.counters.delivered - before


@pytest.fixture
def node() -> Node:
    return Node()


def message(cmd: str, *exclude: str, connection: str | None = None) -> Envelope:
    return Envelope(codec.encode(cmd), frozenset(exclude), connection)


def cmds(socket: RecordingSocket) -> list[str]:
    return [message["cmd"] for message in socket.messages]


def test_a_channel_s_message_reaches_its_members_only(node: Node) -> None:
    """Every member gets it, whoever is elsewhere does not; the receivers are counted."""
    one, two, other = node.add("n~1", "lobby"), node.add("n~2", "lobby", "side"), node.add("n~3", "side")
    assert node.deliver((LOBBY, message("x"))) == 2
    assert (cmds(one), cmds(two), cmds(other)) == (["x"], ["x"], [])


def test_a_user_s_message_reaches_all_of_the_user_s_connections(node: Node) -> None:
    """In whatever channel they are."""
    one, two = node.add("n~1", "lobby", user="ada"), node.add("n~2", user="ada")
    other = node.add("n~3", "lobby", user="bob")
    assert node.deliver((Target("user", "ada"), message("x"))) == 2
    assert (cmds(one), cmds(two), cmds(other)) == (["x"], ["x"], [])


def test_a_message_to_all_reaches_every_connection(node: Node) -> None:
    """Anonymous ones and those without a channel too."""
    sockets = [node.add("n~1", "lobby"), node.add("n~2", user="ada"), node.add("n~3")]
    assert node.deliver((ALL, message("x"))) == 3
    assert [cmds(socket) for socket in sockets] == [["x"]] * 3


def test_a_direct_message_reaches_one_connection(node: Node) -> None:
    """The one it names, if that is here."""
    one, two = node.add("n~1", "lobby"), node.add("n~2", "lobby")
    assert node.deliver((DIRECT, message("x", connection="n~1")), (DIRECT, message("y", connection="m~1"))) == 1
    assert (cmds(one), cmds(two)) == (["x"], [])


@pytest.mark.parametrize("target", [LOBBY, Target("user", "ada"), ALL, DIRECT], ids=lambda target: target.kind)
def test_an_excluded_connection_is_skipped_everywhere(node: Node, target: Target) -> None:
    """Whatever the message is written to, and whoever else is excluded."""
    one, two = node.add("n~1", "lobby", user="ada"), node.add("n~2", "lobby", user="ada")
    node.deliver((target, message("x", "n~1", "elsewhere~1", connection="n~1" if target is DIRECT else None)))
    assert (cmds(one), cmds(two)) == ([], [] if target is DIRECT else ["x"])


def test_a_target_without_anybody_is_no_harm(node: Node) -> None:
    """What arrives after the last member has left reaches nobody."""
    assert node.deliver((LOBBY, message("x")), (Target("user", "ada"), message("y")), (ALL, message("z"))) == 0


def test_a_batch_is_written_in_the_order_it_came(node: Node) -> None:
    """Whom a message skips does not change the order for others."""
    one, two = node.add("n~1", "lobby"), node.add("n~2", "lobby")
    excludes = [(), (), ("n~1",), ("n~1",), (), ("n~2",), ("n~1", "n~2"), (), ("n~2",)]
    node.deliver(*((LOBBY, message(str(number), *exclude)) for number, exclude in enumerate(excludes)))
    assert cmds(one) == ["0", "1", "4", "5", "7", "8"]
    assert cmds(two) == ["0", "1", "2", "3", "4", "7"]


def test_neighbours_are_joined_into_one_write(node: Node) -> None:
    """A batch of one target costs each socket one write, and the same bytes object goes to all."""
    sockets = [node.add(f"n~{number}", "lobby") for number in range(3)]
    node.deliver(*((LOBBY, message(str(number))) for number in range(50)))
    assert [len(socket.writes) for socket in sockets] == [1, 1, 1]
    assert all(socket.writes[0] is sockets[0].writes[0] for socket in sockets)
    assert cmds(sockets[0]) == [str(number) for number in range(50)]


def test_a_batch_is_delivered_once(node: Node) -> None:
    """What was written is gathered no longer."""
    one = node.add("n~1", "lobby")
    node.deliver((LOBBY, message("x")))
    assert node.deliver() == 0
    node.deliver((LOBBY, message("y")))
    assert cmds(one) == ["x", "y"]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_every_size_of_message_is_framed_whole(node: Node, size: int) -> None:
    """Joined frames of any size are cut again by their lengths."""
    one = node.add("n~1", "lobby")
    envelopes = [Envelope(codec.encode(cmd, "x" * size)) for cmd in ("a", "b")]
    node.deliver(*((LOBBY, envelope) for envelope in envelopes))
    assert [message["param"] for message in one.messages] == ["x" * size] * 2


def test_a_connection_that_leaves_gets_nothing_more(node: Node) -> None:
    """Membership counts at the moment of delivery."""
    one = node.add("n~1", "lobby")
    node.delivery.add(LOBBY, message("x"))
    node.hub.leave(node.hub.connections["n~1"], "lobby")
    node.delivery.write()
    assert cmds(one) == []


def test_each_protocol_gets_its_own_bytes_once(node: Node) -> None:
    """The same object to all that speak it, whatever the target."""
    clients = {
        protocol: [node.add(f"n~{protocol}{number}", "lobby", user="ada", protocol=protocol) for number in range(2)]
        for protocol in (codec.PLAIN, codec.JSON, codec.MSGPACK)
    }
    kept = Envelope(codec.encode("x", 1, "lobby"), position=Position("e", 5))
    assert node.deliver((LOBBY, kept), (ALL, message("y")), (Target("user", "ada"), message("z"))) == 18
    for protocol, (one, other) in clients.items():
        dialect = codec.dialect_of(protocol)
        assert one.writes == [to_client(each, dialect) for each in (kept, message("y"), message("z"))]
        assert all(mine is theirs for mine, theirs in zip(one.writes, other.writes, strict=True))


def test_an_exclusion_splits_the_batch_for_nobody_else(node: Node) -> None:
    """Only who is named gets bytes of its own."""
    named, *others = (node.add(f"n~{number}", "lobby") for number in range(4))
    node.deliver(*((LOBBY, message(str(number), *(("n~0",) if number % 2 else ()))) for number in range(10)))
    assert [len(socket.writes) for socket in (named, *others)] == [1, 1, 1, 1]
    assert all(socket.writes[0] is others[0].writes[0] for socket in others)
    assert cmds(named) == ["0", "2", "4", "6", "8"]
    assert cmds(others[0]) == [str(number) for number in range(10)]


def test_the_gateway_s_own_word_goes_to_v1_members(node: Node) -> None:
    """Plain clients have no such messages."""
    plain, v1 = node.add("n~1", "lobby"), node.add("n~2", "lobby", protocol=codec.JSON)
    assert node.delivery.tell("lobby", "$gap", {})
    assert not node.delivery.tell("side", "$gap", {})
    assert (cmds(plain), v1.messages) == ([], [{"channel": "lobby", "cmd": "$gap", "param": {}}])


async def _turns(until: Callable[[], bool]) -> None:
    """Let the loop turn as often as it takes, and no more."""
    for _ in range(100):
        if until():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come")


class TestManySockets:
    """A fan-out to more sockets than are written at once goes on in slices."""

    @pytest.fixture
    def slices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.node.delivery.AT_ONCE", 4)
        monkeypatch.setattr("gateway.node.delivery.SLICE", 2)

    @pytest.fixture
    async def running(self, node: Node, slices: None) -> AsyncIterator[Node]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(node.delivery.run())
            yield node
            task.cancel()

    async def test_other_targets_are_written_between_the_slices(self, running: Node) -> None:
        """Nobody waits for a fan-out to many."""
        many, other = [running.add(f"n~{number}", "lobby") for number in range(8)], running.add("n~x", "side")
        running.deliver((LOBBY, message("x")))
        await _turns(lambda: any(map(cmds, many)))
        assert not all(map(cmds, many))
        running.deliver((Target("channel", "side"), message("y")))
        assert cmds(other) == ["y"]
        await eventually(lambda: all(map(cmds, many)))
        assert running.counters.delivered == 9

    async def test_order_is_kept_and_what_waits_is_joined(self, running: Node) -> None:
        """Behind what is under way everything to the same receivers is one write."""
        many = [running.add(f"n~{number}", "lobby") for number in range(8)]
        running.deliver((LOBBY, message("0")))
        await _turns(lambda: any(map(cmds, many)))
        for number in range(1, 6):
            running.deliver((LOBBY, message(str(number))))
        await eventually(lambda: all(len(cmds(socket)) == 6 for socket in many))
        assert all(cmds(socket) == list("012345") for socket in many)
        assert all(len(socket.writes) == 2 for socket in many)

    async def test_who_comes_meanwhile_gets_what_was_written_after(self, running: Node) -> None:
        """And who leaves gets nothing more."""
        many = [running.add(f"n~{number}", "lobby") for number in range(8)]
        running.deliver((LOBBY, message("0")))
        late = running.add("n~late", "lobby")
        running.hub.leave(running.hub.connections["n~7"], "lobby")
        running.deliver((LOBBY, message("1")))
        await eventually(lambda: cmds(many[0]) == ["0", "1"] and cmds(late) == ["1"])
        assert cmds(many[7]) == []

    async def test_small_fan_outs_share_what_is_written_at_once(self, running: Node) -> None:
        """Many targets in one batch do not hold the loop either."""
        sockets = [running.add(f"n~{number}", f"c{number // 2}") for number in range(20)]
        running.deliver(*((Target("channel", f"c{number}"), message("x")) for number in range(10)))
        assert sum(map(bool, map(cmds, sockets))) == 4
        await eventually(lambda: all(map(cmds, sockets)))

    async def test_the_word_of_a_gap_queues_behind_what_came_before_it(self, running: Node) -> None:
        """It stands where the messages are missing."""
        many = [running.add(f"n~{number}", "lobby", protocol=codec.JSON) for number in range(8)]
        running.deliver((LOBBY, message("0")))
        running.delivery.tell("lobby", "$gap", {})
        running.deliver((LOBBY, message("1")))
        await eventually(lambda: all(len(cmds(socket)) == 3 for socket in many))
        assert all(cmds(socket) == ["0", "$gap", "1"] for socket in many)

    async def test_what_is_for_nobody_does_not_queue(self, running: Node) -> None:
        """Word of a gap where all clients are plain; a message to a channel whose last member has just left."""
        plain = [running.add(f"n~{number}", "lobby") for number in range(8)]
        running.add("n~last", "side")
        running.deliver((LOBBY, message("0")), (Target("channel", "side"), message("0")))
        assert not running.delivery.tell("lobby", "$gap", {})
        running.hub.leave(running.hub.connections["n~last"], "side")
        running.deliver((LOBBY, message("1")), (Target("channel", "side"), message("1")))
        await eventually(lambda: all(cmds(socket) == ["0", "1"] for socket in plain))

    async def test_it_can_be_waited_for(self, running: Node) -> None:
        """Until what came by then is written, and no longer."""
        many = [running.add(f"n~{number}", "lobby") for number in range(8)]
        await running.delivery.written("lobby")
        running.deliver((LOBBY, message("0")))
        await running.delivery.written("lobby")
        assert all(cmds(socket) == ["0"] for socket in many)

    async def test_the_backplane_is_not_read_while_too_much_waits(
        self, running: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Memory is bounded; it goes on when the fan-outs have got somewhere."""
        monkeypatch.setattr("gateway.node.delivery.MOST_WAITING", 200)
        many = [running.add(f"n~{number}", "lobby") for number in range(8)]
        await running.delivery.room()
        for number in range(5):
            running.deliver((LOBBY, message(str(number))))
        reading = asyncio.ensure_future(running.delivery.room())
        await asyncio.sleep(0)
        assert not reading.done()
        await reading
        assert all(cmds(socket) == list("01234") for socket in many)


class TestSlowReaders:
    """The rule of a channel says what a slow reader may miss."""

    @pytest.fixture
    def node(self) -> Node:
        return Node(
            Rule(match="ticker", slow="keep-latest"),
            Rule(match="prices", slow="keep-latest", slow_key="symbol"),
            Rule(match="feed", slow="drop-oldest"),
        )

    def test_who_keeps_up_gets_everything_in_one_write(self, node: Node) -> None:
        """As in any other channel."""
        one, two = node.add("n~1", "feed"), node.add("n~2", "feed")
        node.deliver(*((Target("channel", "feed"), message(str(number))) for number in range(3)))
        assert (cmds(one), len(one.writes)) == (["0", "1", "2"], 1)
        assert one.writes[0] is two.writes[0]

    @pytest.mark.parametrize(
        ("channel", "keys"),
        [("feed", [None, None]), ("ticker", ["a", "b"]), ("prices", ["a X", "b"]), ("other", [])],
    )
    def test_who_is_behind_is_written_what_may_be_dropped_as_such(
        self, node: Node, channel: str, keys: list[str | None]
    ) -> None:
        """With the key that tells what a newer message replaces."""
        one = node.add("n~1", channel, protocol=codec.JSON)
        one.is_behind = True
        payloads = (codec.encode("a", {"symbol": "X"}, channel), codec.encode("b", None, channel))
        node.deliver(*((Target("channel", channel), Envelope(payload)) for payload in payloads))
        assert [each.key for each in one.sparable] == keys
        assert all(each.channel == channel and b"$gap" in each.gap for each in one.sparable)
        assert cmds(one) == ["a", "b"]

    def test_what_is_no_message_replaces_none(self, node: Node) -> None:
        """A stranger may publish anything as an envelope; it is dropped for nothing newer."""
        one = node.add("n~1", "ticker")
        one.is_behind = True
        node.deliver((Target("channel", "ticker"), Envelope(b"rubbish")), (Target("channel", "ticker"), message("y")))
        assert [each.key for each in one.sparable] == [None, "y"]

    def test_an_excluded_slow_reader_is_skipped(self, node: Node) -> None:
        """Of a batch it gets what does not skip it."""
        one, feed = node.add("n~1", "feed"), Target("channel", "feed")
        one.is_behind = True
        node.deliver((feed, message("x", "n~1")), (feed, message("y")))
        assert (cmds(one), node.counters.delivered) == (["y"], 1)
