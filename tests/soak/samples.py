"""Figures of processes over time: memory, and whether it grows."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

WARM_UP = 1 / 3
"""Of a life: until then histories, charts and code fill up, and allocators get what each kind of fault takes at its
worst, which comes first; all that growth ends."""
LEAST_SECONDS = 1200.0
"""A life of which less is left after that tells nothing: every kind of fault has to come once more."""


@dataclass(frozen=True)
class Measure:
    """What is followed of a process, and how much more of it a minute is still flat.

    A minute of the standard load has one fault, after which about a hundred clients come anew, and 12,000 messages,
    which come to every node.
    """

    unit: str
    part: str
    parts: int
    """Of which one unit consists."""
    limit: float
    """Parts a minute."""


RESIDENT = Measure("MiB", "KiB", 1024, limit=64)
"""What the system has given to a process. A node that kept 1 KiB of every connection that ended would grow by some 30
to 100, one that kept 8 bytes of every message by 94. Allocators move by steps of a few hundred KiB after faults, in
which queues were long once; over the shortest life that is judged, three such steps stay below the limit."""
ALIVE = Measure("thousand blocks", "blocks", 1000, limit=1000)
"""What Python objects use of it, whatever allocators keep; garbage in cycles counts until it is collected. A message
takes one at least, a connection 14; the charts of the admin pages fill by some 240 a minute, for 15."""


@dataclass(frozen=True)
class Slope:
    """How one measure of one process went while it lived."""

    process: str
    measure: Measure
    minutes: float
    first: float
    """Units, at the end of the warm-up."""
    last: float
    per_minute: float | None
    """Parts, or None where the life was too short to say."""

    @property
    def is_flat(self) -> bool:
        return self.per_minute is None or self.per_minute <= self.measure.limit

    def __str__(self) -> str:
        size = f"{self.process}: {self.first:.1f} to {self.last:.1f} {self.measure.unit} in {self.minutes:.0f} min"
        return size if self.per_minute is None else f"{size}, {self.per_minute:+.1f} {self.measure.part} a minute"


class Memory:
    """One measure of the memory of processes, life by life."""

    def __init__(self, measure: Measure = RESIDENT) -> None:
        self._measure = measure
        self._samples: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def add(self, process: str, seconds: float, units: float) -> None:
        self._samples[process].append((seconds, units))

    def latest(self, process: str) -> float:
        return self._samples[process][-1][1] if process in self._samples else 0.0

    def slopes(self) -> list[Slope]:
        return [slope_of(process, samples, self._measure) for process, samples in self._samples.items()]


def slope_of(process: str, samples: list[tuple[float, float]], measure: Measure = RESIDENT) -> Slope:
    """Judge one life: the median slope between any two samples after the warm-up.

    A step, such as one large reply, moves a least-squares line; it hardly moves that median (Theil and Sen).
    """
    began, ended = samples[0][0], samples[-1][0]
    late = [sample for sample in samples if sample[0] >= began + (ended - began) * WARM_UP]
    long_enough = late[-1][0] - late[0][0] >= LEAST_SECONDS
    per_minute = _median_slope(late) * measure.parts if long_enough else None
    return Slope(process, measure, (ended - began) / 60, late[0][1], late[-1][1], per_minute)


def _median_slope(samples: list[tuple[float, float]]) -> float:
    """Return units a minute."""
    thinned = samples[:: max(1, len(samples) // 400)]
    slopes = [
        (later[1] - sooner[1]) / ((later[0] - sooner[0]) / 60)
        for index, sooner in enumerate(thinned)
        for later in thinned[index + 1 :]
    ]
    return statistics.median(slopes)


def resident(pid: int) -> float:
    """Return the MiB a process has in memory; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
