"""Joining, resuming and mending channels with history, at any order of what Redis sends and answers."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Any, cast

import pytest

from gateway.backplane import Page, Target
from gateway.backplane.memory import MemoryStreams
from gateway.config import Rule
from gateway.connections.connection import Connection
from gateway.connections.counters import Counters
from gateway.connections.hub import Hub
from gateway.errors import Unavailable
from gateway.node.delivery import Delivery
from gateway.node.history import MOST_BYTES, PAGE, History, _after
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope
from gateway.protocol.message import Position
from tests.harness.fakes import RecordingSocket, make_connection

RULE = Rule(match="*", history=1000, ttl=0)


class Redis:
    """A history whose answers and arrivals come when the test says so."""

    def __init__(self) -> None:
        self.streams = MemoryStreams()
        self.arrivals: deque[Envelope | None] = deque()
        self.asked: deque[tuple[dict[str, Any], asyncio.Future[Page]]] = deque()
        self.subscribed = True
        self.count = 0

    def publish(self) -> Position:
        """Append the next number."""
        self.count += 1
        kept = self.streams.append("lobby", Envelope(codec.encode("n", self.count, "lobby")), RULE)
        if self.subscribed:
            self.arrivals.append(kept)
        assert kept.position is not None
        return kept.position

    async def read(
        self, channel: str, *, after: Position | None = None, limit: int, seen: int = 0, size: int = 0
    ) -> Page:
        answer: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        self.asked.append(({"after": after, "limit": limit, "seen": seen, "size": size}, answer))
        return await answer

    async def renew(self, channel: str, epoch: str, behind: int) -> None:
        self.streams.renew(channel, epoch, behind)

    def carry_out(self) -> None:
        """Execute and answer the oldest read."""
        if self.asked:
            question, answer = self.asked.popleft()
            answer.set_result(self.streams.read("lobby", **question))


class Node:
    """One node's history of `lobby`, in front of sockets that record."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.hub = Hub()
        self.counters = Counters()
        self.delivery = Delivery(self.hub, lambda _: RULE, self.counters)
        self.history = History(self.hub, cast("Any", redis), self.delivery, lambda _: RULE, self.counters)
        self.joins: list[asyncio.Task[bool]] = []
        self.members: list[tuple[Connection, RecordingSocket, Position | None]] = []
        self.mending = asyncio.create_task(self.history.run())

    def join(self, since: Position | None = None, *, protocol: str = codec.JSON) -> RecordingSocket:
        connection, socket = make_connection(f"n~{len(self.members)}")
        connection.dialect = codec.dialect_of(protocol)
        self.hub.add(connection)
        self.hub.join(connection, "lobby", receiving=False)
        self.joins.append(asyncio.create_task(self.history.enter(connection, "lobby", since)))
        self.members.append((connection, socket, since))
        return socket

    def arrive(self) -> None:
        """Let the next message come over the subscription, or word of its loss."""
        if not self.redis.arrivals:
            return
        message = self.redis.arrivals.popleft()
        if message is None:
            self.history.lost("lobby")
        elif self.history.arrived("lobby", message):
            self.delivery.add(Target("channel", "lobby"), message)
        self.delivery.write()

    def lose(self) -> None:
        """Lose the subscription, with what was on its way, or have it back."""
        if self.redis.subscribed:
            self.redis.arrivals = deque(each for each in self.redis.arrivals if each is None)
        else:
            self.redis.arrivals.append(None)
        self.redis.subscribed = not self.redis.subscribed

    async def settle(self) -> None:
        """Let everything come that is on its way."""
        if not self.redis.subscribed:
            self.lose()
        await turn()
        while self.redis.arrivals or self.redis.asked:
            self.arrive()
            self.redis.carry_out()
            await turn()
        await asyncio.gather(*self.joins)

    def close(self) -> None:
        for task in (self.mending, *self.joins):
            task.cancel()


async def turn(steps: int = 12) -> None:
    """Let every task do what it can, or only begin to."""
    for _ in range(steps):
        await asyncio.sleep(0)


def numbers(socket: RecordingSocket) -> list[int]:
    return [message["param"] for message in socket.messages if message["cmd"] == "n"]


def gaps(socket: RecordingSocket) -> list[Any]:
    return [message["param"] for message in socket.messages if message["cmd"] == "$gap"]


WEIGHTS = {"publish": 6, "arrive": 6, "answer": 3, "join": 1, "resume": 2, "lose": 1}


async def _live(steps: list[str], chance: random.Random) -> None:
    redis = Redis()
    node = Node(redis)
    epoch = redis.streams.read("lobby", None, 0, 0).epoch
    for step in steps:
        match step:
            case "publish":
                redis.publish()
            case "arrive":
                node.arrive()
            case "answer":
                redis.carry_out()
            case "join":
                node.join()
            case "resume":
                node.join(Position(epoch, chance.randint(max(0, redis.count - 10), redis.count)))
            case "lose":
                node.lose()
        await turn(chance.choice((0, 1, 2, 3, 12)))
    await node.settle()
    for join, (_, socket, since) in zip(node.joins, node.members, strict=True):
        found = numbers(socket)
        first = since.offset + 1 if since else (found[0] if found else redis.count + 1)
        assert found == list(range(first, redis.count + 1)), steps
        assert [m["offset"] for m in socket.messages] == found
        assert join.result() is (since is not None)
    node.close()


async def test_members_see_every_message_once_and_in_order() -> None:
    """Whenever they join, whatever they have missed, however often the subscription is lost meanwhile."""
    for seed in range(500):
        chance = random.Random(seed)
        await _live(chance.choices([*WEIGHTS], [*WEIGHTS.values()], k=60), chance)


async def test_a_member_without_a_position_costs_no_read_after_the_first() -> None:
    """The node knows where it is."""
    redis = Redis()
    node = Node(redis)
    redis.publish()
    for _ in range(3):
        node.join()
    await turn()
    assert len(redis.asked) == 1  # nobody knew yet
    await node.settle()
    node.join()
    await turn()
    assert (len(redis.asked), node.joins[-1].result()) == (0, False)
    node.close()


async def test_members_who_come_back_at_once_cost_one_read() -> None:
    """Whoever was at the same place; those who were elsewhere ask for themselves."""
    redis = Redis()
    node = Node(redis)
    at = [redis.publish() for _ in range(10)][-1]
    node.join()
    await node.settle()
    back = [node.join(at._replace(offset=offset, time=0)) for offset in (5, 8) for _ in range(50)]
    await turn()
    assert len(redis.asked) == 2
    asked = [asyncio.create_task(node.history.reply("lobby", None, 5000)) for _ in range(50)]
    await turn()
    assert len(redis.asked) == 3
    assert redis.asked[-1][0] == {"after": None, "limit": PAGE, "seen": 0, "size": MOST_BYTES}
    await node.settle()
    assert [numbers(socket) for socket in back] == [[6, 7, 8, 9, 10]] * 50 + [[9, 10]] * 50
    assert {len((await each).messages) for each in asked} == {10}
    node.close()


async def test_plain_members_are_told_no_offset_and_no_gap() -> None:
    """They get the original's messages."""
    redis = Redis()
    node = Node(redis)
    plain, v1 = node.join(protocol=codec.PLAIN), node.join()
    await node.settle()
    redis.publish()
    await node.settle()
    redis.streams = MemoryStreams()
    redis.publish()
    await node.settle()
    assert ["offset" in message for message in plain.messages] == [False, False]
    assert [message["cmd"] for message in v1.messages] == ["n", "$gap", "n"]
    assert numbers(plain) == numbers(v1) == [1, 2]
    node.close()


async def test_a_new_epoch_is_told_once_and_goes_on() -> None:
    """With the position of the last message that was passed on."""
    redis = Redis()
    node = Node(redis)
    member = node.join()
    await node.settle()
    old = [redis.publish() for _ in range(3)][-1]
    await node.settle()
    redis.streams = MemoryStreams()
    new = [redis.publish() for _ in range(3)][-1]
    await node.settle()
    assert numbers(member) == [1, 2, 3, 4, 5, 6]
    assert gaps(member) == [{"epoch": new.epoch, "since": {"epoch": old.epoch, "offset": 3}}]
    assert (node.counters.gaps_told, node.history.position("lobby")) == (1, new)
    node.close()


async def test_a_position_that_cannot_be_honoured_is_not_recovered() -> None:
    """Of another epoch, or beyond the end; the member is let in all the same."""
    redis = Redis()
    node = Node(redis)
    end = redis.publish()
    await node.settle()
    for since in (Position("other", 0), Position(end.epoch, 9)):
        node.join(since)
    await node.settle()
    redis.publish()
    await node.settle()
    assert [join.result() for join in node.joins] == [False, False]
    assert [numbers(socket) for _, socket, _ in node.members] == [[2], [2]]
    node.close()


def test_a_position_from_long_ago_costs_nothing() -> None:
    """It is counted how much is missing between it and what is kept, not gone through."""
    kept = [Envelope(b"", position=Position("e", offset)) for offset in (10**15 - 1, 10**15)]
    assert _after(Page("e", 10**15, 0, None, kept, more=False), Position("e", 0)) is None
    assert _after(Page("e", 10**15, 0, None, kept, more=False), Position("e", 10**15 - 2)) == kept


async def test_writes_that_a_failover_lost_end_the_epoch() -> None:
    """Their offsets are given out again; members are told, and get every message that there is."""
    redis = Redis()
    node = Node(redis)
    member = node.join()
    await node.settle()
    for _ in range(5):
        redis.publish()
        await asyncio.sleep(0.002)  # the clock tells one message from another
    await node.settle()
    stream = redis.streams._streams["lobby"]
    stream.offset -= 2
    for _ in range(2):
        stream.messages.pop()
    node.lose()
    for _ in range(4):
        redis.publish()
    await node.settle()
    assert len(gaps(member)) == 1
    assert gaps(member)[0]["epoch"] == stream.epoch
    redis.publish()
    await node.settle()
    assert numbers(member) == [*range(1, 11)]
    node.close()


async def test_a_position_is_reached_when_its_message_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is told of it takes what comes up to it, and has not come yet, for doubles."""
    monkeypatch.setattr("gateway.node.delivery.AT_ONCE", 2)
    redis = Redis()
    node = Node(redis)
    members = [node.join() for _ in range(5)]
    await node.settle()
    at = redis.publish()
    node.arrive()
    assert node.history.position("lobby") == at
    asked = asyncio.create_task(node.history.reached("lobby"))
    await turn()
    assert not asked.done()
    writing = asyncio.create_task(node.delivery.run())
    assert await asked == at
    assert all(numbers(member) == [1] for member in members)
    writing.cancel()
    node.close()


async def test_a_join_that_redis_does_not_answer_fails_alone() -> None:
    """Others go on, and nothing is remembered for it."""
    redis = Redis()
    node = Node(redis)
    node.join()
    await node.settle()
    node.join(Position("other", 0))
    await turn()
    redis.asked.popleft()[1].set_exception(Unavailable("Redis is away"))
    failed = (await asyncio.gather(node.joins.pop(), return_exceptions=True))[0]
    assert isinstance(failed, Unavailable)
    assert node.history._progress["lobby"].readers == 0
    node.close()


async def test_a_channel_without_history_is_told_of_a_loss() -> None:
    """Its v1 members are, once."""
    node = Node(Redis())
    connection, socket = make_connection("n~1")
    connection.dialect = codec.dialect_of(codec.JSON)
    node.hub.add(connection)
    node.hub.join(connection, "side")
    node.history.lost("side")
    assert socket.messages == [{"channel": "side", "cmd": "$gap", "param": {}}]
    assert node.counters.gaps_told == 1
    node.close()
