"""The state of a node, as `/readyz` tells it: starting, ok, degraded, deaf, draining or crashed."""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway.backplane import Backplane
from gateway.node.startup import Startup
from gateway.operations.status import Readiness


class Part(Protocol):
    """What may be in trouble, and says so in short lines for people."""

    @property
    def trouble(self) -> list[str]: ...


class Health:
    """The health of one node, looked at when somebody asks."""

    def __init__(self, startup: Startup, backplane: Backplane, crashed: asyncio.Event) -> None:
        self.startup = startup
        self.crashed = crashed
        """Set when a part has failed that was not to fail."""
        self._backplane = backplane
        self.parts: list[Part] = [backplane]
        """Whose trouble makes the node `degraded`, in the order in which it is told."""
        self.draining = False
        """Whether this node takes nobody in any more, because it stops; set by its drain."""

    @property
    def readiness(self) -> Readiness:
        """How this node is placed to serve clients."""
        if self.startup.is_over or self.crashed.is_set():
            return self.condition()
        return Readiness("starting", [self.startup.reason])

    def condition(self) -> Readiness:
        """Say the same of a node that is up, as the others are told."""
        trouble = [line for part in self.parts for line in part.trouble]
        if self.crashed.is_set():
            return Readiness("crashed", ["a part of this node has failed; its log says which"])
        if self.draining:
            return Readiness("draining", ["this node is stopping", *trouble])
        if self._backplane.deaf:
            return Readiness("deaf", ["this node does not hear what it publishes, though Redis answers", *trouble])
        return Readiness("degraded" if trouble else "ok", trouble)
