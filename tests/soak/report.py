"""What a soak found, as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tests.soak.ledger import Verdict
from tests.soak.samples import ALIVE, RESIDENT, Slope

MOST_PROBLEMS = 100


@dataclass
class Report:
    """Figures so far, and everything that does not hold."""

    seed: int
    seconds: float = 0
    clients: dict[str, int] = field(default_factory=dict)
    """By kind."""
    channels: int = 0
    rate: float = 0
    faults: list[str] = field(default_factory=list)
    written: int = 0
    unsure: int = 0
    """Writes of which the writer was not told that they were taken."""
    connections: int = 0
    """Made by all clients."""
    duplicates: int = 0
    """Kept from the application by the Python client."""
    resumed: Verdict = field(default_factory=Verdict)
    """Channels with history, at clients that resume: nothing may be missing."""
    others: Verdict = field(default_factory=Verdict)
    """Channels without, and plain clients."""
    gaps_resumed: int = 0
    gaps_others: int = 0
    longest_recovery: float = 0
    """Seconds from the end of a fault until every client heard every channel again."""
    sums: int = 0
    """Stretches without a fault over which all counts were compared."""
    sums_delivered: int = 0
    slopes: list[Slope] = field(default_factory=list)
    not_judged: list[Slope] = field(default_factory=list)
    """Of Redis, whose histories fill, and of the process with all clients."""
    problems: list[str] = field(default_factory=list)
    problems_in_all: int = 0

    def blame(self, problems: list[str]) -> None:
        self.problems_in_all += len(problems)
        self.problems += problems[: max(0, MOST_PROBLEMS - len(self.problems))]

    @property
    def holds(self) -> bool:
        return not self.problems

    def json(self) -> dict[str, Any]:
        return {"holds": self.holds, **asdict(self)}

    def __str__(self) -> str:
        clients = ", ".join(f"{count} {kind}" for kind, count in self.clients.items())
        lines = [
            f"{self.seconds / 60:.1f} min, seed {self.seed}: {sum(self.clients.values())} clients ({clients}), "
            f"{self.channels} channels, {self.written:,} messages written ({self.unsure:,} of them unsure)",
            f"faults: {len(self.faults)}; connections made: {self.connections:,}; longest recovery "
            f"{self.longest_recovery:.1f} s; duplicates kept back by the client: {self.duplicates:,}",
            f"with history, resumed:        {described(self.resumed)}, gaps {self.gaps_resumed:,}",
            f"without, and plain clients:   {described(self.others)}, gaps {self.gaps_others:,}",
            f"counters: {self.sums_delivered:,} deliveries compared over {self.sums} stretches without a fault",
            f"memory (flat is at most {RESIDENT.limit:+.0f} KiB, and {ALIVE.limit:+.0f} blocks, a minute):",
            *(f"  {slope}" for slope in self.slopes),
            *(f"  {slope} (not judged)" for slope in self.not_judged),
            *(f"DOES NOT HOLD: {problem}" for problem in self.problems),
        ]
        if self.problems_in_all > len(self.problems):
            lines.append(f"... and {self.problems_in_all - len(self.problems)} more")
        return "\n".join([*lines, "everything holds" if self.holds else f"{self.problems_in_all} problems"])


def described(verdict: Verdict) -> str:
    lost = verdict.lost_told + verdict.lost_untold
    words = f"{verdict.heard:,} heard, lost {lost:,}"
    if lost:
        words += f" ({verdict.lost_untold:,} of them untold)"
    return f"{words}, doubled {verdict.doubled:,}, out of order {verdict.reordered:,}"
