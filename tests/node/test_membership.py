"""Joins that meet each other, and the end of a connection, on their way."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from gateway.backplane import Page, Target
from gateway.config import Rule, Settings
from gateway.connections.connection import ConnectionInfo
from gateway.connections.counters import Counters
from gateway.connections.expiry import Expiry
from gateway.connections.hub import Hub
from gateway.errors import ConnectionNotFound
from gateway.node.delivery import Delivery
from gateway.node.history import History
from gateway.node.membership import Joined, Membership
from gateway.protocol.codec import encode
from gateway.protocol.envelope import Envelope
from gateway.protocol.message import Position
from tests.harness.fakes import make_connection


class Redis:
    """Backplane and presence in one; confirms subscriptions when the test says so."""

    def __init__(self) -> None:
        self.confirmed = asyncio.Event()
        self.members: set[str] = set()
        # What channels keep, and when that may be read.
        self.kept: list[Envelope] = []
        self.readable = asyncio.Event()
        self.readable.set()

    async def subscribe(self, targets: list[Target]) -> None:
        await self.confirmed.wait()

    def unsubscribe(self, targets: list[Target]) -> None: ...

    async def read(self, channel: str, *, after: Position | None = None, limit: int, seen: int = 0) -> Page:
        await self.readable.wait()
        return Page("epoch", 7, 0, None, self.kept, False)

    async def join(self, connection: ConnectionInfo, channel: str) -> bool:
        self.members.add(connection.id)
        return True

    def leave(self, connection: ConnectionInfo, channel: str) -> None:
        self.members.discard(connection.id)

    def lose(self, connection: ConnectionInfo) -> None:
        self.members.discard(connection.id)


class Node:
    """A node of which all channels keep history."""

    def __init__(self) -> None:
        self.redis, self.hub, counters = Redis(), Hub(), Counters()
        settings = Settings(channels=(Rule(match="*", history=10),))
        redis = cast(Any, self.redis)
        delivery = Delivery(self.hub, settings.rule, counters)
        self.history = History(self.hub, redis, delivery, settings.rule, counters)
        self.membership = Membership(self.hub, redis, self.history, redis, Expiry(self.hub), settings)
        self.connection, _ = make_connection("node~1")
        self.hub.add(self.connection)

    async def joining(self) -> asyncio.Task[Joined]:
        """Join, as far as it gets before Redis confirms the subscription."""
        task = asyncio.create_task(self.membership.join(self.connection, "lobby"))
        for _ in range(5):
            await asyncio.sleep(0)
        return task


async def test_a_join_beside_one_under_way_is_answered_after_it() -> None:
    node = Node()
    first, second = await node.joining(), await node.joining()
    assert not first.done()
    assert not second.done()
    node.redis.confirmed.set()
    assert (await first).created
    assert not (await second).created
    assert node.redis.members == {"node~1"}


async def test_who_leaves_while_joining_leaves_no_history_behind() -> None:
    """The next to join would be shown what was written while nobody here was a member."""
    node = Node()
    join = await node.joining()
    node.membership.drop(node.connection)
    node.redis.confirmed.set()
    with pytest.raises(ConnectionNotFound):
        await join
    assert node.history.position("lobby") is None
    assert not node.redis.members


async def test_who_has_gone_before_the_join_is_not_taken_in() -> None:
    """Its handler was still asked whether it may; nobody would ever take it out again."""
    node = Node()
    node.connection.closed = True
    node.membership.drop(node.connection)
    with pytest.raises(ConnectionNotFound):
        await node.membership.join(node.connection, "lobby")
    assert (node.connection.channels, list(node.hub.channels), node.redis.members) == ((), [], set())


async def test_a_join_that_fails_after_its_client_has_gone_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written of a connection that is no more stays for ever."""
    node = Node()
    join = await node.joining()
    node.connection.closed = True
    node.membership.drop(node.connection)
    written: list[ConnectionInfo] = []
    monkeypatch.setattr(node.redis, "leave", lambda connection, _: written.append(connection))
    join.cancel()
    await asyncio.wait((join,))
    assert not written


async def test_others_know_of_a_membership_when_it_is_about_to_be_stored() -> None:
    """Redis may come back meanwhile, and what it is told of then is nobody's coming."""
    node = Node()
    join = await node.joining()
    assert (node.connection.channels, node.connection.info().channels) == (("lobby",), ())
    node.redis.confirmed.set()
    await join
    assert node.connection.info().channels == ("lobby",)


async def test_a_join_after_one_that_was_left_is_made_anew() -> None:
    node = Node()
    first = await node.joining()
    node.hub.leave(node.connection, "lobby")
    second = await node.joining()
    node.redis.confirmed.set()
    assert (await asyncio.gather(first, second))[1].created
    assert node.redis.members == {"node~1"}


async def test_a_join_that_nobody_waits_for_any_more_is_undone() -> None:
    """Else its client would be in the hub and nowhere else, for ever."""
    node = Node()
    join = await node.joining()
    join.cancel()
    await asyncio.wait((join,))
    assert (node.connection.channels, join.cancelled()) == ((), True)
    node.redis.confirmed.set()
    assert (await (await node.joining())).created
    assert (node.connection.channels, node.redis.members) == (("lobby",), {"node~1"})


async def test_a_join_that_was_asked_for_an_earlier_profile_is_not_made() -> None:
    """A review cannot see a channel that its client is only waiting to join, behind a join that fails."""
    node = Node()
    first = await node.joining()
    second = asyncio.create_task(
        node.membership.join(node.connection, "lobby", asked_of=node.connection.profile), name="second"
    )
    await asyncio.sleep(0)
    node.membership.touch(node.connection)
    first.cancel()
    await asyncio.wait((first,))
    with pytest.raises(ConnectionNotFound):
        await second
    assert node.connection.channels == ()


async def test_who_is_taken_out_while_history_is_read_is_written_none_of_it() -> None:
    """Though another member keeps the channel's place in it."""
    node = Node()
    node.redis.confirmed.set()
    await node.membership.join(node.connection, "lobby")
    late, socket = make_connection("node~2")
    node.hub.add(late)
    node.redis.kept = [Envelope(encode("news", n, "lobby"), position=Position("epoch", n)) for n in (6, 7)]
    node.redis.readable.clear()
    joining = asyncio.create_task(node.membership.join(late, "lobby", Position("epoch", 5)))
    for _ in range(5):
        await asyncio.sleep(0)
    node.membership.take_out(late, "lobby", "removed")
    node.redis.readable.set()
    with pytest.raises(ConnectionNotFound):
        await joining
    assert socket.writes == []
