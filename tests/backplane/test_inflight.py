"""What many want to know at the same time is asked once, and nobody is told what was so before he asked."""

from __future__ import annotations

import asyncio

from gateway.backplane.inflight import InFlight


class Source:
    """Answers with how often it was asked, when the test says so."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[int]] = []

    async def __call__(self) -> int:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]

    def answer(self) -> None:
        self.asked[-1].set_result(len(self.asked))


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_who_come_together_share_one_question() -> None:
    """Of each key; those who come while it is under way share the next."""
    shared, source, other = InFlight[int](), Source(), Source()
    early = [asyncio.create_task(shared.ask("a", source)) for _ in range(5)]
    aside = asyncio.create_task(shared.ask("b", other))
    await turn()
    late = [asyncio.create_task(shared.ask("a", source)) for _ in range(5)]
    await turn()
    assert (len(source.asked), len(other.asked)) == (1, 1)
    source.answer()
    assert await asyncio.gather(*early) == [1] * 5
    await turn()
    source.answer()
    other.answer()
    assert (await asyncio.gather(*late), await aside) == ([2] * 5, 1)
    assert (shared._running, shared._next) == ({}, {})


async def test_who_goes_away_takes_the_answer_from_nobody() -> None:
    """Not even the one for whom it was asked; a failure is everybody's, and the next one asks again."""
    shared, source = InFlight[int](), Source()
    first, second = (asyncio.create_task(shared.ask("a", source)) for _ in range(2))
    await turn()
    first.cancel()
    source.answer()
    assert await second == 1
    failing = [asyncio.create_task(shared.ask("a", source)) for _ in range(2)]
    await turn()
    source.asked[-1].set_exception(ValueError("no"))
    found = await asyncio.gather(*failing, return_exceptions=True)
    assert [type(error) for error in found] == [ValueError] * 2
    again = asyncio.create_task(shared.ask("a", source))
    await turn()
    source.answer()
    assert await again == 3
