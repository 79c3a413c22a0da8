"""The status of the cluster and of one node, as plain values."""

from __future__ import annotations

from typing import Literal, NamedTuple

from gateway.connections.counters import Counters
from gateway.presence import NodeInfo
from gateway.presence.contract import SERVING


class Status(NamedTuple):
    """The cluster at a glance, as seen by `node`, the node that was asked.

    The counts are the cluster's, as Redis has them at this moment; counters and taps are this node's own.
    """

    node: str
    version: str
    nodes: list[NodeInfo]
    channels: int
    """With at least one member."""
    connections: int
    users: int
    """Identified ones."""
    taps: int
    counters: Counters


class Held(NamedTuple):
    """What one node holds."""

    connections: int
    channels: int
    users: int
    """Identified ones."""
    outbox_bytes: int
    """Waiting for clients that read too slowly."""


class Readiness(NamedTuple):
    """Whether clients should be sent to this node, and what is wrong.

    It is `starting` until Redis has registered it, and `degraded` by what other nodes suffer from too: its clients are
    as well here as anywhere.
    """

    status: Literal["starting", "ok", "degraded", "deaf", "draining", "crashed"]
    reasons: list[str]

    @property
    def serves(self) -> bool:
        """Whether clients should be sent here."""
        return self.status in SERVING
