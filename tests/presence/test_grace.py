"""Farewells that wait for the end of a grace: none is forgotten for another one."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gateway.backplane import Target
from gateway.presence.redis import RedisPresence
from gateway.presence.scripts import GONE
from gateway.redis.link import Command
from gateway.redis.store import Store
from tests.harness.presence import PresenceNode, Somebody
from tests.harness.wait import eventually


@pytest.fixture(params=["redis_url", "small_cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """One server, and a cluster."""
    found = request.getfixturevalue(request.param)
    return found if isinstance(found, str) else str(found.url)


class Beside:
    """A store that lets something happen right behind the first announcement."""

    def __init__(self, store: Store, leaves: Somebody) -> None:
        self.whole = store.whole
        self._store = store
        self._leaves: Somebody | None = leaves

    async def ask(self, key: str, command: Command) -> Any:
        answer = await self._store.ask(key, command)
        if command[1] == GONE.hash and self._leaves is not None:
            leaves, self._leaves = self._leaves, None
            await leaves.lose()
        return answer


async def test_who_leaves_while_another_one_is_announced_is_announced_too(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel is taken off the list of those that somebody is leaving, and put on it, at the same moment."""
    async with PresenceNode(url, presence_grace=0.3).running() as node:
        await node.backplane.subscribe([Target("channel", "hall")])
        ada, bob = await node.somebody("ada", "hall"), await node.somebody("bob", "hall")
        farewells = cast(RedisPresence, node.presence)._grace_periods
        monkeypatch.setattr(farewells, "_store", Beside(farewells._store, bob))
        await ada.lose()

        async def gone() -> bool:
            return [user for user, connected, _ in await node.announced("hall") if not connected] == ["ada", "bob"]

        await eventually(gone)
