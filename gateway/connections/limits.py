"""Rate limit (a token bucket, kept as one number: GCRA) and abuse limit of one client: no timer, no loop."""

from __future__ import annotations

from gateway.errors import ABUSE, TOO_FAST, Close

ABUSE_WINDOW = 60.0
"""Seconds: `abuse_limit` is refused messages a minute."""
ROUNDING = 1e-3
"""Of a token: sums of intervals are not exact, and a burst is to pass whole."""


class Pace:
    """A token bucket as one number per client: the time at which its bucket is full again (GCRA)."""

    __slots__ = ("_slack", "burst", "interval")

    def __init__(self, rate: float, burst: int) -> None:
        self.interval = 1 / rate
        self.burst = (burst + ROUNDING) / rate
        """Seconds in which a whole one comes back: a bucket that is full later than that is owed to."""
        self._slack = self.burst - self.interval

    def take(self, full_at: float, now: float) -> float | None:
        """Take a token; return when the bucket is full again now, or None if there was no token."""
        if full_at - now > self._slack:
            return None
        return (full_at if full_at > now else now) + self.interval

    def wait(self, full_at: float, now: float) -> float:
        """Return the seconds until there is a token."""
        return max(0.0, full_at - now - self._slack)

    def charge(self, full_at: float, now: float, tokens: int) -> float:
        """Take so many tokens, there or not, for what cannot be refused any more; return when it is full again."""
        return (full_at if full_at > now else now) + tokens * self.interval


def pace_of(rate: float, burst: int) -> Pace | None:
    """Make the pace that the settings ask for, None when it is switched off."""
    return Pace(rate, burst) if rate and burst else None


class Refusals:
    """What one client was refused within a minute."""

    __slots__ = ("_count", "_fast", "_since")

    def __init__(self, now: float) -> None:
        self._start(now)

    def _start(self, now: float) -> None:
        self._since, self._count, self._fast = now, 0, 0

    def add(self, now: float, *, fast: bool) -> None:
        """Count one, which may have been refused because it came too fast."""
        if now - self._since > ABUSE_WINDOW:
            self._start(now)
        self._count += 1
        self._fast += fast

    def verdict(self, limit: int) -> Close | None:
        """Say how the connection ends, if there were more than `limit`: by what most of them were."""
        if not 0 < limit < self._count:
            return None
        return TOO_FAST if 2 * self._fast > self._count else ABUSE
