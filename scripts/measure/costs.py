"""What things cost, as measured: read from costs.json, and learned from what the measuring scripts wrote."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "costs.json"


@dataclass(frozen=True)
class Costs:
    """CPU in microseconds, memory in bytes."""

    delivery_us: float
    """Of a node, for one message to one of many members."""
    message_us: float
    """Of a node, for a message that a client sends: read, handled, published."""
    arrival_us: float
    """Of a node, for a message that comes from Redis, before it goes to anybody."""
    handshake_us: float
    """Of a node, for a connection that comes."""
    connection_bytes: float
    """Of a node, for a connection."""
    redis_publish_us: float
    """Of Redis, for a message."""
    redis_receiver_us: float
    """Of Redis, for each node that a message goes to."""
    redis_visit_us: float
    """Of Redis, for a connection that comes and goes."""
    redis_connection_bytes: float
    """Of Redis, for a connection: the sets and the subscriptions."""
    node_connections: float
    """As many as nodes had in the largest cluster that was measured."""

    @classmethod
    def read(cls, file: Path = FILE) -> Costs:
        """Read what was learned last. Raises `ValueError` naming what is missing."""
        known = json.loads(file.read_text())["costs"]
        missing = [field.name for field in fields(cls) if field.name not in known]
        if missing:
            raise ValueError(f"{file} lacks {', '.join(missing)}")
        return cls(**{field.name: float(known[field.name]["value"]) for field in fields(cls)})


def learn(bench: Path, simulation: Path, *, machine: str, date: str) -> None:
    """Write costs.json from the lines of `scripts/bench --out` and the report of `scripts/million --json`."""
    runs = [json.loads(line) for line in bench.read_text().splitlines()]
    report = json.loads(simulation.read_text())
    of_bench = {"date": date, "machine": machine, "command": "scripts/bench broadcast rooms idle --out FILE"}
    of_report = {name: report[name] for name in ("date", "machine", "command")}
    costs = {name: {"value": round(value, 2), **of_bench} for name, value in _of_nodes(runs)}
    costs |= {name: {"value": round(value, 2), **of_report} for name, value in _of_redis(report)}
    written = {"python": report["python"], "redis": report["redis"], "costs": costs}
    FILE.write_text(json.dumps(written, indent=2) + "\n")


def _of_nodes(runs: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    delivery = 1e6 / _median(runs, "broadcast", "deliveries_per_cpu_s")
    yield "delivery_us", delivery
    members = 10  # of a channel in this workload, all of whom get what one of them sends
    yield "message_us", members * max(0.0, 1e6 / _median(runs, "rooms", "deliveries_per_cpu_s") - delivery)
    yield "handshake_us", 1e6 / _median(runs, "idle", "handshakes_per_cpu_s")
    yield "connection_bytes", _median(runs, "idle", "bytes_per_connection")


def _median(runs: list[dict[str, Any]], workload: str, figure: str) -> float:
    good = [
        run["figures"][figure]
        for run in runs
        if (run["workload"], run["server"], run["failed"]) == (workload, "gateway", "")
    ]
    if not good:
        raise ValueError(f"no good run of {workload} on the gateway")
    return float(statistics.median(good))


def _of_redis(report: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    steps, figures = report["steps"], report["figures"]

    def each(step: str, what: str) -> float:
        return float(1e6 * steps[step][what] / steps[step]["count"])

    nobody, everybody = "published to nobody", "published to all nodes"
    yield "arrival_us", each("published to a node", "nodes_cpu") - each(nobody, "nodes_cpu")
    yield "redis_publish_us", each(nobody, "redis_cpu")
    yield "redis_receiver_us", (each(everybody, "redis_cpu") - each(nobody, "redis_cpu")) / report["nodes"]
    yield "redis_visit_us", each("come", "redis_cpu") + each("gone", "redis_cpu")
    subscriptions = figures["redis_bytes_per_subscription"] * figures["redis_subscriptions_per_connection"]
    yield "redis_connection_bytes", figures["redis_bytes_per_connection"] + subscriptions
    yield "node_connections", report["connections"] / report["nodes"]
