"""One channel that the client stays in: `$join` after every reconnect, with the position it has reached."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.client.link import Link
from gateway.client.progress import Progress
from gateway.client.times import pause
from gateway.errors import GatewayError, NotConnected
from gateway.protocol.message import Message

PASSING = ("unavailable", "rate-limited", "timeout", "internal")
"""Codes after which a join is tried again over the same connection."""
JOIN_TIMEOUT = 30.0
"""Longer than a node waits for its Redis (twice `publish_timeout`, 10 s by default): its answer is to come first."""
REJOIN_DELAY = 2.0
"""Seconds before the next try where the node named none; up to twice that, so that clients do not come in step."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened in a channel, or in several."""

    duplicates: int = 0
    gaps: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.duplicates + other.duplicates, self.gaps + other.gaps)


class Subscription:
    """Keeps one channel joined: its messages once and in order, with a `$gap` where some may be missing."""

    def __init__(self, name: str, tell: Callable[[Message], None]) -> None:
        self.name = name
        self.progress = Progress()
        self._gaps = 0
        self.refused: GatewayError | None = None
        """Why the node does not let us in, once it has said so for good."""
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.joined.add_done_callback(_retrieved)
        self._tell = tell
        self._entering: asyncio.Task[None] | None = None

    @property
    def counts(self) -> Counts:
        """What happened here so far."""
        return Counts(self.progress.duplicates, self._gaps)

    def enter(self, link: Link) -> asyncio.Task[None]:
        """Take part over a new connection; the task is done when that is settled, one way or the other."""
        self._entering = link.spawn(self._enter(link))
        return self._entering

    def hear(self, message: Message) -> None:
        """Take in a message of this channel."""
        if message.cmd == "$gap":
            self._gap(self.progress.interrupt(message.param or {}))
        else:
            self._tell_all(self.progress.accept(message))

    def leave(self, why: GatewayError | None = None) -> None:
        """Stop taking part."""
        if self._entering is not None:
            self._entering.cancel()
        self._tell_all(self.progress.leave())
        self.fail(why or NotConnected(f"{self.name} was left"))

    async def _enter(self, link: Link) -> None:
        while True:
            self._tell_all(self.progress.begin())
            since = self.progress.position
            param = since and {"since": {"epoch": since.epoch, "offset": since.offset}}
            try:
                answer = await link.request("$join", param, self.name, JOIN_TIMEOUT)
            except NotConnected:
                return self._tell_all(self.progress.abandon())
            except GatewayError as error:
                if error.code not in PASSING:
                    return self._refused(error)
                delay = error.fields.get("retry_after")
                seconds = float(delay) if isinstance(delay, int | float) else REJOIN_DELAY
                await pause(seconds * (1 + random.random()))
            else:
                return self._entered(answer or {})

    def _entered(self, answer: dict[str, Any]) -> None:
        settled = self.progress.settle(answer)
        if settled.gap is not None:
            self._gap(settled.gap)
        self._tell_all(settled.messages)
        if not self.joined.done():
            self.joined.set_result(None)

    def _refused(self, error: GatewayError) -> None:
        self.refused = error
        self._tell_all(self.progress.leave())
        if self.joined.done():
            self._tell(Message(self.name, "$error", {"code": error.code, "message": error.message, **error.fields}))
        self.fail(error)

    def fail(self, error: GatewayError) -> None:
        """Tell whoever waits to be let in that it will not be."""
        if not self.joined.done():
            self.joined.set_exception(error)

    def _gap(self, param: dict[str, Any]) -> None:
        self._gaps += 1
        self._tell(Message(self.name, "$gap", param))

    def _tell_all(self, messages: list[Message]) -> None:
        for message in messages:
            self._tell(message)


def _retrieved(joined: asyncio.Future[None]) -> None:
    """Let asyncio not complain of a failed join that nobody waits for."""
    if not joined.cancelled():
        joined.exception()
