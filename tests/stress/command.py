"""Try four nodes and a Redis with scenarios that check themselves; see `scripts/stress --help`."""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from processes import Failed

from tests.stress import subjects
from tests.stress.arena import Arena
from tests.stress.checks import Wrong
from tests.stress.scenario import SCENARIOS, Scenario

ABOUT = """\
Try the gateway of this clone: four nodes, each a process, a Redis, and scenarios that check themselves by counts and
states, never by time. After each of them nodes and Redis must hold what they held before: keys, subscriptions,
connections, tasks, open files; and no log may complain of what the scenario did not bring about.
"""
PATIENCE = 300.0
"""Seconds after which a scenario hangs."""


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/stress",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("--quick", action="store_true", help="a selection that takes less than a minute")
    option("--seed", type=int, help="decides what is left to chance; printed, so that a run can be repeated")
    option("--repeat", type=int, default=1, help="how often, each time with the next seed (default: once)")
    option("--only", action="append", default=[], metavar="NAME", help="scenarios or subjects; * is any letters")
    option("--list", action="store_true", help="say what there is, and do nothing")
    option("--fail-fast", action="store_true", help="stop at the first scenario that fails")
    options = parser.parse_args(arguments)
    options.seed = random.randrange(1_000_000) if options.seed is None else options.seed
    options.chosen = [each for each in SCENARIOS.values() if is_chosen(each, options)]
    if not options.chosen:
        parser.error(f"no scenario is called {', '.join(options.only)}: see --list")
    return options


def is_chosen(scenario: Scenario, options: argparse.Namespace) -> bool:
    if options.only:
        names = (scenario.name, scenario.subject)
        return any(fnmatch.fnmatchcase(name, wanted) for name in names for wanted in options.only)
    return scenario.quick or not options.quick


def listing(scenarios: list[Scenario]) -> Iterator[str]:
    subject = ""
    for each in scenarios:
        if each.subject != subject:
            subject = each.subject
            yield f"\n{subject}"
        yield f"  {each.name}{' (quick)' if each.quick else ''}\n      {each.promise}"


class Run:
    """Plays scenarios one after the other, and sums up."""

    def __init__(self, chosen: list[Scenario]) -> None:
        self.failed: list[str] = []
        self.done = 0
        self.counts: Counter[str] = Counter()
        self._began = time.monotonic()
        self._chosen = chosen
        self._width = max(len(f"{each.subject}/{each.name}") for each in chosen)

    async def all(self, seeds: Iterable[int], folder: Path, *, fail_fast: bool) -> None:
        """Play everything once for each seed; what failed leaves its nodes and Redis to nobody."""
        async with AsyncExitStack() as stack:
            arena: Arena | None = None
            for number, (seed, scenario) in enumerate((seed, each) for seed in seeds for each in self._chosen):
                if arena is None:
                    arena = await stack.enter_async_context(Arena(folder))
                if not await self._play(arena, scenario, seed, number % len(self._chosen) + 1):
                    await stack.aclose()
                    arena = None
                    if fail_fast:
                        return

    async def _play(self, arena: Arena, scenario: Scenario, seed: int, number: int) -> bool:
        """Play one, and print one line about it, or what was wrong; tell whether it went well."""
        began = time.monotonic()
        place = f"{number:{len(str(len(self._chosen)))}}/{len(self._chosen)}"
        name = f"{scenario.subject}/{scenario.name}"
        self.done += 1
        try:
            async with asyncio.timeout(PATIENCE):
                await scenario.play(arena, seed)
        except Exception as error:
            self.failed.append(scenario.name)
            text = str(error) if isinstance(error, Wrong) else traceback.format_exc()
            print(f"FAILED {place}  {name}, seed {seed}", f"promised: {scenario.promise}", text, sep="\n    ")
            print(f"    again: scripts/stress --only {scenario.name} --seed {seed}", flush=True)
            return False
        counts = arena.counts | Counter(checks=arena.checks)
        self.counts += counts
        took = f"{time.monotonic() - began:5.1f} s"
        print(f"ok  {place}  {name:<{self._width}} {took}  {amounts(counts)}", flush=True)
        return True

    def summary(self, seed: int) -> str:
        """Say in one line how it went."""
        if self.failed:
            return f"FAILED: {len(self.failed)} of {self.done} scenarios, {', '.join(self.failed)}"
        totals = {what: self.counts[what] for what in ("checks", "clients", "messages")}
        took = time.monotonic() - self._began
        return f"{self.done} scenarios went well: {amounts(totals)} in {took:.0f} s, seed {seed}"


def amounts(counts: dict[str, int]) -> str:
    return ", ".join(f"{amount:,} {what}" for what, amount in counts.items())


def main() -> int:
    options = parse(sys.argv[1:])
    if options.list:
        print(f"{len(options.chosen)} scenarios", *listing(options.chosen), sep="\n")
        return 0
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        del os.environ[name]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(f"{len(options.chosen)} scenarios of {len(subjects.NAMES)} subjects, seed {options.seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    run, seeds = Run(options.chosen), range(options.seed, options.seed + options.repeat)
    try:
        with tempfile.TemporaryDirectory(prefix="gateway-stress-") as folder:
            asyncio.run(run.all(seeds, Path(folder), fail_fast=options.fail_fast))
    except KeyboardInterrupt:
        return 130
    except (Failed, Wrong, OSError) as failure:
        print(f"scripts/stress: {failure}", file=sys.stderr)
        return 1
    print(run.summary(options.seed))
    return int(bool(run.failed))


if __name__ == "__main__":
    sys.exit(main())
