"""What a node counts: plain integers, added to on the hot path and read when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Totals since this node started."""

    opened: int = 0
    closed: int = 0
    received: int = 0
    refused: int = 0
    published: int = 0
    delivered: int = 0
    """Messages written to sockets: one that reaches 1,000 members counts 1,000."""
    rejected: int = 0
    """Payloads found in Redis that are no message."""
    slow: int = 0
    """Connections closed because they read too slowly."""
    no_pong: int = 0
    gaps: int = 0
    """Times this node's subscription was lost, so that messages may have been missed."""
    gaps_told: int = 0
    """Channels whose members were told that messages may be lost."""
    recovered: int = 0
    """Messages that came from history: after an outage, or to a client that came back."""
    rereads: int = 0
    """Reads of history to mend what the subscription had missed."""
    handler_errors: int = 0
    repairs: int = 0
    """Times Redis was found to differ from what this node holds, and was repaired."""
