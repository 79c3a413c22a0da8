"""A Redis that has lost its data, and nobody who remembers: what is written then passes for nothing that was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from redis.crc import key_slot

from gateway.application.publisher import Publisher
from gateway.backplane import Backplane
from gateway.backplane.scripts import READ
from gateway.config import Rule
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope
from gateway.protocol.message import Position
from gateway.redis.keys import Keys
from tests.harness.client import Clients
from tests.harness.cluster import RedisCluster
from tests.harness.feed import JSON, RULES, Feed, join, numbered
from tests.harness.node import Nodes
from tests.harness.numbered import running
from tests.harness.ports import HOST
from tests.harness.redis import RedisServer

pytestmark = pytest.mark.redis

KEPT = Rule(match="*", history=50, ttl=60)
NOT_TO_WRITE = "reader on >pw ~* &* +@all -@write"

StartNodes = Callable[..., Awaitable[Nodes]]
Losing = Callable[[RedisServer], Awaitable[object]]


async def flush(redis: RedisServer) -> None:
    await redis.command("FLUSHALL")


async def restart(redis: RedisServer) -> None:
    await redis.restart()


async def write(url: str, numbers: Iterable[int], channel: str = "kept") -> Position:
    """Append by a node that was not there before and knows of nothing; return where it ended."""
    async with running(url) as stranger:
        messages = [Envelope(codec.encode("n", number, channel)) for number in numbers]
        return [await stranger.append(channel, message, KEPT) for message in messages][-1]


async def is_told(reader: Backplane, lost: Position, new: Position, *numbers: int) -> None:
    """Fail if somebody who comes back with a position of the lost history is not told, or is not given the new one."""
    page = await reader.read("kept", after=lost, limit=99)
    assert new.epoch != lost.epoch
    assert (page.epoch, page.same, page.offset) == (new.epoch, False, len(numbers))
    assert tuple(codec.read(message.payload).param for message in page.messages) == numbers


class TestAnEmptiedRedis:
    @pytest.mark.parametrize("lose", [flush, restart], ids=lambda lose: lose.__name__)
    async def test_a_new_history_has_an_epoch_of_its_own(self, own_redis: RedisServer, lose: Losing) -> None:
        """Also where whoever writes first does not know that there was one."""
        lost = await write(own_redis.url, range(1, 4))
        await lose(own_redis)
        new = await write(own_redis.url, range(4, 9))
        async with running(own_redis.url) as reader:
            await is_told(reader, lost, new, *range(4, 9))

    async def test_so_has_one_in_a_cluster(self, small_cluster: RedisCluster) -> None:
        """Whichever master has lost its data."""
        lost = await write(small_cluster.url, range(1, 4))
        await (await small_cluster.master_of("{kept}")).command("FLUSHALL")
        new = await write(small_cluster.url, range(4, 9))
        async with running(small_cluster.url) as reader:
            await is_told(reader, lost, new, *range(4, 9))

    async def test_what_was_promised_before_the_loss_is_not_kept(self, redis: RedisServer) -> None:
        """Nobody can know what there was between the promise and the loss."""
        async with running(redis.url) as reader:
            promised = Position((await reader.read("kept", limit=9)).epoch, 0)
            await redis.command("FLUSHALL")
            assert not (await reader.read("kept", after=promised, limit=9)).same
            new = await write(redis.url, (1, 2))
            await is_told(reader, promised, new, 1, 2)

    async def test_publishers_write_like_nodes(self, redis: RedisServer) -> None:
        """Which know less than these: neither has any member."""
        ends = []
        for numbers in ((1, 2, 3), (4, 5, 6, 7, 8)):
            await redis.command("FLUSHALL")
            await redis.command("SET", "gateway:rules", '[{"match": "kept", "history": 50}]')
            async with Publisher(redis.url) as publisher:
                ends.append([await publisher.write_channel("n", number, "kept") for number in numbers][-1])
        lost, new = ends
        assert lost is not None
        assert new is not None
        async with running(redis.url) as reader:
            await is_told(reader, lost, new, *range(4, 9))

    async def test_a_client_that_comes_back_is_told(
        self, redis: RedisServer, start_nodes: StartNodes, connect: Clients
    ) -> None:
        """Where the channel had no member meanwhile, the node remembers nothing of it."""
        node = (await start_nodes(1, redis, channels=RULES))[0]
        client = await connect(node, protocols=[JSON])
        async with running(redis.url) as backplane:
            feed = Feed(backplane)
            at = await join(client)
            for _ in range(3):
                await feed.one()
        await client.close()
        await redis.command("FLUSHALL")
        async with running(redis.url) as backplane:
            feed = Feed(backplane)
            for _ in range(5):
                await feed.one()
        back = await connect(node, protocols=[JSON])
        answer = await join(back, since={"epoch": at["epoch"], "offset": 3})
        assert (answer["recovered"], answer["offset"]) == (False, 5)
        assert answer["epoch"] != at["epoch"]
        assert numbered(back.received) == []
        since = {"epoch": at["epoch"], "offset": 3}
        page = (await back.request("$history", {"since": since}, "kept"))["param"]
        assert [message["param"] for message in page["messages"]] == [1, 2, 3, 4, 5]


class TestTheSeed:
    @pytest.mark.parametrize(
        "command",
        [
            ("HSET", "gateway:seed", "some", "thing"),
            ("XADD", "gateway:seed", "*", "some", "thing"),
            ("SET", "gateway:seed", ""),
            ("SET", "gateway:seed", "no seed 1234"),
            ("SET", "gateway:seed", "0123456789abc"),
        ],
        ids=["hash", "stream", "empty", "text", "long"],
    )
    async def test_what_a_hand_puts_there_is_replaced(self, redis: RedisServer, command: tuple[str, ...]) -> None:
        """By whoever comes first, reader or writer; all keep to that."""
        async with running(redis.url) as one, running(redis.url) as other:
            await redis.command(*command)
            promised = (await one.read("kept", limit=9)).epoch
            assert (await other.read("kept", limit=9)).epoch == promised
            assert len(await redis.command("GET", "gateway:seed")) == 12
            assert (await write(redis.url, (1,)))[:2] == (promised, 1)
            await redis.command("DEL", "gateway:seed")
            await redis.command(*command)
            end = await write(redis.url, (1,), "other")
            assert (await other.read("other", limit=9)).epoch == end.epoch
            assert len(await redis.command("GET", "gateway:seed")) == 12

    async def test_a_loss_of_the_seed_alone_harms_no_history(self, redis: RedisServer) -> None:
        """Its epoch stands with it."""
        async with running(redis.url) as backplane:
            end = await write(redis.url, (1, 2))
            await redis.command("DEL", "gateway:seed")
            page = await backplane.read("kept", after=Position(end.epoch, 1), limit=9)
            assert (page.epoch, page.same, len(page.messages)) == (end.epoch, True, 1)
            assert (await write(redis.url, (3,)))[:2] == (end.epoch, 3)

    async def test_a_call_that_is_sent_again_makes_another(self, redis: RedisServer) -> None:
        """Its answer was lost, and then Redis lost its data."""
        keys = [f"gateway:{kind}" for kind in ("position:kept", "stream:kept", "seed")]
        epochs = set()
        for _ in range(2):
            epochs.add((await redis.command("EVAL", READ.text, len(keys), *keys, "0123456789ab", 9, 0, 0))[0])
            await redis.command("FLUSHALL")
        assert len(epochs) == 2

    async def test_many_readers_leave_one_key(self, redis: RedisServer) -> None:
        """However many channels they name that nobody has written to."""
        async with running(redis.url) as backplane:
            await asyncio.gather(*(backplane.read(f"named-{number}", limit=9) for number in range(1000)))
        assert await redis.command("KEYS", "*") == ["gateway:seed"]

    async def test_in_a_cluster_they_leave_one_for_a_slot(self, small_cluster: RedisCluster) -> None:
        """Where the channel's own keys are; channels of one slot share it."""
        names = [f"named-{number}" for number in range(3000)]
        async with running(small_cluster.url) as backplane:
            epochs = {(await backplane.read(name, limit=9)).epoch for name in names}
        keys: list[str] = []
        for master in await small_cluster.masters():
            keys += await master.command("KEYS", "*")
        slots = {key_slot(f"{{{name}}}".encode()) for name in names}
        assert sorted(key_slot(key.encode()) for key in keys) == sorted(slots)
        assert len(slots) < len(names) == len(epochs)
        assert set(keys) == {Keys("gateway", cluster=True).seed(name) for name in names}


async def forbid(redis: RedisServer) -> str:
    await redis.command("ACL", "SETUSER", *NOT_TO_WRITE.split())
    return f"redis://reader:pw@{HOST}:{redis.port}/0"


async def fill(redis: RedisServer) -> str:
    await redis.command("CONFIG", "SET", "maxmemory", "1")
    return redis.url


async def break_saving(redis: RedisServer) -> str:
    await redis.break_saving()
    return redis.url


async def permit_all(redis: RedisServer) -> None:
    await redis.command("CONFIG", "SET", "maxmemory", "0")
    if (await redis.command("INFO", "persistence"))["rdb_last_bgsave_status"] == "err":
        await redis.mend_saving()


class TestWithoutWriting:
    @pytest.mark.parametrize("refuse", [forbid, fill, break_saving], ids=lambda refuse: refuse.__name__)
    async def test_reading_is_answered(
        self, own_redis: RedisServer, refuse: Callable[[RedisServer], Awaitable[str]]
    ) -> None:
        """With an epoch that nobody keeps, which is the same each time; later writers have another."""
        url = await refuse(own_redis)
        async with running(url) as reader:
            pages: list[Any] = [await reader.read("kept", limit=9) for _ in range(2)]
            promised = Position(pages[0].epoch, 0)
            assert {page[:4] for page in pages} == {(promised.epoch, 0, 0, None)}
            assert (await reader.read("kept", after=promised, limit=9)).same
            assert await own_redis.command("EXISTS", "gateway:seed") == 0
            await permit_all(own_redis)
            end = await write(own_redis.url, (1, 2))
            await is_told(reader, promised, end, 1, 2)
            promised = Position((await reader.read("other", limit=9)).epoch, 0)
            assert (await write(own_redis.url, (1,), "other"))[0] == promised.epoch

    async def test_a_seed_that_is_there_is_enough(self, own_redis: RedisServer) -> None:
        """What is promised while nothing may be written is kept."""
        await write(own_redis.url, (1,), "other")
        async with running(await forbid(own_redis)) as reader:
            promised = (await reader.read("kept", limit=9)).epoch
        assert (await write(own_redis.url, (1,))).epoch == promised
