"""Tell how many nodes and Redis shards a load needs; see `scripts/sizing --help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from arguments import positive
from measure.capacity import THEN, Load, Size, size, standard
from measure.costs import Costs, learn

ABOUT = """\
Tell how many nodes and Redis shards a load needs, what breaks first when it grows, and what to do then.

Without options: the table of docs/sizing.md. Nodes and Redis have a core each, of which half may be busy; a node may
take 1 GiB, a shard 8 GiB; the network has 1 Gbit/s, of which half may be used: the percentages are of that. No node has
more connections than in the largest cluster that was measured, and one node may die. The costs are in
scripts/measure/costs.json; those of several shards are assumed to be as those of one.
"""
HEADS = ("load", "connections", "messages/s", "deliveries/s", "nodes", "shards", "breaks first", "then")


def row(name: str, load: Load, found: Size | None) -> list[str]:
    words = [name, f"{load.connections:,}", f"{load.messages:,.0f}", f"{load.deliveries:,.0f}"]
    if found is None:
        return [*words, "-", "-", "node CPU for arrivals", THEN["node CPU for arrivals"]]
    first = f"{found.first} ({found.loads[found.first]:.0%})"
    return [*words, f"{found.nodes:,}", f"{found.shards:,}", first, THEN[found.first]]


def markdown(costs: Costs) -> str:
    """Write the table of docs/sizing.md."""
    rows = [list(HEADS), ["---"] * len(HEADS), *(row(name, load, size(load, costs)) for name, load in standard())]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def described(load: Load, costs: Costs) -> str:
    """Write all that is known about one load."""
    found = size(load, costs)
    lines = [f"{head:14} {word}" for head, word in zip(HEADS, row("this", load, found), strict=True)][1:]
    parts = [f"{part:6.0%} of the allowed {name}" for name, part in found.loads.items()] if found else []
    return "\n".join([*lines, "", *parts])


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/sizing",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("--connections", type=positive, help="in the whole cluster")
    option("--members", type=positive, default=10, help="connections that get each message (10)")
    option("--messages", type=positive, default=1, help="a second in the whole cluster (1)")
    option("--bytes", type=positive, default=200, help="of a message (200)")
    option("--lifetime", type=positive, default=900, help="seconds that a connection stays (900)")
    option("--from-server", action="store_true", help="the server writes them, not clients")
    option(
        "--learn", nargs=2, type=Path, metavar=("BENCH", "MILLION"), help="write the costs: the files of --out, --json"
    )
    option("--machine", default="", help="with --learn: the machine of BENCH")
    option("--date", default="", help="with --learn: when that was")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse(sys.argv[1:])
    try:
        if options.learn:
            learn(*options.learn, machine=options.machine, date=options.date)
        costs = Costs.read()
    except (OSError, ValueError, LookupError) as failure:
        print(f"scripts/sizing: {failure}", file=sys.stderr)
        return 1
    if options.connections:
        by_clients = not options.from_server
        numbers = (int(options.connections), options.members, options.messages, int(options.bytes))
        print(described(Load(*numbers, by_clients, options.lifetime), costs))
    else:
        print(markdown(costs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
