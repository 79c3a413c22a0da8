"""What a load needs: computed from measured costs, and docs/sizing.md says the same."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.harness.process import output_of

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "sizes.py"
sys.path.append(str(ROOT / "scripts"))

from measure.capacity import THEN, Load, node_loads, receivers, redis_loads, size  # noqa: E402
from measure.costs import FILE, Costs, learn  # noqa: E402

COSTS = Costs(
    delivery_us=10,
    message_us=100,
    arrival_us=20,
    handshake_us=100,
    connection_bytes=2500,
    redis_publish_us=1,
    redis_receiver_us=1,
    redis_visit_us=100,
    redis_connection_bytes=1500,
    node_connections=20_000,
)
CHAT = Load(100_000, 10, 1000, 200)


async def test_the_readme_has_the_table_that_the_script_prints() -> None:
    """Whoever measures anew puts it there anew."""
    table = (await output_of([sys.executable, str(SCRIPT)])).strip()
    assert len(table.splitlines()) == 14
    assert table in (ROOT / "docs" / "sizing.md").read_text()


def test_every_cost_says_when_where_and_by_what_it_was_measured() -> None:
    """So that it can be measured again."""
    for name, cost in json.loads(FILE.read_text())["costs"].items():
        assert cost["value"] > 0, name
        assert all(cost[key] for key in ("date", "machine", "command")), name
        assert (ROOT / cost["command"].split()[0]).exists(), name
    assert Costs.read().node_connections > 0


def test_members_of_a_small_channel_are_on_few_nodes() -> None:
    """And those of a large one on all of them."""
    assert receivers(CHAT, 1) == 1
    assert receivers(replace(CHAT, members=1), 50) == pytest.approx(1)
    assert 9 < receivers(CHAT, 50) < 10
    assert receivers(replace(CHAT, members=1e6), 50) == pytest.approx(50)


def test_a_load_is_carried_with_a_node_to_spare() -> None:
    """Nothing uses more than it may, and with one node or shard less something would."""
    found = size(CHAT, COSTS)
    assert found is not None
    assert max(node_loads(CHAT, COSTS, found.nodes - 1).values()) <= 1
    assert max(node_loads(CHAT, COSTS, found.nodes - 2).values()) > 1
    assert max(redis_loads(CHAT, COSTS, found.nodes - 1, found.shards).values()) <= 1


@pytest.mark.parametrize(
    ("load", "first"),
    [
        (Load(1_000_000, 1, 10, 200, by_clients=False), "Redis CPU"),
        (replace(CHAT, lifetime=86_400, messages=1), "node memory"),
        (Load(10_000, 1000, 300, 200), "node CPU"),
        (Load(10_000, 10_000, 100, 65_000, by_clients=False), "node network"),
        (Load(20_000, 20_000, 40_000, 10, by_clients=False), ""),
    ],
)
def test_what_breaks_first_depends_on_the_load(load: Load, first: str) -> None:
    """Many connections, many deliveries, large messages; or more messages to every node than any node can take."""
    found = size(load, COSTS)
    assert (found.first if found else "") == first
    assert not first or first in THEN


def test_a_busy_or_full_redis_is_split() -> None:
    """By the messages it passes on, or by what it keeps."""
    busy, full = replace(CHAT, messages=100_000, bytes=20), replace(CHAT, connections=10_000_000, lifetime=86_400)
    for load, what in ((busy, "Redis CPU"), (full, "Redis memory")):
        found = size(load, COSTS)
        assert found is not None
        assert found.shards > 1
        assert redis_loads(load, COSTS, found.nodes - 1, found.shards - 1)[what] > 1


def test_costs_are_learned_from_what_the_scripts_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the lines of the benchmark and the report of the simulation."""
    monkeypatch.setattr("measure.costs.FILE", tmp_path / "costs.json")
    bench, report = tmp_path / "bench.jsonl", tmp_path / "million.json"
    workloads = {
        "broadcast": {"deliveries_per_cpu_s": 100_000},
        "rooms": {"deliveries_per_cpu_s": 50_000},
        "idle": {"handshakes_per_cpu_s": 5000, "bytes_per_connection": 2400},
    }
    runs = [
        {"workload": name, "server": "gateway", "failed": "", "figures": figures} for name, figures in workloads.items()
    ]
    bench.write_text("\n".join(json.dumps(run) for run in [*runs, runs[0] | {"failed": "lost", "figures": {}}]))
    steps = {
        "published to nobody": {"count": 1000, "redis_cpu": 0.001, "nodes_cpu": 0.01},
        "published to a node": {"count": 1000, "redis_cpu": 0.002, "nodes_cpu": 0.03},
        "published to all nodes": {"count": 10, "redis_cpu": 0.00051, "nodes_cpu": 1},
        "come": {"count": 10, "redis_cpu": 0.001},
        "gone": {"count": 10, "redis_cpu": 0.0005},
    }
    figures = {
        "redis_bytes_per_connection": 1000,
        "redis_bytes_per_subscription": 200,
        "redis_subscriptions_per_connection": 2,
    }
    known = {"date": "d", "machine": "m", "command": "c", "python": "3", "redis": "7", "connections": 1000, "nodes": 50}
    report.write_text(json.dumps({**known, "steps": steps, "figures": figures}))
    learn(bench, report, machine="here", date="today")
    costs = Costs.read(tmp_path / "costs.json")
    assert (costs.delivery_us, costs.message_us, costs.handshake_us, costs.connection_bytes) == (10, 100, 200, 2400)
    assert (costs.arrival_us, costs.redis_publish_us, costs.redis_receiver_us) == (20, 1, 1)
    assert (costs.redis_visit_us, costs.redis_connection_bytes, costs.node_connections) == (150, 1400, 20)


@pytest.mark.parametrize("wrong", [["--connections", "0"], ["--messages", "many"], ["--conn", "5"]])
async def test_a_wrong_option_is_one_clear_line(wrong: list[str]) -> None:
    """And nothing is computed."""
    with pytest.raises(AssertionError, match=r"expected a number above 0|unrecognized arguments"):
        await output_of([sys.executable, str(SCRIPT), *wrong])
