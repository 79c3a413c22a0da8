"""Let a cluster live under load and faults, and see that nothing is lost, doubled or leaks: `scripts/soak --help`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import resource
import signal
import sys
import time
from pathlib import Path

from arguments import count, positive

from tests.soak.faults import FAULTS
from tests.soak.soak import Plan, Soak

ABOUT = """\
Let a cluster of nodes behind haproxy live under steady load, with a fault every minute, and see what must hold:

- a channel with history loses nothing, doubles nothing and keeps the order, for clients that resume;
- a channel without loses only what a `$gap`, or the end of the connection, accounts for, and doubles nothing (plain
  clients, which hear of no gap: only what was written during a fault);
- before and after each stretch without a fault Redis holds the keys and subscriptions that it should, and over the
  stretch what nodes count adds up with what clients counted, to the message;
- the memory of a node does not grow;
- when all clients have gone, no key and no subscription of theirs is left; and the nodes drain with exit code 0.

A line is printed for each fault, and a report at the end, for which Ctrl-C need not wait. Exit code 1: something does
not hold. Needs redis-server and haproxy.
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("--minutes", type=positive, default=60, help="how long faults are made; default %(default)s")
    option("--seconds", type=positive, help="the same, in place of --minutes")
    option("--seed", type=int, help="decides which faults, and how long; default the time of day")
    option("--fault-every", type=positive, default=60, metavar="SECONDS", help="default %(default)s")
    option("--faults", type=_faults, default=list(FAULTS), metavar="A,B", help=f"default {','.join(FAULTS)}")
    option("--nodes", type=count, default=3, help="default %(default)s")
    option("--clients", type=count, default=300, help="default %(default)s")
    option("--channels", type=count, default=50, help="half of them with history; default %(default)s")
    option("--rate", type=positive, default=200, help="messages a second in all; default %(default)s")
    option("--json", type=Path, metavar="FILE", help="write the report there, too")
    options = parser.parse_args(arguments)
    if options.nodes < 2 or options.channels < 2 or options.channels % 2:
        parser.error("expected two nodes or more, and an even number of channels")
    if options.clients * 2 < options.channels * 7:
        parser.error(f"expected {options.channels * 7 // 2} clients for so many channels, got {options.clients}")
    return options


def plan_of(options: argparse.Namespace) -> Plan:
    return Plan(
        seconds=options.seconds or options.minutes * 60,
        fault_every=options.fault_every,
        faults=options.faults,
        seed=int(time.time()) if options.seed is None else options.seed,
        nodes=options.nodes,
        clients=options.clients,
        channels=options.channels,
        rate=options.rate,
    )


async def soak(plan: Plan) -> Soak:
    """Run it; the first Ctrl-C ends it in good order, the second one at once."""
    running = Soak(plan, lambda line: print(line, flush=True))
    print(f"seed {plan.seed}, {plan.seconds / 60:.1f} min, a fault every {plan.fault_every:g} s", file=sys.stderr)
    task = asyncio.ensure_future(running.run())

    def stop() -> None:
        if running.stopping.is_set():
            task.cancel()
        running.stopping.set()
        print("stopping; once more to stop at once", file=sys.stderr, flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await asyncio.wait([task])
    if task.cancelled():
        running.report.blame(["stopped before the end"])
    elif (error := task.exception()) is not None:
        raise error
    running.judge()
    return running


def main() -> int:
    options = parse(sys.argv[1:])
    plan = plan_of(options)
    logging.getLogger("gateway").setLevel(logging.CRITICAL)  # the publisher's own words about each fault
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    report = asyncio.run(soak(plan)).report
    print(report)
    if options.json:
        options.json.write_text(json.dumps(report.json(), indent=2) + "\n")
    return 0 if report.holds else 1


def _faults(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(FAULTS)}, got {unknown[0]!r}")
    return names


if __name__ == "__main__":
    sys.exit(main())
