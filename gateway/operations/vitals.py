"""The figures of this node for operators: sampled every 3 seconds, kept for the charts of the last 15 minutes.

Sampling reads counters and the kernel, and sends nothing: the latest figures travel with the node's lease, the
older ones only when somebody asks for them.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from gateway.backplane.counters import BackplaneCounters
from gateway.connections.counters import BOUNDS, Counters
from gateway.connections.hub import Hub
from gateway.presence.contract import Vital

PERIOD = 3.0
"""Seconds between samples, which all nodes take at the same times of the clock."""
KEPT = 300
"""Samples kept: 15 minutes."""
_PAGE = resource.getpagesize()

SERIES = (
    "connections",
    "channels",
    "cpu",
    "memory",
    "loop_lag",
    "lag",
    "waiting",
    "received",
    "published",
    "delivered",
    "p50",
    "p99",
)
"""What is kept of a sample for the charts."""
BEHIND = 3
"""Samples by which a node may be behind the others and still be waited for."""
_WORST = {"loop_lag", "lag", "p50", "p99"}

Sample = tuple[int, tuple[float, ...]]
"""Which multiple of the period it was taken at, and the figures in `SERIES`."""


class Vitals:
    """Takes the samples of one node, and keeps the last of them."""

    def __init__(
        self,
        hub: Hub,
        counters: Counters,
        backplane: Callable[[], BackplaneCounters],
        state: Callable[[], tuple[str, list[str]]],
        loop_lag: Callable[[], float] = float,
        taps: Callable[[], int] = int,
    ) -> None:
        self._hub = hub
        self._counters = counters
        self._backplane = backplane
        self._state = state
        self._series: deque[Sample] = deque(maxlen=KEPT)
        self._loop_lag = loop_lag
        self._taps = taps
        self._before = self._now()
        self._fanouts = list(counters.fanout.counts)
        self.latest = Vital()
        self.sampled: list[Callable[[Vital], None]] = []
        """Who hears of each sample."""

    async def run(self) -> None:
        """Sample until cancelled, at multiples of the period so that those of all nodes can be added up."""
        while True:
            number = round(time.time() / PERIOD) + 1  # the next one, even if the last sleep ended a little early
            await asyncio.sleep(number * PERIOD - time.time())
            self.sample(number)

    def sample(self, number: int) -> Vital:
        """Look at everything now, which is this multiple of the period."""
        self.latest = self._look()
        self._series.append((number, tuple(getattr(self.latest, name) for name in SERIES)))
        for hear in self.sampled:
            hear(self.latest)
        return self.latest

    def current(self) -> Vital:
        """Return the last sample with what may have changed since: the counts and the state."""
        state, trouble = self._state()
        counts = {"connections": len(self._hub), "channels": len(self._hub.channels), "taps": self._taps()}
        return self.latest._replace(state=state, trouble=tuple(trouble), **counts)

    def since(self, number: int) -> list[Sample]:
        """Return the samples after a number (seconds since the epoch by the period), oldest first."""
        return [sample for sample in self._series if sample[0] > number]

    def _look(self) -> Vital:
        now, used, *totals = self._now()
        then, used_then, *totals_then = self._before
        self._before = (now, used, *totals)
        seconds = max(now - then, 0.001)
        received, published, delivered = (
            round((total - before) / seconds, 1) for total, before in zip(totals, totals_then, strict=True)
        )
        fanouts, self._fanouts = self._fanouts, list(self._counters.fanout.counts)
        classes = [count - before for count, before in zip(self._fanouts, fanouts, strict=True)]
        state, trouble = self._state()
        backplane = self._backplane()
        return Vital(
            at=time.time_ns() // 1_000_000,
            state=state,
            trouble=tuple(trouble),
            connections=len(self._hub),
            channels=len(self._hub.channels),
            cpu=round(100 * (used - used_then) / seconds, 1),
            memory=resident(),
            loop_lag=round(self._loop_lag(), 4),
            lag=round(backplane.lag, 5),
            waiting=backplane.waiting,
            received=received,
            published=published,
            delivered=delivered,
            p50=quantile(classes, 0.5),
            p99=quantile(classes, 0.99),
            taps=self._taps(),
            rejected=self._counters.rejected,
        )

    def _now(self) -> tuple[float, ...]:
        return (time.monotonic(), time.process_time(), *self._totals())

    def _totals(self) -> tuple[int, ...]:
        return (self._counters.received, self._counters.published, self._counters.delivered)


def resident() -> int:
    """Return the bytes of memory this process holds; where the kernel does not say, the most it ever held."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def quantile(classes: Sequence[int], q: float) -> float:
    """Estimate the duration below which a part `q` lies, as if each class were filled evenly; 0 without any."""
    wanted, seen, lower = q * sum(classes), 0, 0.0
    for upper, count in zip((*BOUNDS, BOUNDS[-1]), classes, strict=True):
        if count and seen + count >= wanted:
            return round(lower + (upper - lower) * (wanted - seen) / count, 6)
        seen, lower = seen + count, upper
    return 0.0


def _complete(known: list[list[Sample]], since: int) -> int:
    """Return the newest time of which all nodes have told: one more would look like a dip."""
    newest = [series[-1][0] if series else since for series in known]
    return min((number for number in newest if number > max(newest) - BEHIND), default=0)


def of_cluster(nodes: Iterable[Iterable[Sample]], *, since: int = 0) -> list[dict[str, float]]:
    """Put the samples of all nodes, after a number, together: sums of counts and rates, and the worst latencies."""
    known = [[*series] for series in nodes]
    end = _complete(known, since)
    together: dict[int, dict[str, float]] = {}
    for number, values in (sample for series in known for sample in series if sample[0] <= end):
        total = together.setdefault(number, dict.fromkeys(SERIES, 0.0))
        for name, value in zip(SERIES, values, strict=False):
            total[name] = max(total[name], value) if name in _WORST else total[name] + value
    return [{"at": number * PERIOD, **together[number]} for number in sorted(together)]
