"""Questions to several nodes, one of which is silent."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from gateway.backplane import Backplane, Target
from gateway.backplane.questions import BRIEFLY, Questions
from gateway.protocol.envelope import pack_map, unpack_map

LONG = 60.0
"""Far longer than a test may take."""


class Nodes:
    """Other nodes, as a backplane makes them appear: those that answer do so when asked, or later, or never."""

    def __init__(self) -> None:
        self.questions = Questions("here", cast(Backplane, self), self._refuse, timeout=LONG)
        self.delays: dict[str, float | None] = {}
        self.kept: dict[str, list[dict[str, Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def publish(self, target: Target, data: bytes) -> int:
        if target.name not in self.delays:
            return 0
        question = unpack_map(data)
        self.kept.setdefault(target.name, []).append(question)
        if (delay := self.delays[target.name]) is not None:
            self._tasks.add(asyncio.create_task(self.answer(target.name, question, delay)))
        return 1

    async def answer(self, node: str, question: dict[str, Any], delay: float = 0) -> None:
        await asyncio.sleep(delay)
        await self.questions.heard(pack_map({"answer": question["number"], "from": node, "result": node}))

    async def ask(self, *, within: float = LONG, patient: bool = False) -> list[str]:
        """Ask them all; return who was silent."""
        heard = await self.questions.ask_all(list(self.delays), "state", within=within, patient=patient)
        assert heard.answers == {node: node for node in self.delays if node not in heard.silent}
        return heard.silent

    async def _refuse(self, verb: str, arguments: dict[str, Any]) -> object:
        raise AssertionError(verb)


async def test_the_silent_are_waited_for_once() -> None:
    """Until they answer, be it too late: then they have their whole time again."""
    nodes = Nodes()
    nodes.delays = {"quick": 0, "slow": None}
    assert await nodes.ask(within=0.05) == ["slow"]
    assert await nodes.ask() == ["slow"]
    await nodes.answer("slow", nodes.kept["slow"][0])
    nodes.delays["slow"] = 3 * BRIEFLY
    assert await nodes.ask() == []


async def test_who_must_be_heard_is_waited_for() -> None:
    """Where the question is to do something, a node that was silent has its time as well."""
    nodes = Nodes()
    nodes.delays = {"slow": None}
    assert await nodes.ask(within=0.05) == ["slow"]
    nodes.delays["slow"] = 3 * BRIEFLY
    assert await nodes.ask(patient=True) == []


async def test_who_was_gone_begins_anew() -> None:
    """A node of the name of one that was silent and ended is another one."""
    nodes = Nodes()
    nodes.delays = {"slow": None}
    assert await nodes.ask(within=0.05) == ["slow"]
    del nodes.delays["slow"]
    assert (await nodes.questions.ask_all(["slow"], "state", within=LONG)).silent == ["slow"]
    nodes.delays["slow"] = 3 * BRIEFLY
    assert await nodes.ask() == []


async def test_waiting_in_vain_is_counted_apart_from_waiting() -> None:
    """Only what came after the last answer."""
    nodes = Nodes()
    nodes.delays = {"slow": BRIEFLY}
    assert await nodes.ask() == []
    assert nodes.questions.in_vain == 0
    nodes.delays = {"silent": None}
    assert await nodes.ask(within=0.05) == ["silent"]
    assert nodes.questions.in_vain > 0
