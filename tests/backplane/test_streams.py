"""Histories: what every backplane promises of `append` and `read`, and what Redis holds for a person to see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.backplane import Backplane, MemoryBackplane, Page, Target
from gateway.config import Rule
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope, unpack
from gateway.protocol.message import Position
from tests.harness.numbered import running
from tests.harness.proxy import Proxy
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

KEPT = Rule(match="*", history=5, ttl=60)
ALL = Rule(match="*", history=10_000, ttl=60)


def numbered(number: int, *exclude: str) -> Envelope:
    return Envelope(codec.encode("n", number, "lobby"), exclude)


def numbers(page: Page) -> list[Any]:
    return [codec.read(message.payload).param for message in page.messages]


def offsets(page: Page) -> list[int]:
    return [message.position.offset for message in page.messages if message.position]


async def append(backplane: Backplane, *values: int, rule: Rule = KEPT) -> Position:
    """Append these numbers to the lobby, at once; return the last position."""
    return (await asyncio.gather(*(backplane.append("lobby", numbered(value), rule) for value in values)))[-1]


@pytest.fixture
async def backplane(any_url: str) -> AsyncIterator[Backplane]:
    """One of every kind."""
    if any_url == "memory://":
        yield MemoryBackplane()
        return
    async with running(any_url) as found:
        yield found


class TestContract:
    async def test_messages_are_numbered_and_published(self, backplane: Backplane) -> None:
        """In the order of the calls, in one epoch, with their positions."""
        await backplane.subscribe([Target("channel", "lobby")])
        last = await append(backplane, 1, 2, 3)
        found: list[Envelope] = []
        async with asyncio.timeout(10):
            async for batch in backplane.batches():
                found += [unpack(data) for target, data in batch if target.kind == "channel"]
                if len(found) == 3:
                    break
        assert [(m.position.epoch, m.position.offset) for m in found if m.position] == [
            (last.epoch, offset) for offset in (1, 2, 3)
        ]
        page = await backplane.read("lobby", limit=10)
        assert [(m.payload, m.position) for m in page.messages] == [(m.payload, m.position) for m in found]

    async def test_whom_a_message_skips_is_kept(self, backplane: Backplane) -> None:
        """A re-read after an outage skips them too."""
        await backplane.append("lobby", numbered(1, "n~1", "n~2"), KEPT)
        page = await backplane.read("lobby", limit=1)
        assert set(page.messages[0].exclude) == {"n~1", "n~2"}

    async def test_the_oldest_messages_go(self, backplane: Backplane) -> None:
        """Exactly as many stay as the rule says."""
        await append(backplane, *range(1, 9))
        page = await backplane.read("lobby", limit=100)
        assert (offsets(page), numbers(page), page.offset) == ([4, 5, 6, 7, 8], [4, 5, 6, 7, 8], 8)

    async def test_pages(self, backplane: Backplane) -> None:
        """The newest ones without a position; the first ones behind one; all of them behind another epoch's."""
        end = await append(backplane, 1, 2, 3, 4, 5)
        assert offsets(await backplane.read("lobby", limit=2)) == [4, 5]
        assert offsets(await backplane.read("lobby", limit=0)) == []
        for after, limit, expected, more in ((1, 2, [2, 3], True), (3, 9, [4, 5], False), (5, 9, [], False)):
            page = await backplane.read("lobby", after=Position(end.epoch, after), limit=limit)
            assert (offsets(page), page.more) == (expected, more)
        assert offsets(await backplane.read("lobby", after=Position("other", 4), limit=9)) == [1, 2, 3, 4, 5]
        assert offsets(await backplane.read("lobby", after=Position(end.epoch, 99), limit=9)) == []

    async def test_a_page_tells_what_is_at_an_offset(self, backplane: Backplane) -> None:
        """By its time; nothing where nothing is."""
        await append(backplane, 1, 2)
        page = await backplane.read("lobby", limit=2, seen=1)
        assert page.messages[0].position is not None
        assert page.seen == page.messages[0].position.time
        assert (await backplane.read("lobby", limit=2, seen=3)).seen is None

    async def test_a_channel_has_an_epoch_before_its_first_message(self, backplane: Backplane) -> None:
        """So that a client may come back to it."""
        page = await backplane.read("lobby", limit=10)
        assert (page.offset, page.messages) == (0, [])
        assert (await append(backplane, 1))[:2] == (page.epoch, 1)

    async def test_channels_count_for_themselves(self, backplane: Backplane) -> None:
        """Offsets and epochs."""
        one = await backplane.append("one", numbered(1), KEPT)
        other = await backplane.append("other", numbered(1), KEPT)
        assert one.offset == other.offset == 1
        assert one.epoch != other.epoch

    async def test_positions_outlive_messages(self, backplane: Backplane) -> None:
        """What has expired is gone; the epoch holds, and the count goes on."""
        end = await append(backplane, 1, 2, rule=Rule(match="*", history=5, ttl=1))

        async def expired() -> bool:
            return not (await backplane.read("lobby", limit=5)).messages

        await eventually(expired)
        page = await backplane.read("lobby", after=Position(end.epoch, 1), limit=5)
        assert (page.epoch, page.offset, page.more) == (end.epoch, 2, False)
        assert (await append(backplane, 3))[:2] == (end.epoch, 3)

    async def test_an_epoch_is_renewed_once(self, backplane: Backplane) -> None:
        """By whoever says first that it must end; the messages stay."""
        end = await append(backplane, 1, 2, 3)
        await backplane.renew("lobby", end.epoch, 2)
        page = await backplane.read("lobby", after=end, limit=5)
        assert page.epoch != end.epoch
        assert (page.start, page.offset, offsets(page)) == (2, 3, [3])
        await backplane.renew("lobby", end.epoch, 1)
        assert (await backplane.read("lobby", limit=0))[:3] == page[:3]


@pytest.mark.redis
class TestByHand:
    async def test_a_person_can_read_a_stream(self, redis: RedisServer) -> None:
        """Ids are offset and time, `message` is what clients get."""
        async with running(redis.url) as backplane:
            await backplane.append("lobby", numbered(1), ALL)
            await backplane.append("lobby", numbered(2, "n~1"), ALL)
        first, second = await redis.command("XRANGE", "gateway:stream:lobby", "-", "+")
        assert first[0].split("-")[0] == "1"
        assert first[1] == {"message": '{"channel":"lobby","cmd":"n","param":1}'}
        assert second[1]["exclude"] == '["n~1"]'
        assert len(await redis.command("XRANGE", "gateway:stream:lobby", "2", "+")) == 1
        assert 0 < await redis.command("TTL", "gateway:stream:lobby") <= 60
        assert await redis.command("TTL", "gateway:position:lobby") > 24 * 3600

    @pytest.mark.parametrize(
        ("command", "kept"),
        [
            ("XADD gateway:stream:lobby * some thing", [1, 2, 3]),
            ("XADD gateway:stream:lobby 4-0 message nonsense", [1, 2, 3]),
            ('XADD gateway:stream:lobby 3-99999999999999 message {"cmd":"x"}', [1, 2, 3]),
            ("XADD gateway:stream:lobby 18446744073709551615-18446744073709551615 some thing", [1, 2, 3]),
            ("DEL gateway:stream:lobby", []),
            ("SET gateway:stream:lobby text", []),
            ("XTRIM gateway:stream:lobby MAXLEN 1", [3]),
        ],
    )
    async def test_what_a_person_writes_to_a_stream_harms_nothing(
        self, redis: RedisServer, command: str, kept: list[int]
    ) -> None:
        """The messages that are left stay, and new ones follow with the next offset."""
        async with running(redis.url) as backplane:
            end = await append(backplane, 1, 2, 3, rule=ALL)
            await redis.command(*command.split())
            assert numbers(await backplane.read("lobby", limit=9)) == kept
            assert (await append(backplane, 4, rule=ALL))[:2] == (end.epoch, 4)
            page = await backplane.read("lobby", limit=9)
            assert (numbers(page), offsets(page)) == ([*kept, 4], [*kept, 4])

    @pytest.mark.parametrize(
        "command",
        ["SET gateway:position:lobby x", "HSET gateway:position:lobby offset x", "HSET gateway:position:lobby start 9"],
    )
    async def test_a_spoiled_position_is_set_right_from_the_stream(self, redis: RedisServer, command: str) -> None:
        """A new epoch begins behind what is kept, and nothing of that is lost."""
        async with running(redis.url) as backplane:
            end = await append(backplane, 1, 2, 3, rule=ALL)
            await redis.command(*command.split())
            again = await append(backplane, 4, rule=ALL)
            assert again.epoch != end.epoch
            page = await backplane.read("lobby", after=end, limit=9)
            assert (page.start, numbers(page), offsets(page)) == (3, [4], [4])
            assert numbers(await backplane.read("lobby", limit=9)) == [1, 2, 3, 4]

    @pytest.mark.parametrize("command", ["FLUSHALL", "DEL gateway:position:lobby"])
    async def test_a_lost_position_begins_a_new_epoch(self, redis: RedisServer, command: str) -> None:
        """What is left of the stream is nobody's."""
        async with running(redis.url) as backplane:
            end = await append(backplane, 1, 2, 3, rule=ALL)
            await redis.command(*command.split())
            again = await append(backplane, 4, rule=ALL)
            assert again.epoch != end.epoch
            page = await backplane.read("lobby", after=end, limit=9)
            assert (page.epoch, numbers(page), offsets(page)) == (again.epoch, [4], [1])

    async def test_redis_may_forget_the_scripts(self, redis: RedisServer) -> None:
        """It is told them again; nothing fails, and nothing is out of order."""
        async with running(redis.url) as backplane:
            appends = []
            for value in range(300):
                appends.append(asyncio.create_task(backplane.append("lobby", numbered(value), ALL)))
                if value % 100 == 50:
                    await redis.command("SCRIPT", "FLUSH")
            await asyncio.gather(*appends)
            assert numbers(await backplane.read("lobby", limit=1000)) == list(range(300))


@pytest.mark.redis
class TestBrokenLinks:
    async def test_nothing_is_appended_twice(
        self, redis: RedisServer, start_proxy: Callable[[RedisServer], Proxy]
    ) -> None:
        """Redis carried it out and the answer was lost: sent again over the next link, it is done already."""
        proxy = start_proxy(redis)
        async with running(f"redis://127.0.0.1:{proxy.port}/0") as backplane, running(redis.url) as observer:
            for first in range(0, 500, 100):
                if first:
                    proxy.to_client.black_hole()
                values = range(first, first + 100)
                appends = [asyncio.create_task(backplane.append("lobby", numbered(value), ALL)) for value in values]
                if first % 200:
                    await self._begun(observer, first)
                proxy.reset()
                proxy.heal()
                await asyncio.gather(*appends)
            assert numbers(await observer.read("lobby", limit=1000)) == list(range(500))

    async def _begun(self, observer: Backplane, first: int) -> None:
        """Wait until Redis has carried out some of the appends behind `first`."""

        async def is_there() -> bool:
            return (await observer.read("lobby", limit=0)).offset > first

        await eventually(is_there)

    async def test_senders_do_not_take_each_other_s_for_repetitions(self, redis: RedisServer) -> None:
        """Each counts its own."""
        async with running(redis.url) as one, running(redis.url) as other:
            for backplane in (one, other, other, one):
                await append(backplane, 1, rule=ALL)
            assert offsets(await one.read("lobby", limit=9)) == [1, 2, 3, 4]
