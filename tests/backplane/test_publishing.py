"""The order in which commands leave, whatever Redis answers: rules that no real server breaks on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from gateway.backplane.publishing import STALLED, Publication, Publishing, Room
from gateway.errors import Unavailable
from gateway.redis.link import Link, LinkLost, RedisRefused, Reply
from tests.harness.wait import eventually

BUSY, MOVED = RedisRefused("BUSY a script runs"), RedisRefused("MOVED 1 elsewhere:1")


class FakeLink:
    """Keeps what is sent, to be answered by the test, in order as Redis does."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent: list[tuple[object, ...]] = []
        self._replies: list[Reply] = []

    def send(self, reply: Reply, *command: object) -> None:
        if command[0] == b"SCRIPT":
            return
        self.sent.append(command)
        self._replies.append(reply)

    def answer(self, *answers: object) -> None:
        for answer in answers:
            reply = self._replies.pop(0)
            if isinstance(answer, Exception):
                reply.set_exception(answer)
            else:
                reply.set_result(answer)

    def lose(self) -> None:
        self.lost.set_result(None)
        self.answer(*[LinkLost("lost") for _ in self._replies])

    @property
    def data(self) -> str:
        """The data of the publications sent so far, which are single letters."""
        return "".join(cast(bytes, command[2]).decode() for command in self.sent)


class Bench:
    """A publishing over a fake link, and what became of its publications."""

    def __init__(self, publishing: Publishing) -> None:
        self.publishing = publishing
        self.link = FakeLink()
        self._using = asyncio.create_task(publishing.use(cast(Link, self.link)))
        self.tasks: dict[str, asyncio.Task[int]] = {}

    async def publish(self, letters: str, topic: bytes = b"a") -> None:
        """Publish letters, all at once."""
        for letter in letters:
            self.tasks[letter] = asyncio.create_task(self.publishing.publish(topic, letter.encode()))
        await asyncio.sleep(0)

    async def failed(self) -> str:
        """Return the letters that failed, once everything is answered."""
        done = await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        return "".join(letter for letter, result in zip(self.tasks, done, strict=True) if result != 1)

    async def relink(self) -> None:
        """Lose the link, and go on over the next one."""
        self.link.lose()
        await self._using
        self.link = FakeLink()
        self._using = asyncio.create_task(self.publishing.use(cast(Link, self.link)))
        await asyncio.sleep(0)

    async def close(self) -> None:
        self._using.cancel()
        await asyncio.wait((self._using,))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(Publishing(Room(messages=100, size=10_000), timeout=5))
    await asyncio.sleep(0)
    yield bench
    await bench.close()


async def test_what_was_refused_goes_before_what_came_later(bench: Bench) -> None:
    """All wait for the answers that are still out; then one is tried, and the rest follows it."""
    await bench.publish("xyz")
    bench.link.answer(BUSY)
    await bench.publish("later")
    bench.link.answer(BUSY, BUSY)
    await eventually(lambda: bench.link.data == "xyzx")
    bench.link.answer(1)
    assert bench.link.data == "xyzxyzlater"
    bench.link.answer(*[1] * 7)
    assert await bench.failed() == ""


async def test_what_was_overtaken_fails(bench: Bench) -> None:
    """On its own topic nothing goes out behind what was published later; on others it does."""
    await bench.publish("x", b"one")
    await bench.publish("y", b"other")
    await bench.publish("z", b"one")
    bench.link.answer(BUSY, BUSY, 1)
    await eventually(lambda: bench.link.data == "xyzy")
    bench.link.answer(1)
    assert await bench.failed() == "x"


async def test_what_a_broken_link_left_open_is_sent_again_only_if_it_may_be(bench: Bench) -> None:
    """A PUBLISH fails, since it may have been carried out."""
    await bench.publish("x")
    again = asyncio.create_task(bench.publishing.call((b"PUBLISH", b"a", b"r"), size=1, repeatable=True))
    await bench.publish("y")
    await bench.relink()
    await bench.publish("z")
    assert bench.link.data == "rz"
    bench.link.answer(1, 1)
    assert (await again, await bench.failed()) == (1, "xy")


async def test_a_link_that_does_not_answer_is_sent_little(bench: Bench) -> None:
    """What waits meanwhile goes out over the next link: nobody has carried it out."""
    await bench.publish("x")
    loop = asyncio.get_running_loop()
    began = loop.time()
    await eventually(lambda: loop.time() - began > STALLED)
    await bench.publish("yz")
    assert bench.link.data == "x"
    await bench.relink()
    assert bench.link.data == "yz"
    bench.link.answer(1, 1)
    assert await bench.failed() == "x"


async def test_what_nobody_awaits_any_more_is_not_sent() -> None:
    """A caller that is cancelled takes its publication back while it waits."""
    publishing = Publishing(Room(messages=100, size=10_000), timeout=5)
    waiting = asyncio.create_task(publishing.publish(b"a", b"x"))
    await asyncio.sleep(0)
    waiting.cancel()
    bench = Bench(publishing)
    await bench.publish("y")
    assert bench.link.data == "y"
    bench.link.answer(1)
    assert await bench.failed() == ""
    await bench.close()


async def test_a_moved_topic_is_handed_over_when_nothing_is_under_way() -> None:
    """In a cluster: what was refused by MOVED first, then what waited behind it."""
    moved: list[Publication] = []
    heard: list[RedisRefused] = []
    publishing = Publishing(
        Room(messages=100, size=10_000),
        timeout=5,
        redirected=heard.append,
        regroup=lambda publishing: moved.extend(publishing.take()),
    )
    bench = Bench(publishing)
    await bench.publish("xy")
    bench.link.answer(MOVED)
    await bench.publish("z")
    assert not moved
    bench.link.answer(MOVED)
    assert [publication.command[2] for publication in moved] == [b"x", b"y", b"z"]
    assert heard == [MOVED, MOVED]
    for publication in moved:
        publication.fail(Unavailable("the test is over"))
    assert await bench.failed() == "xyz"
    await bench.close()
