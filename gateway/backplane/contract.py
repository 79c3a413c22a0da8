"""The interface of a backplane, with what each one guarantees: delivery, order, and histories."""

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
    """A part of a channel's history, its messages oldest first, with the position of the whole."""

    epoch: str
    offset: int
    """Offset of the newest message ever, 0 before the first one; there may be no message left."""
    start: int
    """Where the epoch began: its first message has the offset behind this one."""
    seen: int | None
    """The time (ms) of the message at the offset that `seen` asked about, None when that is not there."""
    messages: list[Envelope]
    more: bool
    """Whether there may be further messages behind these; only after a position."""
    same: bool = False
    """Whether the position asked after belongs to this history: to its epoch, or to one promised before it began."""


class Backplane(Protocol):
    """Carries bytes between nodes by target: at most once, in order per target and publisher.

    All nodes see the publications to one target in the same order. Once `subscribe` returns, whatever any node
    publishes there reaches this one, its own publications included; a subscription that is lost is told as a gap.
    """

    @property
    def trouble(self) -> list[str]:
        """What is wrong with Redis now, as short lines for people; empty while all is well."""

    @property
    def troubles(self) -> Troubles:
        """The troubles themselves, for others who talk to the same Redis."""

    @property
    def deaf(self) -> bool:
        """Whether this node alone hears nothing: Redis takes its beats, and they do not come back."""

    @property
    def counters(self) -> BackplaneCounters: ...

    async def run(self) -> None:
        """Be connected, and connect again whenever that is lost, until cancelled."""

    async def ready(self) -> None:
        """Wait until it is connected and its first topic is subscribed, however long that takes, while `run` works.

        Raises `RedisRefused` for a wrong password, which waiting does not mend.
        """

    async def publish(self, target: Target, data: bytes) -> int:
        """Publish, and wait until that is done; return how many nodes it reached.

        Publications leave in the order of the calls. Raises `Unavailable` when too much waits already, when Redis has
        not taken it within the publish timeout, or when the connection broke while it was under way. What was not sent
        by then never is; what was under way may have been carried out, or be carried out yet by a Redis that hangs.
        """

    async def append(self, channel: str, envelope: Envelope, rule: Rule, *, known: str = "") -> Position:
        """Publish to a channel and keep the message as its rule says, in one step; return its position.

        A channel's history begins with its first message, in the epoch that `read` has named until then; in a fresh one
        if that epoch is `known` to have been used, by a history that is lost.

        Unlike `publish` this is tried again when the connection broke while it was under way, and is never done twice;
        then the position returned may be that of a later message. Raises `Unavailable` as `publish` does.
        """

    async def read(
        self, channel: str, *, after: Position | None = None, limit: int, seen: int = 0, size: int = 0
    ) -> Page:
        """Read the first `limit` messages after a position, or the newest ones; reading begins no history.

        Every message of the present epoch is after a position of another one. `seen` asks about the message at that
        offset. `size` limits the bytes of all payloads together, 0 does not; one message comes in any case. It takes
        its turn behind the publications that wait. Raises `Unavailable`.
        """

    async def renew(self, channel: str, epoch: str, behind: int) -> None:
        """End an epoch, if it is the present one: Redis has lost messages and gave out their offsets again.

        The new one begins behind the last message that is still the same. Raises `Unavailable`.
        """

    async def subscribe(self, targets: Iterable[Target]) -> None:
        """Receive what is published there; return once Redis has confirmed it. Repeating it costs nothing.

        Raises `Unavailable` past the publish timeout; it is subscribed later all the same, until `unsubscribe`.
        """

    def unsubscribe(self, targets: Iterable[Target]) -> None:
        """Stop receiving from there, soon: more may still arrive. Harmless where there was no subscription."""

    def batches(self) -> AsyncIterator[list[Arrival]]:
        """Yield what arrives, in order, as much at a time as has gathered. For one reader only.

        After a loss each channel that was subscribed has an empty arrival at `Target("gap", NAME)` as soon as its own
        subscription is confirmed again: behind the last message before the loss and ahead of the first one after it.
        What was published there in between may not have come. A nameless `GAP` follows when the last of them is back;
        it is for counting only.
        """
