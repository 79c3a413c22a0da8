"""Farewells that wait for the end of a grace: none is forgotten for another one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.backplane import Target
from gateway.backplane.link import Command
from gateway.presence.scripts import GONE
from gateway.presence.store import Store
from tests.harness.presence import LoneNode
from tests.harness.wait import eventually


@pytest.fixture(params=["redis_url", "small_cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """One server, and a cluster."""
    found = request.getfixturevalue(request.param)
    return found if isinstance(found, str) else str(found.url)


class Beside:
    """A store that lets something happen right behind the first announcement."""

    def __init__(self, store: Store, node: LoneNode, leaves: Any) -> None:
        self.whole = store.whole
        self._store = store
        self._node = node
        self._leaves = leaves

    async def ask(self, key: str, command: Command) -> Any:
        answer = await self._store.ask(key, command)
        if command[1] == GONE.hash and self._leaves is not None:
            leaves, self._leaves = self._leaves, None
            await self._node.lose(leaves)
        return answer


async def test_who_leaves_while_another_one_is_announced_is_announced_too(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel is taken off the list of those that somebody is leaving, and put on it, at the same moment."""
    async with LoneNode(url, presence_grace=0.3).running() as node:
        heard: list[bytes] = []
        await node.backplane.subscribe([Target("channel", "hall")])

        async def listen() -> None:
            async for batch in node.backplane.batches():
                heard.extend(arrival.data for arrival in batch if b"false" in arrival.data)

        listening = asyncio.create_task(listen())
        ada, bob = node.add("ada", ["hall"], 1), node.add("bob", ["hall"], 2)
        farewells = node.presence._farewells
        monkeypatch.setattr(farewells, "_store", Beside(farewells._store, node, bob))
        await node.lose(ada)
        await eventually(lambda: [b"ada" in each for each in heard] == [True, False])
        listening.cancel()
