"""How many nodes and Redis shards a load needs, computed from what things cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from measure.costs import Costs

BUSY = 0.5
"""What one core may be busy: the rest is for bursts, and for the connections of a node that died."""
NODE_BYTES = 1 << 30
REDIS_BYTES = 8 << 30
NETWORK = 125e6 * BUSY
"""Bytes a second of a 1 Gbit/s network."""
FRAME, ENVELOPE = 70, 120
"""Bytes around a message: on the way to a client (WebSocket, TCP, IP, Ethernet), and on the way to a node."""
MOST_NODES, MOST_SHARDS = 5000, 500
THEN = {
    "node CPU": "more nodes",
    "node CPU for arrivals": "channels with fewer messages: several in one, or keep-latest before publishing",
    "node memory": "more nodes, or larger ones",
    "node network": "more nodes, `compression`",
    "Redis CPU": "more shards: `redis+cluster://`",
    "Redis memory": "more shards, or a larger Redis",
    "Redis network": "more shards, smaller messages",
}


@dataclass(frozen=True)
class Load:
    """What a cluster is to do. `members` get each message; connections stay for `lifetime` seconds."""

    connections: int
    members: float
    messages: float
    bytes: int
    by_clients: bool = True
    lifetime: float = 900.0

    @property
    def deliveries(self) -> float:
        return self.messages * self.members


@dataclass(frozen=True)
class Size:
    """What it takes. `loads` are the parts of each allowance that are used, the largest first."""

    nodes: int
    shards: int
    loads: dict[str, float]

    @property
    def first(self) -> str:
        """Name what breaks first when the load grows. That a node has many connections breaks nothing by itself."""
        return next(name for name in self.loads if name in THEN)


def size(load: Load, costs: Costs) -> Size | None:
    """Return the smallest cluster that carries a load with one node to spare; None when none does."""
    nodes = next((n for n in range(1, MOST_NODES) if max(node_loads(load, costs, n).values()) <= 1), None)
    if nodes is None:
        return None
    shards = next((s for s in range(1, MOST_SHARDS) if max(redis_loads(load, costs, nodes, s).values()) <= 1), None)
    if shards is None:
        return None
    loads = node_loads(load, costs, nodes) | redis_loads(load, costs, nodes, shards)
    return Size(nodes + 1, shards, dict(sorted(loads.items(), key=lambda item: -item[1])))


def receivers(load: Load, nodes: int) -> float:
    """Return on how many nodes the members of a channel are, who connect to any."""
    return nodes * (1 - float((1 - 1 / nodes) ** load.members))


def node_loads(load: Load, costs: Costs, nodes: int) -> dict[str, float]:
    """Return what each node would use of its allowances."""
    arrivals = load.messages * receivers(load, nodes) / nodes * costs.arrival_us / 1e6
    sent = load.messages * costs.message_us * load.by_clients + load.deliveries * costs.delivery_us
    coming = load.connections / load.lifetime * costs.handshake_us
    each = load.connections / nodes
    return {
        "connections of a node": each / costs.node_connections,
        "node CPU": (arrivals + (sent + coming) / nodes / 1e6) / BUSY,
        "node CPU for arrivals": arrivals / BUSY,
        "node memory": each * costs.connection_bytes / NODE_BYTES,
        "node network": load.deliveries * (load.bytes + FRAME) / nodes / NETWORK,
    }


def redis_loads(load: Load, costs: Costs, nodes: int, shards: int) -> dict[str, float]:
    """Return what each shard would use of its allowances."""
    copies = receivers(load, nodes)
    published = load.messages * (costs.redis_publish_us + copies * costs.redis_receiver_us)
    visits = load.connections / load.lifetime * costs.redis_visit_us
    return {
        "Redis CPU": (published + visits) / shards / 1e6 / BUSY,
        "Redis memory": load.connections * costs.redis_connection_bytes / shards / REDIS_BYTES,
        "Redis network": load.messages * copies * (load.bytes + ENVELOPE) / shards / NETWORK,
    }


def standard() -> Iterator[tuple[str, Load]]:
    """Yield the loads of docs/sizing.md."""
    for count in (10_000, 100_000, 1_000_000):
        yield "chat", Load(count, 10, count / 30, 200)
        yield "rooms", Load(count, 1000, count / 1000, 200)
        yield "ticker", Load(count, count, 10, 100, by_clients=False)
        yield "notifications", Load(count, 1, count / 60, 500, by_clients=False)
