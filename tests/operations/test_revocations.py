"""Revocations: what is over, here and in Redis, which may be away when it is told."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import Unavailable
from gateway.operations import revocations
from gateway.operations.revocations import Revocations
from tests.harness.wait import eventually


class Store:
    """A Redis that does with each id what is planned for it, one time after the other, and then takes it."""

    def __init__(self, **planned: list[str]) -> None:
        self.revoked: list[str] = []
        self.is_asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self._planned = planned

    async def revoke(self, id: str, seconds: int) -> bool:
        match self._planned[id].pop(0) if self._planned[id] else "take":
            case "fail":
                raise Unavailable("away")
            case "wait":
                self.is_asked.set()
                await self.may_answer.wait()
        self.revoked.append(id)
        return True

    async def is_revoked(self, id: str) -> bool:
        return id in self.revoked


async def test_redis_is_told_of_one_that_failed_while_others_were_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """That those are done does not mean that all are."""
    monkeypatch.setattr(revocations, "RETRY", 0.01)
    store = Store(first=["fail", "wait"], second=["fail"])
    known = Revocations(store)
    running = asyncio.create_task(known.run())
    await known.end("first", 60)
    await store.is_asked.wait()
    await known.end("second", 60)
    store.may_answer.set()
    await eventually(lambda: "second" in store.revoked)
    running.cancel()
