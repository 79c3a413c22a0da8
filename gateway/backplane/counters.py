"""The counters and figures of a backplane, for metrics and pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class BackplaneCounters:
    """Totals since this node started, and the last figures."""

    reconnects: int = 0
    """Links to Redis made anew after a loss."""
    gaps: int = 0
    """Times subscriptions were lost and restored: all of them, or in a cluster those of one shard."""
    deaf_seconds: float = 0.0
    """Time during which Redis took this node's beats and none came back."""
    lag: float = 0.0
    """Seconds from the last beat's publication until it was heard; while none comes, since one did."""
    waiting: int = 0
    """Publications that Redis has not answered yet."""
    waiting_bytes: int = 0
    history_trimmed: int = 0
    """Messages that left a history because of `history_bytes`, while `history` would have kept them."""
    histories_dropped: int = 0
    """Histories given up because all together exceeded `history_total_bytes`."""
    refusals: Mapping[str, int] = field(default_factory=dict)
    """How often Redis refused something, by reason."""
