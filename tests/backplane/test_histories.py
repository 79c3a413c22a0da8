"""What strangers who name channels leave behind: nothing by joining, and by writing no more than is bounded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha1
from typing import Any

import pytest

from gateway.backplane import Backplane, MemoryBackplane
from gateway.backplane.counters import BackplaneCounters
from gateway.backplane.history_sizes import LINGER, OVERHEAD, HistorySizes
from gateway.config import Rule
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope
from gateway.protocol.message import Position
from gateway.redis.keys import Keys
from tests.harness.client import Client, Clients
from tests.harness.node import Nodes
from tests.harness.numbered import running
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

V1 = ["gateway.v1.json"]
RULES: list[dict[str, Any]] = [{"match": "*", "history": 100, "ttl": 60}]
TOTAL = 20 * OVERHEAD
SEED = "0123456789ab"

StartNodes = Callable[..., Awaitable[Nodes]]


def message(size: int, *, number: int = 0, channel: str = "lobby") -> Envelope:
    """Make one of exactly so many bytes."""
    padding = size - len(codec.encode("n", [number, ""], channel))
    return Envelope(codec.encode("n", [number, "x" * padding], channel))


async def fill(backplane: Backplane, rule: Rule, *sizes: int) -> Position:
    """Append messages of these sizes to the lobby; return where it ends."""
    messages = [message(size, number=number) for number, size in enumerate(sizes)]
    return (await asyncio.gather(*(backplane.append("lobby", each, rule) for each in messages)))[-1]


@pytest.fixture
async def backplane(any_url: str) -> AsyncIterator[Backplane]:
    """One of every kind, for which all histories together are to stay small."""
    if any_url == "memory://":
        yield MemoryBackplane(history_total_bytes=TOTAL)
        return
    async with running(any_url, history_total_bytes=TOTAL) as found:
        yield found


class TestBytes:
    @pytest.mark.parametrize(("most", "kept"), [(0, 50), (10_000, 10), (10_999, 10), (1000, 1), (999, 0)])
    async def test_a_channel_keeps_so_many_bytes(self, backplane: Backplane, most: int, kept: int) -> None:
        """The newest messages that fit, and none that does not; what went is counted, and a reader sees the hole."""
        rule = Rule(match="*", history=50, history_bytes=most)
        end = await fill(backplane, rule, *[1000] * 60)
        page = await backplane.read("lobby", after=Position(end.epoch, 0), limit=100)
        assert [each.position.offset for each in page.messages if each.position] == list(range(61 - kept, 61))
        assert (page.offset, page.more) == (60, False)
        assert backplane.counters.history_trimmed == (60 - kept if most else 0)

    async def test_what_went_by_number_makes_room(self, backplane: Backplane) -> None:
        """The sum is of what is there."""
        rule = Rule(match="*", history=3, history_bytes=3500)
        await fill(backplane, rule, 1000, 1000, 1000, 1000, 2000, 400, 400, 400)
        page = await backplane.read("lobby", limit=100)
        assert [len(each.payload) for each in page.messages] == [400, 400, 400]
        end = await backplane.append("lobby", message(2700), rule)
        assert len((await backplane.read("lobby", after=Position(end.epoch, 0), limit=9)).messages) == 3

    @pytest.mark.parametrize(("size", "after", "expected"), [(2500, None, [9, 10]), (2500, 3, [4, 5]), (10, 3, [4])])
    async def test_a_page_has_so_many_bytes(
        self, backplane: Backplane, size: int, after: int | None, expected: list[int]
    ) -> None:
        """And one message at least; it says whether there are more behind it."""
        rule = Rule(match="*", history=50)
        end = await fill(backplane, rule, *[1000] * 10)
        since = None if after is None else Position(end.epoch, after)
        page = await backplane.read("lobby", after=since, limit=40, size=size)
        assert [each.position.offset for each in page.messages if each.position] == expected
        assert page.more == (after is not None)
        rest = await backplane.read("lobby", after=Position(end.epoch, 8), limit=40, size=2500)
        assert (len(rest.messages), rest.more) == (2, False)

    @pytest.mark.parametrize("offset", [4, 5, 10**15, 1 << 63, (1 << 64) - 1])
    async def test_nothing_is_behind_the_end(self, backplane: Backplane, offset: int) -> None:
        """However far behind it a client claims to be."""
        end = await fill(backplane, Rule(match="*", history=50), *[1000] * 4)
        page = await backplane.read("lobby", after=Position(end.epoch, offset), limit=9)
        assert (page.offset, page.messages, page.more, page.same) == (4, [], False, True)

    async def test_all_histories_together_are_bounded(
        self, backplane: Backplane, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The ones not written to for longest go: who comes back there sees that something is missing."""
        rule, ends = Rule(match="*", history=50), {}
        with caplog.at_level(logging.WARNING):
            for number in range(100):
                channel = f"name-{number}"
                await backplane.append("lobby", message(100), rule)
                ends[channel] = await backplane.append(channel, message(100, channel=channel), rule)
        left = []
        for channel, end in ends.items():
            page = await backplane.read(channel, after=Position(end.epoch, 0), limit=9)
            if page.messages:
                left.append(channel)
            else:
                assert (page.epoch, page.offset) != (end.epoch, 0)
        assert left == [f"name-{number}" for number in range(100 - len(left), 100)]
        assert 10 <= len(left) < 20
        assert backplane.counters.histories_dropped == 100 - len(left)
        assert len((await backplane.read("lobby", limit=100)).messages) == 50
        assert len([record for record in caplog.records if "history_total_bytes" in record.message]) == 1


class TestPromises:
    async def test_reading_makes_nothing(self, backplane: Backplane) -> None:
        """And all are told the same epoch, which the first message has."""
        pages = [await backplane.read("lobby", limit=10) for _ in range(3)]
        assert {page[:4] for page in pages} == {(pages[0].epoch, 0, 0, None)}
        if isinstance(backplane, MemoryBackplane):
            assert backplane._streams._streams == {}
        end = await backplane.append("lobby", message(100), Rule(match="*", history=9))
        assert end[:2] == (pages[0].epoch, 1)

    async def test_a_channel_whose_history_is_lost_has_another_epoch(self, backplane: Backplane) -> None:
        """Whoever knows of the lost one says so; else offsets would be given out twice."""
        rule = Rule(match="*", history=9)
        first = await backplane.append("lobby", message(100), rule)
        if isinstance(backplane, MemoryBackplane):
            backplane._streams._forget("lobby")
        else:
            await _forget(backplane, "lobby")
        again = await backplane.append("lobby", message(100), rule)
        assert again.epoch != first.epoch
        page = await backplane.read("lobby", after=first, limit=9)
        assert (page.same, len(page.messages)) == (False, 1)


async def _forget(backplane: Any, channel: str) -> None:
    keys: Keys = backplane._keys
    for key in (keys.position(channel), keys.stream(channel)):
        await backplane._streams._call(("DEL", key), size=0)


@pytest.mark.redis
class TestOtherPeriods:
    """Nodes that looked at a channel at different times have promised different epochs."""

    @staticmethod
    async def promised(redis: RedisServer, hours: float, channel: str = "lobby") -> str:
        """Return what was promised so long ago, by the seed of today."""
        seconds, _ = await redis.command("TIME")
        period = int((int(seconds) - hours * 3600) // 1800)
        await redis.command("SET", "gateway:seed", SEED)
        return sha1(f"{SEED} gateway:stream:{channel} {period}".encode()).hexdigest()[:12]

    @pytest.mark.parametrize(("hours", "holds"), [(0, True), (1, True), (23, True), (25, False)])
    async def test_a_promise_holds_for_a_day(self, redis: RedisServer, hours: float, holds: bool) -> None:
        """Whether the channel is empty still or not: longer ago than that, another history may have been."""
        epoch = await self.promised(redis, hours)
        async with running(redis.url) as backplane:
            empty = await backplane.read("lobby", after=Position(epoch, 0), limit=9)
            assert (empty.same, empty.epoch == epoch) == (holds, holds)
            end = await backplane.append("lobby", message(100), Rule(match="*", history=9))
            page = await backplane.read("lobby", after=Position(epoch, 0), limit=9)
            assert (page.epoch, page.same, len(page.messages)) == (end.epoch, holds, 1)
            live = await backplane.read("lobby", after=Position(epoch, 1), limit=9)
            assert live.same == holds
            await backplane.renew("lobby", end.epoch, 0)
            assert not (await backplane.read("lobby", after=Position(epoch, 0), limit=9)).same

    async def test_members_who_were_promised_another_epoch_miss_nothing(
        self, redis: RedisServer, start_nodes: StartNodes, connect: Clients
    ) -> None:
        """They are told no gap, and come back with what they were promised."""
        nodes = await start_nodes(2, redis, channels=RULES)
        epoch = await self.promised(redis, 3, "old")
        member = await connect(nodes[0], protocols=V1)
        since = {"epoch": epoch, "offset": 0}
        assert await joined(member, "old", since) == {"epoch": epoch, "offset": 0, "recovered": True}
        for number in range(3):
            await member.send("chat", {"text": str(number)}, "old")
        told = await member.receive_many(4)
        assert [m["cmd"] for m in told if m["cmd"] != "$welcome"] == ["chat"] * 3
        back = await connect(nodes[1], protocols=V1)
        answer = await joined(back, "old", {"epoch": epoch, "offset": 2})
        assert (answer["offset"], answer["recovered"]) == (3, True)
        assert [m["offset"] for m in back.received if m["cmd"] == "chat"] == [3]


async def joined(client: Client, channel: str, since: object = None) -> dict[str, Any]:
    answer = await client.request("$join", since and {"since": since}, channel)
    assert answer["cmd"] == "$reply", answer
    return dict(answer["param"])


@pytest.mark.redis
class TestStrangers:
    async def test_joining_writes_nothing(self, redis: RedisServer, start_nodes: StartNodes, connect: Clients) -> None:
        """Beyond what ends with the membership, whatever a stranger names; nor does coming back, or reading."""
        nodes = await start_nodes(1, redis, channels=RULES)
        stranger = await connect(nodes[0], *(f"named-{n}" for n in range(30)), protocols=V1)
        for number in range(30, 60):
            answer = await joined(stranger, f"named-{number}")
            since = {"epoch": answer["epoch"], "offset": 0}
            assert (await joined(stranger, f"named-{number}", since))["recovered"] is True
            await stranger.request("$history", {"since": since}, f"named-{number}")

        async def kinds() -> set[str]:
            return {key.split(":")[1] for key in await redis.command("KEYS", "*:*named-*")}

        assert await kinds() == {"members", "online"}
        await stranger.close()

        async def is_gone() -> bool:
            return not await kinds()

        await eventually(is_gone)

    async def test_who_left_before_the_first_message_gets_it(
        self, redis: RedisServer, start_nodes: StartNodes, connect: Clients
    ) -> None:
        """On any node, though nothing was kept of him or of the channel."""
        nodes = await start_nodes(2, redis, channels=RULES)
        early, writer = await connect(nodes[0], protocols=V1), await connect(nodes[1], protocols=V1)
        at = await joined(early, "quiet")
        await early.close()
        await joined(writer, "quiet")
        for number in range(3):
            await writer.request("chat", {"text": str(number)}, "quiet")
        for node in nodes:
            back = await connect(node, protocols=V1)
            answer = await joined(back, "quiet", {"epoch": at["epoch"], "offset": at["offset"]})
            told = [m["offset"] for m in back.received if m["cmd"] == "chat"]
            assert (answer["recovered"], told) == (True, [1, 2, 3])

    async def test_a_position_lasts_as_long_as_its_history_may_come_back(self, redis: RedisServer) -> None:
        """A day longer than the messages; for good where they are kept for good."""
        async with running(redis.url) as backplane:
            for ttl in (1, 60, 0):
                await backplane.append(f"ttl-{ttl}", message(100), Rule(match="*", history=9, ttl=ttl))
        for ttl, lasts in ((1, LINGER + 1), (60, LINGER + 60)):
            assert lasts - 20 <= await redis.command("TTL", f"gateway:position:ttl-{ttl}") <= lasts
        assert await redis.command("TTL", "gateway:position:ttl-0") == -1


class TestLedger:
    @staticmethod
    def of(most: int) -> HistorySizes:
        return HistorySizes(most, BackplaneCounters())

    def test_it_forgets_what_has_expired(self) -> None:
        """By its own time to live and the time for which a position stays; what is kept for good stays."""
        sizes = self.of(0)
        for number in range(100):
            sizes.note(f"name-{number}", Position("e", 1), 100, 60, float(number))
        sizes.note("for-good", Position("e", 1), 100, 0, 200.0)
        assert len(sizes) == 101
        sizes.note("late", Position("e", 1), 100, 60, LINGER + 110.0)
        assert len(sizes) == 100 - 51 + 2
        sizes.note("later", Position("e", 1), 100, 60, 3.0 * LINGER)
        assert [sizes.epoch(name) for name in ("for-good", "later", "late", "name-99")] == ["e", "e", "", ""]

    def test_the_sum_is_never_exceeded(self) -> None:
        """Whatever grows and shrinks; the one in hand stays, however large it is."""
        sizes = self.of(10 * OVERHEAD)
        for number in range(50):
            sizes.note(f"name-{number % 13}", Position("e", number), number * 300 % 5000, number % 3, 0.0)
            assert sizes._size <= 10 * OVERHEAD
            entries = [entry for queue in sizes._queues.values() for entry in queue.values()]
            assert sizes._size == sum(entry.size + OVERHEAD for entry in entries)
        gone = sizes.note("huge", Position("e", 1), 100 * OVERHEAD, 60, 0.0)
        assert (len(sizes), len(gone) > 1) == (1, True)


async def test_a_history_in_memory_leaves_nothing_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither messages nor the name."""
    monkeypatch.setattr("gateway.backplane.memory.LINGER", 0.05)
    backplane = MemoryBackplane()
    await backplane.append("lobby", message(100), Rule(match="*", history=9, ttl=1))
    assert "lobby" in backplane._streams._streams
    await eventually(lambda: not backplane._streams._streams)
    assert backplane.counters.histories_dropped == 0
