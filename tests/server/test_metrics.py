"""`/metrics`, read as Prometheus reads it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.operations.memory_limit import memory_limit
from tests.harness.client import Clients
from tests.harness.node import Node
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

GAUGES = {
    *("ready", "connections", "channels", "users", "outbox_bytes", "loop_lag_seconds", "loop_lag_max_seconds"),
    *("backplane_lag_seconds", "publish_queue_messages", "publish_queue_bytes", "memory_blocks", "state"),
    *("transports", "transports_max"),
    *("max_connections", "publish_queue_max_messages", "memory_limit_bytes"),
    *("process_virtual_memory_bytes", "process_resident_memory_bytes", "process_start_time_seconds"),
    *("process_open_fds", "process_max_fds"),
}
COUNTERS = {
    *("connections_opened", "connections_closed", "connections_refused", "closes", "slow_consumers", "pongs_missed"),
    *("messages_received", "messages_refused", "messages_published", "messages_delivered", "messages_dropped"),
    *("messages_recovered", "received_bytes", "delivered_bytes", "injections_rejected", "gaps", "handler_errors"),
    *("loop_stalls", "presence_repairs", "backplane_reconnects", "backplane_losses", "backplane_deaf_seconds"),
    *("log_lines_dropped", "history_trimmed", "histories_dropped", "redis_refusals", "process_cpu_seconds"),
}
HISTOGRAMS = {"fanout_seconds", "handler_seconds"}


async def metrics_of(node: Node) -> dict[str, Metric]:
    """Return what a node tells, by name without the prefix."""
    answer = await node.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {family.name.removeprefix("gateway_"): family for family in text_string_to_metric_families(answer.text)}


def value(metric: Metric, suffix: str = "", **labels: str) -> float:
    """Return a sample's value."""
    name = metric.name + suffix
    return next(sample.value for sample in metric.samples if sample.name == name and sample.labels == labels)


async def test_what_a_node_tells(
    redis: RedisServer, start_node: Callable[..., Awaitable[Node]], connect: Clients
) -> None:
    """Each figure by its name and type, described, and what clients did is in them."""
    node = await start_node(redis, handler="tests.handlers.named:Named")
    before = await metrics_of(node)
    assert {name: metric.type for name, metric in before.items()} == {
        **dict.fromkeys(GAUGES, "gauge"),
        **dict.fromkeys(COUNTERS, "counter"),
        **dict.fromkeys(HISTOGRAMS, "histogram"),
    }
    assert all(metric.documentation for metric in before.values())

    clients = [await connect(f"{node.ws_url()}?user={user}", "lobby") for user in ("ada", "ada", "bob")]
    for client in clients:
        await client.send("$nonsense")
        await client.expect("$error")
    await redis.publish("gateway:channel:lobby", "hello", "x" * 1000)
    for client in clients:
        await client.expect("hello")
    await clients[0].close()
    await clients[1].close(code=3999)
    await redis.command("PUBLISH", "gateway:channel:lobby", "{nonsense")

    async def counted() -> dict[str, Metric]:
        now = await metrics_of(node)
        assert value(now["injections_rejected"], "_total") == 1
        assert value(now["connections_closed"], "_total") == 2
        return now

    now = await eventually(counted)
    assert value(now["ready"]) == value(now["connections"]) == value(now["channels"]) == value(now["users"]) == 1
    assert value(now["closes"], "_total", code="1000") == value(now["closes"], "_total", code="other") == 1
    assert value(now["received_bytes"], "_total") == 3 * len('{"cmd": "$nonsense", "param": null}')
    assert value(now["delivered_bytes"], "_total") > 3000
    assert value(now["handler_seconds"], "_count") == 3
    assert value(now["handler_seconds"], "_bucket", le="+Inf") == 3
    assert value(now["fanout_seconds"], "_count") >= 1


async def test_no_label_names_a_channel_or_user(
    redis: RedisServer, start_node: Callable[..., Awaitable[Node]], connect: Clients
) -> None:
    """The only labels are a close code, the status or reason of a refusal, a state, and the bound of a class."""
    node = await start_node(redis, handler="tests.handlers.named:Named")
    client = await connect(f"{node.ws_url()}?user=ada", "lobby")
    await client.close()
    await eventually(lambda: _has_closed(node))
    labels = {name for metric in (await metrics_of(node)).values() for each in metric.samples for name in each.labels}
    assert labels == {"code", "status", "reason", "state", "le"}


async def _has_closed(node: Node) -> bool:
    return bool((await metrics_of(node))["closes"].samples)


async def test_limits_stand_beside_what_they_limit(start_node: Callable[..., Awaitable[Node]]) -> None:
    """As they are set, and as the kernel has them."""
    now = await metrics_of(await start_node(max_connections=77, publish_queue=88))
    assert value(now["max_connections"]) == 77
    assert value(now["publish_queue_max_messages"]) == 88
    assert 0 < value(now["process_open_fds"]) < value(now["process_max_fds"])
    assert 10 << 20 < value(now["process_resident_memory_bytes"]) < value(now["memory_limit_bytes"])


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/pod/it", {"pod/it/memory.max": "max", "pod/memory.max": "5000"}, 5000),
        ("0::/pod/it", {"pod/it/memory.max": "4000", "pod/memory.max": "5000"}, 4000),
        ("0::/", {"memory.max": "3000"}, 3000),
        ("0::/../it", {"memory.max": "3000"}, 3000),
        ("5:cpu:/it\n3:memory:/it\n0::/", {"memory/memory.limit_in_bytes": "2000"}, 2000),
        ("3:memory:/it", {"memory/it/memory.limit_in_bytes": "1000"}, 1000),
        ("3:memory:/it", {"memory/it/memory.limit_in_bytes": str(2**63 - 4096)}, None),
        ("0::/it", {}, None),
        ("nonsense", {}, None),
        (None, {}, None),
    ],
)
def test_the_least_limit_of_memory_counts(
    tmp_path: Path, groups: str | None, limits: dict[str, str], expected: int | None
) -> None:
    """Of the process's groups in either version of them; where none has any, the machine's."""
    for name, limit in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(limit + "\n")
    if groups is not None:
        (tmp_path / "cgroup").write_text(groups + "\n")
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory_limit(tmp_path, tmp_path / "cgroup") == (expected or machine)
