"""Messages a second of each channel, counted only while a page asks. Plain rules: the caller says what time it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

WINDOW = 2.0
"""Seconds counted together."""
KEPT_ON = 10.0
"""Seconds after the last question for which counting goes on."""
MOST = 20_000
"""Channels counted in one window; further ones are not."""


class Rates:
    """What came from the backplane, by channel: in the window before this one."""

    def __init__(self) -> None:
        self.is_on = False
        self._until = 0.0
        self._began = 0.0
        self._counting: Counter[str] = Counter()
        self._counted: Counter[str] = Counter()
        self._seconds = WINDOW

    def count(self, channel: str, now: float) -> None:
        """Count one message."""
        self._turn(now)
        if channel in self._counting or len(self._counting) < MOST:
            self._counting[channel] += 1

    def of(self, channels: Iterable[str], now: float) -> dict[str, float]:
        """Return messages a second of those channels that have any; counting begins with the first question."""
        if not self.is_on:
            self.is_on, self._began = True, now
        self._until = now + KEPT_ON
        self._turn(now)
        return {name: round(self._counted[name] / self._seconds, 1) for name in channels if self._counted[name]}

    def _turn(self, now: float) -> None:
        """Begin another window when this one is over; stop when nobody has asked for long."""
        if now > self._until:
            self.is_on = False
        elapsed = now - self._began
        if elapsed >= WINDOW:
            self._counted = self._counting if elapsed < 2 * WINDOW or self._counting else Counter()
            self._counting, self._seconds, self._began = Counter(), elapsed, now
