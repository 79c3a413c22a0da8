"""A steady feed of numbered messages to channels of real nodes, and what clients make of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from gateway.backplane import Backplane, Target
from gateway.config import Rule
from gateway.errors import Unavailable
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope, pack
from tests.harness.client import Client, Message
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

JSON, MSGPACK = "gateway.v1.json", "gateway.v1.msgpack"
RULES: list[dict[str, Any]] = [
    {"match": "kept*", "history": 20_000, "ttl": 60},
    {"match": "short", "history": 3, "ttl": 60},
    {"match": "hidden", "presence": False},
]
KEPT = Rule.model_validate(RULES[0])
PAUSE = 0.002


class Feed:
    """Publishes number after number to `kept` and to `loose`, without waiting for one before the next."""

    def __init__(self, backplane: Backplane) -> None:
        self._backplane = backplane
        self._under_way: set[asyncio.Task[None]] = set()
        self.sent = 0

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[Feed]:
        """Publish for the length of a `with`; return when the last one is answered."""
        publishing = asyncio.create_task(self._publish_on())
        try:
            yield self
        finally:
            publishing.cancel()
            with suppress(asyncio.CancelledError):
                await publishing
            await asyncio.gather(*self._under_way)

    async def one(self) -> int:
        """Publish the next number, alone."""
        self.sent += 1
        await self._publish(self.sent)
        return self.sent

    async def _publish_on(self) -> None:
        while True:
            for _ in range(2):
                self.sent += 1
                task = asyncio.create_task(self._publish(self.sent))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            await asyncio.sleep(PAUSE)

    async def _publish(self, number: int) -> None:
        kept, loose = (Envelope(codec.encode("n", number, channel)) for channel in ("kept", "loose"))
        with suppress(Unavailable):  # `loose` alone: what becomes of one on a broken link is not known
            await self._backplane.publish(Target("channel", "loose"), pack(loose))
        await self._backplane.append("kept", kept, KEPT)


async def join(client: Client, channel: str = "kept", since: dict[str, Any] | None = None) -> dict[str, Any]:
    """Join and return the answer."""
    answer = await client.request("$join", since and {"since": since}, channel, deadline=20)
    assert answer["cmd"] == "$reply", answer
    return dict(answer["param"])


def numbered(messages: Iterable[Message], channel: str = "kept") -> list[Message]:
    return [message for message in messages if message["cmd"] == "n" and message["channel"] == channel]


def params(messages: Iterable[Message], channel: str = "kept") -> list[int]:
    return [message["param"] for message in numbered(messages, channel)]


def assert_contiguous(found: list[int], last: int | None = None) -> None:
    """Fail unless each number is one more than the one before, up to `last`."""
    assert found
    assert found == list(range(found[0], found[0] + len(found)))
    assert last is None or found[-1] == last


async def saw(client: Client, number: int, channel: str = "kept", deadline: float = 20) -> None:
    """Wait until a number has come in a channel."""
    await eventually(lambda: number in params(client.received[-500:], channel), deadline, what=f"{number} in {channel}")


async def flows(client: Client, feed: Feed, channel: str = "kept") -> None:
    """Wait until something published from now on has come in a channel."""
    before = feed.sent
    await eventually(lambda: params(client.received[-500:], channel)[-1:] > [before], 20, what=f"{channel} flows")


async def more(client: Client, messages: int) -> None:
    """Wait until so many more messages have come."""
    before = len(client.received)
    await eventually(lambda: len(client.received) > before + messages)


async def settled(redis: RedisServer, channel: str, members: int) -> None:
    """Wait until so many have joined a channel that they named when they connected."""

    async def joined() -> bool:
        return await redis.command("SCARD", f"gateway:members:{channel}") == members

    await eventually(joined)


def assert_told(received: list[Message]) -> None:
    """Fail if a number of `loose` is missing, doubled or out of order, unless a `$gap` stands where it is missing."""
    last, told = 0, True
    for message in received:
        if message["channel"] != "loose" or message["cmd"] not in ("n", "$gap"):
            continue
        if message["cmd"] == "$gap":
            told = True
            assert message["param"] == {}
            continue
        number = message["param"]
        assert number > last
        assert told or number == last + 1, f"{last} is followed by {number}, and nobody told"
        last, told = number, False
