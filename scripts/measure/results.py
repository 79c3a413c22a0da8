"""Runs as lines of JSON, and what is made of them: medians, spreads, ratios, a table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from processes import Failed

from measure.servers import GATEWAY
from measure.workloads import WORKLOADS


@dataclass(frozen=True)
class Run:
    """One server under one workload, once. `session` is when the benchmark was started."""

    session: int
    workload: str
    server: str
    repeat: int
    size: int
    figures: dict[str, float]
    report: dict[str, Any]
    failed: str

    def line(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Spread:
    """A median, and the smallest and largest of the values it is from."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        known = sorted(values)
        return cls(statistics.median(known), known[0], known[-1])

    def __str__(self) -> str:
        if self.low == self.high:
            return _written(self.middle)
        return f"{_written(self.middle)} ({_written(self.low)} to {_written(self.high)})"


@dataclass(frozen=True)
class Ratio:
    """A figure of the gateway divided by that of another server in the same repetition."""

    workload: str
    figure: str
    server: str
    spread: Spread


def read(file: Path) -> list[Run]:
    """Read runs that were kept; raise Failed naming the line that is none."""
    runs = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            run = Run(**json.loads(line))
        except (ValueError, TypeError):
            raise Failed(f"{file}:{number}: expected a run as --out writes it") from None
        if run.workload not in WORKLOADS:
            raise Failed(f"{file}:{number}: there is no workload {run.workload!r}")
        runs.append(run)
    return runs


def ratios(runs: list[Run]) -> list[Ratio]:
    """Compare the gateway with each other server, repetition by repetition."""
    good = [run for run in runs if not run.failed]
    ours = {(run.session, run.workload, run.repeat): run.figures for run in good if run.server == GATEWAY}
    found: dict[tuple[str, str, str], list[float]] = {}
    for run in good:
        figures = ours.get((run.session, run.workload, run.repeat), {})
        for figure in WORKLOADS[run.workload].compared if run.server != GATEWAY else ():
            if figures.get(figure) and run.figures.get(figure):
                found.setdefault((run.workload, figure, run.server), []).append(figures[figure] / run.figures[figure])
    return [Ratio(*key, Spread.of(values)) for key, values in found.items()]


def tables(runs: list[Run]) -> str:
    """Return everything as Markdown: the ratios, then the figures of each workload."""
    compared = [[r.workload, _words(r.figure), f"{GATEWAY} / {r.server}", str(r.spread)] for r in ratios(runs)]
    parts = [table(["workload", "figure", "ratio", "median (spread)"], compared)] if compared else []
    for name in dict.fromkeys(run.workload for run in runs):
        written = _figures([run for run in runs if run.workload == name])
        parts.append(f"**{name}**: {WORKLOADS[name].about}\n\n{written}")
    return "\n\n".join(parts)


def _figures(runs: list[Run]) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run.figures))
    rows = []
    for server in dict.fromkeys(run.server for run in runs):
        mine = [run for run in runs if run.server == server]
        good = [run.figures for run in mine if not run.failed]
        cells = [str(Spread.of(one[name] for one in good if name in one)) if good else "failed" for name in names]
        rows.append([server, f"{len(good)} of {len(mine)}", *cells])
    return table(["server", "good runs", *map(_words, names)], rows)


def table(heads: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )


def _words(figure: str) -> str:
    return figure.replace("_", " ")


def _written(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
