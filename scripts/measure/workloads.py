"""The workloads: what is asked of a server, and the figures that come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from measure.servers import FLOOR, GATEWAY, JOINING, STOCK, Server

MEMBERS = 10  # of one channel, in the workload with many
SILENT = 20  # members that never read, in the workload with slow ones
FAULTS = ("lost", "duplicates", "reordered", "disconnected")


@dataclass(frozen=True)
class Outcome:
    """What came of one run. Figures of a failed one count for nothing."""

    figures: dict[str, float]
    report: dict[str, Any]
    failed: str = ""


@dataclass(frozen=True)
class Workload:
    """`size` is how many connections it takes, or channels; `quick` how many for a first look."""

    name: str
    about: str
    size: int
    quick: int
    run: Callable[[Server, int, float], Outcome]
    # The figures that are set against those of the other servers.
    compared: tuple[str, ...] = ("deliveries_per_cpu_s",)
    servers: tuple[str, ...] = (GATEWAY, FLOOR, JOINING)
    takes_peers: bool = True


def delivered(report: dict[str, Any]) -> Outcome:
    """Judge what the load program counted: a run that loses anything, or has anything twice, is a failed one."""
    faults = [f"{report[fault]} {fault}" for fault in FAULTS if report[fault]]
    if not report["deliveries"]:
        faults.append("nothing delivered")
    cpu, seconds = report["server_cpu"], report["seconds"]
    figures = {
        "deliveries_per_cpu_s": report["deliveries"] / cpu if cpu else 0,
        "deliveries_per_s": report["deliveries"] / seconds if seconds else 0,
        "p50_ms": report["latency_ms"]["p50"],
        "p99_ms": report["latency_ms"]["p99"],
        "server_busy": cpu / seconds if seconds else 0,
    }
    if report["ping_ms"]["longest"]:
        figures["ping_p50_ms"] = report["ping_ms"]["p50"]
        figures["ping_p99_ms"] = report["ping_ms"]["p99"]
    return Outcome(figures, report, ", ".join(faults))


def run_broadcast(server: Server, size: int, seconds: float) -> Outcome:
    return delivered(server.load(connections=size, **lasting(seconds)))


def run_burst(server: Server, size: int, seconds: float) -> Outcome:
    return delivered(server.load(connections=size, window=32, **lasting(seconds)))


def run_large(server: Server, size: int, seconds: float) -> Outcome:
    # One message to so many takes a good part of a second.
    return delivered(server.load(connections=size, aside=1, **lasting(2 * seconds)))


def run_rooms(server: Server, size: int, seconds: float) -> Outcome:
    channels = max(1, size // MEMBERS)
    crowd = {"connections": size // channels * channels, "channels": channels}
    return delivered(server.load(clients=1, window=channels, **crowd, **lasting(seconds)))


def run_latency(server: Server, size: int, seconds: float) -> Outcome:
    return delivered(server.load(connections=size, rate=20_000 / size, **lasting(seconds)))


def run_slow(server: Server, size: int, seconds: float) -> Outcome:
    each = {"size": 1024, "rate": 20_000 / size, **lasting(2 * seconds)}
    alone = delivered(server.load(connections=size, **each))
    among = delivered(server.load(connections=size + SILENT, silent=SILENT, **each))
    without = {"p99_ms_without": alone.figures["p99_ms"]}
    return Outcome(among.figures | without, among.report, among.failed or alone.failed)


def lasting(seconds: float) -> dict[str, float]:
    """Return the options for a measurement of this length and what precedes it."""
    return {"seconds": seconds, "warmup": min(0.5, seconds / 2)}


def run_idle(server: Server, size: int, seconds: float) -> Outcome:
    # What only the first connections cost is not what a connection costs.
    server.load(connections=MEMBERS, hold=0.1)
    channels = max(1, size // MEMBERS)
    size = size // channels * channels
    report, grown = server.hold(connections=size, channels=channels)
    cpu = report["connect_cpu"]
    figures = {
        "bytes_per_connection": grown / size,
        "handshakes_per_cpu_s": size / cpu if cpu else 0,
        "handshakes_per_s": size / report["connect_seconds"],
    }
    return Outcome(figures, report)


def run_handshakes(server: Server, size: int, seconds: float) -> Outcome:
    server.load(connections=MEMBERS, bare=1, hold=0.1)
    report, _ = server.hold(connections=size, bare=1)
    cpu = report["connect_cpu"]
    return Outcome({"handshakes_per_cpu_s": size / cpu if cpu else 0}, report)


def run_channels(server: Server, size: int, seconds: float) -> Outcome:
    figures = server.run("channels", max(1, size // 20), max(1, size // 10), size)
    return Outcome(figures, figures)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("broadcast", "one channel, 128 bytes, each message when all have the last", 1000, 500, run_broadcast),
        Workload("burst", "the same with 32 messages under way", 1000, 500, run_burst),
        Workload("large", "a large channel, and how long another connection's ping takes", 20_000, 1500, run_large),
        Workload("rooms", f"clients send to channels of {MEMBERS}", 2000, 500, run_rooms),
        Workload("latency", "20,000 deliveries a second", 1000, 500, run_latency, ("p99_ms", "deliveries_per_cpu_s")),
        Workload("slow", f"the same among {SILENT} that never read, and without them", 500, 200, run_slow, ("p99_ms",)),
        Workload(
            "handshakes",
            "opened in no channel; the gateway's are in Redis as well",
            4000,
            1000,
            run_handshakes,
            ("handshakes_per_cpu_s",),
            (GATEWAY, STOCK),
        ),
        Workload(
            "idle",
            f"memory of a connection in a channel of {MEMBERS}, and handshakes that join it and tell the others",
            10_000,
            1000,
            run_idle,
            ("bytes_per_connection", "handshakes_per_cpu_s"),
            (GATEWAY, STOCK),
        ),
        Workload(
            "channels",
            "a channel for each member: memory, and joins and leaves among a tenth and all of them",
            100_000,
            5000,
            run_channels,
            (),
            (GATEWAY,),
            takes_peers=False,
        ),
    )
}
