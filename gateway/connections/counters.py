"""What a node counts: plain integers, added to on the hot path and read when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from gateway.errors import KNOWN_CODES, NO_PONG, OWN_CODES, TOO_SLOW, Close

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds, in seconds, of the classes that a duration may fall in; above them is one more."""


class Histogram:
    """How long something took, counted in classes."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        """Seconds, all together."""

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Counters:
    """Totals since this node started."""

    opened: int = 0
    http: int = 0
    """TCP connections to the node's port now that are no WebSocket, or not yet."""
    transports_most: int = 0
    """All that there may be; 0 where the port is an application's."""
    refusals: Counter[int] = field(default_factory=Counter)
    """Handshakes that did not become a connection, by the status of the answer."""
    closes: Counter[int] = field(default_factory=Counter)
    """WebSockets that ended, by close code; those that clients made up are counted together, as 0."""
    received: int = 0
    received_bytes: int = 0
    refused: int = 0
    published: int = 0
    delivered: int = 0
    """Messages written to sockets: one that reaches 1,000 members counts 1,000."""
    delivered_bytes: int = 0
    rejected: int = 0
    """Payloads and values found in Redis that are none of ours."""
    rejection: str = ""
    """The last of them that was logged, and what was wrong with it."""
    dropped: int = 0
    """Messages that slow readers were not sent, as the rules of their channels say."""
    gaps: int = 0
    """Times this node's subscription was lost, so that messages may have been missed."""
    gaps_told: int = 0
    """Channels whose members were told that messages may be lost."""
    recovered: int = 0
    """Messages that came from history: after an outage, or to a client that came back."""
    rereads: int = 0
    """Reads of history to mend what the subscription had missed."""
    handler_errors: int = 0
    stalls: int = 0
    """Times the event loop stood still for half a second or longer."""
    repairs: int = 0
    """Times Redis was found to differ from what this node holds, and was repaired."""
    fanout: Histogram = field(default_factory=Histogram)
    """From what arrived in one read of the backplane to the last socket it was written to."""
    handling: Histogram = field(default_factory=Histogram)
    """From the moment a client's command is taken up until its handler has returned or raised."""

    def count(self, close: Close) -> None:
        """Count the end of a connection. A client's code is no word of the gateway's own, whatever it says."""
        is_made_up = close.code not in KNOWN_CODES or (close.by_client and close.code >= OWN_CODES)
        self.closes[0 if is_made_up else close.code] += 1

    @property
    def closed(self) -> int:
        return self.closes.total()

    @property
    def slow(self) -> int:
        """Connections closed because they read too slowly."""
        return self.closes[TOO_SLOW.code]

    @property
    def no_pong(self) -> int:
        """Connections closed because no pong came."""
        return self.closes[NO_PONG.code]

    @property
    def transports(self) -> int:
        """TCP connections to the node's port now; of WebSockets no more is kept than these two counts."""
        return self.http + self.opened - self.closed
