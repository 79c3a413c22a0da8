"""Measure the gateway beside C programs that only do what no server can leave out; see `scripts/bench --help`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from arguments import count, positive
from measure.plot import draw
from measure.results import Run, ratios, read, tables
from measure.servers import FLOOR, JOINING, OWN, Machine, prepare, running
from measure.workloads import WORKLOADS, Outcome, Workload
from processes import Failed, Signals, Stopped

QUICK_SECONDS = 0.4
ABOUT = """\
Measure the gateway beside two C programs that only do what no server can leave out, on this machine, in turn.

Absolute numbers are those of this machine on this day; the ratios are what carries over. Deliveries are counted per
second of the server's CPU, the kernel's work for it included: the server has one core for itself, Redis and the load
another. Whatever is lost, comes twice or out of order fails its run. Nothing else should run meanwhile.

servers:
  gateway        `gateway serve` from this clone
  floor          C: one send() for each socket and message
  joining floor  C: what one read of Redis brought for a channel goes out in one send() for each socket
  stock aiohttp  its WebSocketResponse, listening; for memory and handshakes
"""
PEERS = """\
A peer takes GET /connect?ch=NAME, sends any text frame once it has joined, delivers what is PUBLISHed to
gateway:channel:NAME, and publishes there what a client sends as {"channel": NAME, ...}, both as text frames in which
the param stays readable JSON. {port} and {redis} in its command are the ports it is to use. CPU and memory are those
of the process that is started. Another revision of the gateway is a peer, too:
  --peer 'before=env PYTHONPATH=../before:scripts .venv/bin/python -m gateway serve --port {port}
          --redis-url redis://127.0.0.1:{redis}/0 --handler measure.relay:Relay'
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    width = max(map(len, WORKLOADS))
    listed = [f"  {w.name.ljust(width)}  {w.about} (size {w.size:,}, quick {w.quick:,})" for w in WORKLOADS.values()]
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=ABOUT + "\nworkloads:\n" + "\n".join(listed),
        epilog=PEERS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("workloads", nargs="*", metavar="WORKLOAD", help="all of them unless named")
    option("--quick", action="store_true", help="small and short, in less than a minute: only a first look")
    option("--repeat", type=count, help="how often, in turn with the others (3; quick 1)")
    option("--seconds", type=positive, help=f"how long each is measured (2; quick {QUICK_SECONDS})")
    option("--size", type=count, help="connections, or channels, in place of each workload's own")
    option("--peer", action="append", default=[], type=_peer, metavar="NAME=COMMAND", help="another server, see below")
    option("--out", type=Path, metavar="FILE", help="append every run to this file, as a line of JSON")
    option("--plot", type=Path, metavar="FILE.svg", help="draw the ratios of deliveries")
    option("--read", type=Path, metavar="FILE", help="measure nothing: show what --out wrote before")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.workloads if name not in WORKLOADS]
    if unknown:
        parser.error(f"expected one of {', '.join(WORKLOADS)}, got {unknown[0]!r}")
    options.repeat = options.repeat or (1 if options.quick else 3)
    options.seconds = options.seconds or (QUICK_SECONDS if options.quick else 2)
    return options


def measure(options: argparse.Namespace, machine: Machine, signals: Signals) -> Iterator[Run]:
    """Run everything; in each repetition one server after the other, and in the next one back again."""
    session = int(time.time())
    for workload in [WORKLOADS[name] for name in options.workloads or WORKLOADS]:
        size = fitting(workload, options, machine)
        servers = [*workload.servers, *(machine.peers if workload.takes_peers else ())]
        for repeat in range(options.repeat):
            for name in servers[:: -1 if repeat % 2 else 1]:
                outcome = attempt(workload, size, options.seconds, machine, signals, name)
                print(f"{workload.name} {repeat + 1}/{options.repeat} {name}: {described(outcome)}", file=sys.stderr)
                yield Run(session, workload.name, name, repeat, size, outcome.figures, outcome.report, outcome.failed)


def fitting(workload: Workload, options: argparse.Namespace, machine: Machine) -> int:
    """Return its size: as asked for, or as many connections as can be had."""
    size: int = options.size or (workload.quick if options.quick else workload.size)
    if not workload.takes_peers or size <= machine.connections:
        return size
    print(f"{workload.name}: {machine.connections} connections, since no more files may be open", file=sys.stderr)
    return machine.connections


def attempt(workload: Workload, size: int, seconds: float, machine: Machine, signals: Signals, name: str) -> Outcome:
    """Measure one server; that it cannot be measured is a failed run, not the end of the others."""
    try:
        with running(machine, signals, name) as server:
            return workload.run(server, size, seconds)
    except Failed as failure:
        return Outcome({}, {}, str(failure))


def described(outcome: Outcome) -> str:
    if outcome.failed:
        return f"FAILED: {outcome.failed}"
    return ", ".join(f"{value:,.2f} {figure.replace('_', ' ')}" for figure, value in outcome.figures.items())


def drawn(runs: list[Run]) -> str:
    """Draw the deliveries beside the harder floor, and beside peers; raise Failed when there are none."""
    chosen = [r for r in ratios(runs) if r.figure == "deliveries_per_cpu_s" and r.server != FLOOR]
    if not chosen:
        raise Failed("nothing to draw: no workload with deliveries was measured on both sides")
    title = "Deliveries per second of the server's CPU: the gateway's / the other server's"
    subtitle = f"Medians, and the spread of all repetitions. {JOINING.capitalize()}: a C program that only sends."
    return draw(chosen, title, subtitle)


def keep(runs: Iterator[Run], file: Path | None) -> Iterator[Run]:
    """Append each run to the file as it comes."""
    for run in runs:
        if file:
            with file.open("a") as lines:
                lines.write(run.line() + "\n")
        yield run


def collect(options: argparse.Namespace) -> list[Run]:
    if options.read:
        return read(options.read)
    signals = Signals()
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        machine = prepare(Path(folder), dict(options.peer))
        return list(keep(measure(options, machine, signals), options.out))


def main() -> int:
    options = parse(sys.argv[1:])
    try:
        runs = collect(options)
        print(tables(runs))
        if options.plot:
            options.plot.write_text(drawn(runs))
    except Stopped:
        return 130
    except (Failed, OSError) as failure:
        print(f"scripts/bench: {failure}", file=sys.stderr)
        return 1
    return 0 if options.read else int(any(run.failed for run in runs))


def _peer(text: str) -> tuple[str, str]:
    name, separator, command = text.partition("=")
    if not (name and separator and command):
        raise argparse.ArgumentTypeError(f"expected NAME=COMMAND, got {text!r}")
    if name in OWN:
        raise argparse.ArgumentTypeError(f"expected a name of its own, got {name!r}")
    return name, command


if __name__ == "__main__":
    sys.exit(main())
