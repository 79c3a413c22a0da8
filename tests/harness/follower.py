"""Clients of a channel with a history that come back when they are told to: by the thousand, and cheap.

Each checks every message as it comes, and keeps only what a test asks for afterwards.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from .crowd import Member, upgraded
from .wait import eventually
from .wire import upgrade

__all__ = ["Follower", "SentAway", "following"]

AT_ONCE = 100
AGAIN = 1.0
"""Seconds until the next try of one that was refused, or lost its connection without being told."""
_ASKED = re.compile(r"retry_after=([\d.]+)$")


@dataclass(frozen=True, slots=True)
class SentAway:
    """A close that a follower got, and what it was asked to do."""

    node: str
    # By the loop's clock.
    at: float
    retry_after: float


class _Link(Member):
    """One connection of a follower."""

    def __init__(self, request: bytes, heard: Callable[[bytes], None]) -> None:
        super().__init__(request)
        self._heard = heard

    def take(self, payload: bytes) -> None:
        """Hand a message on."""
        self._heard(payload)


class Follower:
    """One client: a member of a channel in which `n` numbers the messages from 1 on, over all its connections."""

    def __init__(self, url: str, channel: str) -> None:
        self._url = url
        self._channel = channel
        self._link: _Link | None = None
        self._node = ""
        self._since: dict[str, Any] | None = None
        # The last number; none was missed before it.
        self.last = 0
        # How often it has joined, been sent away, and been cut off without a word or refused.
        self.joined = 0
        self.sent_away: list[SentAway] = []
        self.refused = 0
        # What must not happen, in words.
        self.faults: list[str] = []

    async def follow(self, gate: asyncio.Semaphore) -> None:
        """Connect, and come back after every end, until cancelled."""
        while True:
            try:
                async with gate:
                    self._link = _Link(upgrade(self._url, protocols=["gateway.v1.json"]), self._hear)
                    await upgraded(self._url, self._link)
                await self._link.ended
                pause = self._judge(self._link.close_code, self._link.close_reason)
            except OSError:
                self.refused += 1
                pause = AGAIN
            await asyncio.sleep(pause)

    def close(self) -> None:
        """Vanish."""
        if self._link is not None:
            self._link.drop()

    def _judge(self, code: int | None, reason: str) -> float:
        """Note why a connection ended; return how long to stay away."""
        asked = _ASKED.search(reason)
        if code == 1012 and asked is not None:
            self.sent_away.append(SentAway(self._node, asyncio.get_running_loop().time(), float(asked[1])))
            return self.sent_away[-1].retry_after
        if code not in (1001, 1006):
            self.faults.append(f"closed with {code} {reason!r}")
        self.refused += 1
        return AGAIN

    def _hear(self, payload: bytes) -> None:
        message = orjson.loads(payload)
        match message["cmd"]:
            case "n":
                self._number(message)
            case "$welcome":
                self._node = message["param"]["node"]
                self._join()
            case "$reply":
                self._settle(message["param"])
            case "online-count" | "online-update":
                pass
            case _:
                self.faults.append(f"heard {message}")

    def _join(self) -> None:
        assert self._link is not None
        param = {"since": self._since} if self._since else None
        join = {"channel": self._channel, "cmd": "$join", "param": param, "id": 1}
        self._link.send(orjson.dumps(join))

    def _settle(self, param: dict[str, Any]) -> None:
        if self._since is not None and not param["recovered"]:
            self.faults.append(f"not recovered after {self.last}")
        self._since = {"epoch": param["epoch"], "offset": param["offset"]}
        self.joined += 1

    def _number(self, message: dict[str, Any]) -> None:
        if message["param"] != self.last + 1:
            self.faults.append(f"{message['param']} after {self.last}")
        self.last = message["param"]
        if self._since is not None:
            self._since["offset"] = message["offset"]


@asynccontextmanager
async def following(url: str, channel: str, count: int) -> AsyncIterator[list[Follower]]:
    """Run followers, all of them members, for the length of a `with`."""
    followers = [Follower(url, channel) for _ in range(count)]
    gate = asyncio.Semaphore(AT_ONCE)
    tasks = [asyncio.create_task(each.follow(gate)) for each in followers]
    try:
        await eventually(lambda: all(each.joined for each in followers), 60, what=f"{count} followers have joined")
        yield followers
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for each in followers:
            each.close()
    assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
