"""What every backplane promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple, Protocol

from gateway.backplane.counters import BackplaneCounters
from gateway.config import Rule
from gateway.protocol.envelope import Envelope, Target
from gateway.protocol.message import Position
from gateway.redis.trouble import Troubles


class Arrival(NamedTuple):
    """One payload as it came out of the backplane."""

    target: Target
    data: bytes


class Page(NamedTuple):
    """A part of a channel's history, oldest first, and where the whole stands."""

    epoch: str
    offset: int
    """Of the newest message, 0 before the first one; there may be no message left."""
    start: int
    """Where the epoch began: its first message has the next offset."""
    seen: int | None
    """The time of the message at the offset that was asked about, None when it is not there."""
    messages: list[Envelope]
    more: bool
    """Whether there are further messages behind these."""
    same: bool = False
    """Whether the position that was asked after is one of this history, if under an epoch that it was to have."""


class Backplane(Protocol):
    """Carries bytes between nodes by target: at most once, in order per target and publisher.

    All nodes see the publications to one target in the same order. Once `subscribe` returns, whatever
    any node publishes there reaches this one, its own publications included.
    """

    @property
    def trouble(self) -> list[str]:
        """What is wrong with Redis now, as short lines for people; empty while all is well."""

    @property
    def troubles(self) -> Troubles:
        """Where whoever else talks to the same Redis notes what is wrong."""

    @property
    def deaf(self) -> bool:
        """Whether this node alone is deaf: Redis takes its beats, and they do not come back."""

    @property
    def counters(self) -> BackplaneCounters: ...

    async def run(self) -> None:
        """Be connected, and connect again whenever that is lost, until cancelled."""

    async def ready(self) -> None:
        """Wait until it is connected, however long that takes. Raises what can only be mended by hand."""

    async def publish(self, target: Target, data: bytes) -> int:
        """Publish, and wait until that is done; return how many nodes it reached.

        Publications leave in the order of the calls. Raises `Unavailable` when too much waits already,
        or when it was not taken within the publish timeout; then it is not sent later, unless the
        connection broke while it was under way.
        """

    async def append(self, channel: str, envelope: Envelope, rule: Rule, *, known: str = "") -> Position:
        """Publish to a channel and keep the message as its rule says, in one step; return its position.

        A channel's history begins with its first message, in the epoch that `read` has named until then; but not
        if that is `known` to have been used, by a history that is lost.

        Other than `publish` this is never done twice, and tried again when the connection broke while it
        was under way; then the position returned may be that of a later message. Raises `Unavailable`.
        """

    async def read(
        self, channel: str, *, after: Position | None = None, limit: int, seen: int = 0, size: int = 0
    ) -> Page:
        """Read the first `limit` messages after a position, or the newest ones; nothing is kept of the channel by that.

        After a position of another epoch all messages of the present one are. `seen` asks about the
        message at that offset. `size` is how many bytes they may have, unless there is only one; 0 is any.
        Raises `Unavailable`.
        """

    async def renew(self, channel: str, epoch: str, behind: int) -> None:
        """End an epoch, if it is the present one: Redis has lost messages and gave out their offsets again.

        The new one begins behind the last message that is still the same. Raises `Unavailable`.
        """

    async def subscribe(self, targets: Iterable[Target]) -> None:
        """Receive what is published there; returns once that is sure. Repeating it is free.

        Raises `Unavailable` past the publish timeout; the wish stands until `unsubscribe` all the same.
        """

    def unsubscribe(self, targets: Iterable[Target]) -> None:
        """Receive no more from there, some time soon. Harmless where there was no subscription."""

    def batches(self) -> AsyncIterator[list[Arrival]]:
        """Yield what arrives, as many as came together, in order. For one reader.

        After a loss each channel that was subscribed has an arrival at `Target("gap", NAME)`, empty, as soon
        as its own subscription is sure again: behind the last message before the loss and ahead of the first
        one after it. What was published there in between did not come. A nameless `GAP` follows when
        the last of them is back; there is nothing to do about that one but count it.
        """
