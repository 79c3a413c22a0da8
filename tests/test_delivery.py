"""From envelopes to sockets: who gets what, in which order, in how many writes."""

from __future__ import annotations

import pytest

from gateway import codec
from gateway.backplane import ALL, DIRECT, Target
from gateway.codec import Envelope
from gateway.delivery import Delivery
from gateway.hub import Hub
from gateway.message import Position
from tests.harness.fakes import RecordingSocket, make_connection

LOBBY = Target("channel", "lobby")


class Node:
    """A hub with sockets that record, and the delivery in front of it."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.delivery = Delivery(self.hub)

    def add(self, id: str, *channels: str, user: str = "", protocol: str = codec.PLAIN) -> RecordingSocket:
        connection, socket = make_connection(id, user=user)
        connection.protocol = protocol
        self.hub.add(connection)
        for channel in channels:
            self.hub.join(connection, channel)
        return socket

    def deliver(self, *arrivals: tuple[Target, Envelope]) -> int:
        """Deliver one batch; return how many messages reached sockets."""
        for target, envelope in arrivals:
            self.delivery.add(target, envelope)
        return self.delivery.write()


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
        assert one.writes == [codec.to_client(each, protocol) for each in (kept, message("y"), message("z"))]
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
