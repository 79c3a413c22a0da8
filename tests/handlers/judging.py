"""A handler for nodes under test that judges by what a token says of its user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway import Connection
from gateway.server.demo.chat import DemoHandler


class Judging(DemoHandler):
    """Lets nobody called Mallory into `secret-` channels; may be asked to take its time, and to fail."""

    def __init__(self) -> None:
        # What it has been asked, in order; and, where a test wants to have a hand in that, what it waits for.
        self.asked: list[tuple[str, str]] = []
        self.gate: asyncio.Event | None = None
        self.failure: Callable[[], BaseException] | None = None

    async def authorize(self, connection: Connection, channel: str, action: str) -> bool:
        self.asked.append((channel, action))
        allowed = not channel.startswith("secret-") or connection.profile.name != "Mallory"
        if channel.startswith("secret-"):
            if self.failure is not None:
                raise self.failure()
            if self.gate is not None:
                await self.gate.wait()
        return allowed
