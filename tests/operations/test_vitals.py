"""Vital figures: what a node samples, how they travel, and how those of several nodes are put together."""

from __future__ import annotations

import asyncio
import json
from itertools import accumulate

import orjson
from hypothesis import given
from hypothesis import strategies as st

from gateway.backplane.counters import BackplaneCounters
from gateway.backplane.echo import LATE, TICK
from gateway.config import Settings
from gateway.connections.counters import BOUNDS, Counters
from gateway.connections.hub import Hub
from gateway.operations.rates import KEPT_ON, MOST, WINDOW, Rates
from gateway.operations.vitals import KEPT, PERIOD, SERIES, Vitals, of_cluster, quantile
from gateway.presence.contract import Vital, as_fields, of_record
from gateway.redis.records import Record, Rejections
from gateway.server.running import running_node
from tests.harness import properties  # noqa: F401
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually


def _vitals(counters: Counters | None = None) -> Vitals:
    return Vitals(Hub(), counters or Counters(), BackplaneCounters, lambda: ("ok", []))


def test_a_sample_tells_rates_and_what_the_process_uses() -> None:
    """Counters become rates; memory and processor time come from the kernel."""
    counters = Counters()
    vitals = _vitals(counters)
    counters.received, counters.delivered = 1000, 50_000
    vital = vitals.sample(1)
    assert vital.received > 0
    assert vital.delivered > 10 * vital.received
    assert vital.memory > 1 << 20
    assert vitals.sample(2).received == 0


def test_a_node_keeps_a_quarter_of_an_hour() -> None:
    """The ring is bounded, and holds what the charts show."""
    vitals = _vitals()
    for number in range(KEPT + 50):
        vitals.sample(number)
    assert len(vitals.since(0)) == KEPT == 15 * 60 / PERIOD


def test_current_figures_have_the_present_state() -> None:
    """What the lease tells is not older than the last change of state."""
    state: tuple[str, list[str]] = ("ok", [])
    vitals = Vitals(Hub(), Counters(), BackplaneCounters, lambda: state)
    vitals.sample(1)
    state = ("degraded", ["Redis is away"])
    assert vitals.current().state == "degraded"
    assert vitals.current().trouble == ("Redis is away",)


async def test_a_sample_tells_what_redis_does_to_a_node(own_redis: RedisServer) -> None:
    """What waits, and for how long nothing has come back."""
    settings = Settings(port=0, redis_url=own_redis.url, node_id="own")
    async with running_node(settings) as node:
        vitals = node.service.node.vitals
        own_redis.freeze()
        writes = [asyncio.create_task(node.service.write_all("hello", number)) for number in range(3)]
        await eventually(lambda: vitals.sample(1).waiting == 3)
        await eventually(lambda: vitals.sample(2).lag > LATE + TICK)
        own_redis.thaw()
        await asyncio.gather(*writes)
        await eventually(lambda: vitals.sample(3).lag < LATE)
        assert vitals.sample(4).waiting == 0


def test_figures_travel_as_text() -> None:
    """What is written into the node's hash is read back the same."""
    vital = Vital(5, "deaf", ("one", "two"), 3, 4, 1.5, 1 << 30, 0.25, 0.5, 7, 1.0, 2.0, 3.0, 0.001, 0.01)
    flat = as_fields(vital)
    assert of_record(record(dict(zip(flat[::2], flat[1::2], strict=True)))) == vital


@given(st.dictionaries(st.sampled_from([*Vital._fields, "other"]), st.text(max_size=20)))
def test_any_hash_can_be_read(fields: dict[str, str]) -> None:
    """A node of another version, or a person, may have written it."""
    vital = of_record(record(fields))
    assert [type(value) for value in vital] == [type(value) for value in Vital()]
    assert json.loads(orjson.dumps(vital._asdict()))


def record(fields: dict[str, str]) -> Record:
    written = {name: value.encode() for name, value in fields.items()}
    return Record("gateway:node:x", written, Rejections(Counters()))


@given(st.lists(st.integers(0, 1000), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1), st.floats(0, 1))
def test_a_quantile_lies_in_its_class(classes: list[int], q: float) -> None:
    """It is within the bounds of the class in which that part of all lies."""
    found = quantile(classes, q)
    if not any(classes):
        assert found == 0
        return
    below = accumulate(classes)
    index = next(
        i for i, (count, seen) in enumerate(zip(classes, below, strict=True)) if count and seen >= q * sum(classes)
    )
    upper = (*BOUNDS, BOUNDS[-1])[index]
    lower = 0 if index == 0 else BOUNDS[index - 1]
    assert lower - 1e-6 <= found <= upper + 1e-6


def _sample(number: int, **values: float) -> tuple[int, tuple[float, ...]]:
    return number, tuple(values.get(name, 0.0) for name in SERIES)


def test_samples_of_nodes_are_added_up_and_of_latencies_the_worst_counts() -> None:
    """Connections and rates are sums; a slow node is not hidden by a fast one."""
    a = [_sample(10, connections=5, p99=0.1), _sample(11, connections=6)]
    b = [_sample(10, connections=7, p99=0.3), _sample(11, connections=8)]
    first, second = of_cluster([a, b])
    assert (first["at"], first["connections"], first["p99"]) == (30, 12, 0.3)
    assert second["connections"] == 14


def test_a_time_of_which_not_all_have_told_is_left_out() -> None:
    """The newest sample of one node alone would look like a dip; a node that is long silent is not waited for."""
    a = [_sample(n, connections=5) for n in range(10, 21)]
    b = [_sample(n, connections=5) for n in range(10, 20)]
    assert of_cluster([a, b])[-1] == {**dict.fromkeys(SERIES, 0.0), "at": 57, "connections": 10}
    assert of_cluster([a, b[:3]])[-1]["at"] == 60
    assert of_cluster([a, []])[-1]["at"] == 60
    assert of_cluster([[], []]) == []
    assert of_cluster([a[-1:], []], since=19) == [], "the other node has not told of 20 yet"
    assert of_cluster([a[-1:], b[:0]], since=10)[-1]["at"] == 60, "it is long silent"


class TestRates:
    def test_it_counts_only_while_it_is_asked(self) -> None:
        """The first question turns it on; some time after the last one it turns itself off."""
        rates = Rates()
        assert rates.of(["a"], 0) == {}
        for i in range(20):
            rates.count("a", i / 10)
        assert rates.of(["a", "b"], WINDOW) == {"a": 10.0}
        assert rates.is_on
        rates.count("a", WINDOW + KEPT_ON + 1)
        assert not rates.is_on

    def test_it_remembers_a_bounded_number_of_channels(self) -> None:
        """However many channels there are."""
        rates = Rates()
        rates.of([], 0)
        for i in range(MOST + 10):
            rates.count(str(i), 0.5)
        found = rates.of(map(str, range(MOST + 10)), WINDOW)
        assert len(found) == MOST


async def test_every_node_tells_its_figures_by_its_lease(start_nodes, redis, connect) -> None:
    """`P:node:ID` has them, readable by hand."""
    nodes = await start_nodes(2, redis)
    await connect(nodes[0], "lobby")

    async def told() -> bool:
        fields = (await redis.cli("HGETALL", f"gateway:node:{nodes[0].id}")).split("\n")
        found = dict(zip(fields[::2], fields[1::2], strict=False))
        return found["connections"] == "1" and found["state"] == "ok" and int(found["memory"]) > 0

    await eventually(told)
