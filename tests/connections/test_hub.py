"""Who is on this node, and in which channel: plain data."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from hypothesis.strategies import integers, sampled_from

from gateway.connections.connection import Connection
from gateway.connections.hub import Hub, Receivers
from tests.harness import properties  # noqa: F401 (how examples are made)
from tests.harness.fakes import make_connection


def hub_of(*connections: Connection) -> Hub:
    hub = Hub()
    for connection in connections:
        hub.add(connection)
    return hub


def connection(id: str, user: str = "") -> Connection:
    return make_connection(id, user=user)[0]


def ids(connections: Iterable[Connection]) -> list[str]:
    return [connection.id for connection in connections]


def members_of(receivers: Receivers) -> list[Connection]:
    return [connection for _, connections in receivers for connection in connections]


class TestConnections:
    def test_a_connection_is_found_by_its_id_until_removed(self) -> None:
        """The hub holds what was added, and nothing else."""
        one, two = connection("n~1"), connection("n~2")
        hub = hub_of(one, two)
        assert (len(hub), hub.connections["n~1"], ids(hub)) == (2, one, ["n~1", "n~2"])
        hub.remove(one)
        assert (len(hub), hub.connections.get("n~1"), ids(hub)) == (1, None, ["n~2"])

    def test_connections_may_go_while_they_are_walked(self) -> None:
        """Walking over all of them sees each that was there at the start."""
        hub = hub_of(*(connection(f"n~{number}") for number in range(10)))
        for held in hub:
            hub.remove(held)
        assert len(hub) == 0

    def test_removing_twice_is_harmless(self) -> None:
        """The second time there is nothing to forget."""
        held = connection("n~1", "ada")
        hub = hub_of(held)
        assert hub.remove(held) is True
        assert hub.remove(held) is False


class TestUsers:
    def test_the_first_and_the_last_connection_of_a_user_are_told(self) -> None:
        """That is when the user's messages begin and cease to concern this node."""
        one, two = connection("n~1", "ada"), connection("n~2", "ada")
        hub = Hub()
        assert [hub.add(one), hub.add(two)] == [True, False]
        assert ids(hub.of_user("ada")) == ["n~1", "n~2"]
        assert [hub.remove(one), hub.remove(two)] == [False, True]
        assert ids(hub.of_user("ada")) == []

    def test_an_anonymous_connection_is_no_user(self) -> None:
        """It has no user's messages to wait for, under its own id neither."""
        held = connection("n~1")
        hub = Hub()
        assert (hub.add(held), ids(hub.of_user("n~1")), hub.remove(held)) == (False, [], False)


class TestChannels:
    def test_the_first_and_the_last_member_are_told(self) -> None:
        """That is when the channel begins and ceases to concern this node."""
        one, two = connection("n~1"), connection("n~2")
        hub = hub_of(one, two)
        assert [hub.join(one, "lobby"), hub.join(two, "lobby")] == [True, False]
        assert (ids(hub.members("lobby")), list(hub.channels)) == (["n~1", "n~2"], ["lobby"])
        assert [hub.leave(one, "lobby"), hub.leave(two, "lobby")] == [False, True]
        assert (ids(hub.members("lobby")), list(hub.channels)) == ([], [])

    def test_a_connection_keeps_its_channels_in_the_order_joined(self) -> None:
        """The first of them is its channel, also after the one before has gone."""
        held = connection("n~1")
        hub = hub_of(held)
        for channel in ("b", "a", "c"):
            hub.join(held, channel)
        assert (held.channel, held.channels) == ("b", ("b", "a", "c"))
        hub.leave(held, "b")
        assert (held.channel, held.channels) == ("a", ("a", "c"))
        hub.leave(held, "a")
        hub.leave(held, "c")
        assert (held.channel, held.channels) == ("", ())

    def test_leaving_what_was_never_joined_is_harmless(self) -> None:
        """It empties nothing."""
        one, two = connection("n~1"), connection("n~2")
        hub = hub_of(one, two)
        hub.join(two, "lobby")
        assert [hub.leave(one, "lobby"), hub.leave(one, "nowhere")] == [False, False]
        assert ids(hub.members("lobby")) == ["n~2"]

    def test_a_member_is_written_to_when_it_receives(self) -> None:
        """Before that it is a member all the same; it counts as the first, and as the last."""
        one, two = connection("n~1"), connection("n~2")
        hub = hub_of(one, two)
        assert hub.join(one, "lobby", receiving=False)
        assert not hub.join(two, "lobby")
        assert (ids(members_of(hub.receivers("lobby"))), len(hub.members("lobby"))) == (["n~2"], 2)
        assert not hub.leave(two, "lobby")
        assert (members_of(hub.receivers("lobby")), one.channels) == ([], ("lobby",))
        assert ids(hub.members("lobby")) == ["n~1"]
        hub.receive(one, "lobby")
        hub.receive(one, "lobby")
        assert ids(members_of(hub.receivers("lobby"))) == ["n~1"]
        assert hub.leave(one, "lobby")
        hub.receive(one, "lobby")
        assert (members_of(hub.receivers("lobby")), list(hub.channels)) == ([], [])


class Membership(RuleBasedStateMachine):
    """Any sequence of joins and leaves, against sets."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = [connection(f"n~{number}", "ada" if number % 2 else "") for number in range(4)]
        self.hub = hub_of(*self.connections)
        self.expected: dict[str, set[int]] = {"a": set(), "b": set(), "c": set()}

    @rule(number=integers(0, 3), channel=sampled_from("abc"))
    def join(self, number: int, channel: str) -> None:
        members = self.expected[channel]
        if number not in members:
            assert self.hub.join(self.connections[number], channel) is (not members)
            members.add(number)

    @rule(number=integers(0, 3), channel=sampled_from("abc"))
    def leave(self, number: int, channel: str) -> None:
        members = self.expected[channel]
        assert self.hub.leave(self.connections[number], channel) is (members == {number})
        members.discard(number)

    @invariant()
    def everybody_is_where_they_belong(self) -> None:
        for channel, members in self.expected.items():
            found = self.hub.members(channel)
            assert {self.connections.index(member) for member in found} == members
            assert (channel in self.hub.channels) is bool(members)
        for number, held in enumerate(self.connections):
            assert set(held.channels) == {name for name, members in self.expected.items() if number in members}


def test_any_sequence_of_joins_and_leaves_is_kept() -> None:
    """Members, channels, first and last are what sets would say."""
    run_state_machine_as_test(Membership, settings=settings(max_examples=50, stateful_step_count=30))
