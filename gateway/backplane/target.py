"""Where an envelope can go, and what every backplane promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple, Protocol


class Target(NamedTuple):
    """A place to write to: a `channel`, a `user` or a `node` by its name; `all`, `direct`, `nodes`, `tap`."""

    kind: str
    name: str = ""


ALL = Target("all")
"""Every connection of every node."""
DIRECT = Target("direct")
"""One connection, named in the envelope: what an operator writes by hand."""
NODES = Target("nodes")
"""Every node itself, not its connections."""
TAP = Target("tap")
"""Copies of the traffic, while somebody taps."""


GAP = Target("gap")
"""Nowhere: what arrives from there is word of a loss."""


class Arrival(NamedTuple):
    """One payload as it came out of the backplane."""

    target: Target
    data: bytes


class Backplane(Protocol):
    """Carries bytes between nodes by target: at most once, in order per target and publisher.

    All nodes see the publications to one target in the same order. Once `subscribe` returns, whatever
    any node publishes there reaches this one, its own publications included.
    """

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

    async def subscribe(self, targets: Iterable[Target]) -> None:
        """Receive what is published there; returns once that is sure. Repeating it is free.

        Raises `Unavailable` past the publish timeout; the wish stands until `unsubscribe` all the same.
        """

    def unsubscribe(self, targets: Iterable[Target]) -> None:
        """Receive no more from there, some time soon. Harmless where there was no subscription."""

    def batches(self) -> AsyncIterator[list[Arrival]]:
        """Yield what arrives, as many as came together, in order. For one reader.

        An arrival at `GAP` says: the subscriptions are back after a loss, and what was published
        in between did not come.
        """
