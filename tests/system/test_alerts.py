"""Rules, dashboard and scrape configuration, each given to the real Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientError

from tests.harness import http
from tests.harness.address import Addressed
from tests.harness.client import Clients
from tests.harness.container import ROOT, Container
from tests.harness.manifests import Manifest, container, environment, only
from tests.harness.node import Nodes
from tests.harness.ports import HOST, free_port, release_port
from tests.harness.process import Process, output_of, program
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

EVERY = 15
"""Seconds from one sample to the next, as the ServiceMonitor has it."""
FOR_LONG = "100"
"""So many samples."""
HOSTS = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
"""All of them this machine: a node that listens on every address looks like three."""


@pytest.fixture(scope="module")
def dashboard() -> Manifest:
    """What Grafana gets."""
    loaded: Manifest = json.loads(only("production", "ConfigMap", "gateway-dashboard")["data"]["gateway.json"])
    return loaded


def alerts() -> dict[str, Manifest]:
    """Return the alerting rules by name."""
    groups = only("production", "PrometheusRule")["spec"]["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def shown(dashboard: Manifest) -> list[str]:
    """Return the expressions of all panels, with Grafana's own variables replaced as it would."""
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [re.sub(r"\$__\w+", "5m", query).replace("$pod", ".*") for query in queries]


# ---- what is asked for exists


def documented() -> set[str]:
    """Return the figures that the README explains."""
    table = (ROOT / "README.md").read_text().partition("| metric (`gateway_...`)")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    return {f"gateway_{name}" for cell in cells for name in re.findall(r"`(\w+)", cell)}


class TestFigures:
    async def test_every_figure_that_is_asked_for_exists(self, dashboard: Manifest, node: Container) -> None:
        """In rules, panels, the autoscaler, the dashboard's variables and the README, by the name a node gives it."""
        text = (await http.get(node.url("/metrics"))).text
        types = dict(re.findall(r"^# TYPE (\w+) (\w+)", text, re.MULTILINE))
        gauges = {name for name in types if types[name] == "gauge"}
        counters = {name for name in types if types[name] == "counter"}
        counters |= {f"{name}_bucket" for name in types if types[name] == "histogram"}
        asked = [rule["expr"] for rule in alerts().values()] + shown(dashboard)
        names = {name for query in asked for name in re.findall(r"\b(?:gateway|process)_\w+", query)}
        names |= {name for each in dashboard["templating"]["list"] for name in re.findall(r"gateway_\w+", str(each))}
        names |= {"gateway_connections"}
        assert names <= gauges | counters
        assert len(names) > 15
        assert documented() == {name for name in types if name.startswith("gateway_")}
        for query in asked:
            for name in re.findall(r"(?:rate|increase)\((\w+)", query):
                assert name in counters, query

    def test_panels_do_not_overlap(self, dashboard: Manifest) -> None:
        """Each has a place and a number of its own, and says what it shows."""
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken
            assert max(x for x, _ in cells) < 24
            taken |= cells
            assert panel["description"]
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


# ---- alerts


@dataclass(frozen=True, slots=True)
class Case:
    """Figures over time, and what is to be heard of them then: by alert the labels of its subject, and its summary."""

    about: str
    figures: dict[str, str]
    """In promtool's notation: `3+2x4` is 3, 5, 7, 9, 11."""
    at: str = "20m"
    fires: Mapping[str, tuple[dict[str, str], str]] = field(default_factory=dict)
    others: bool = True
    """Whether there are nodes of another job beside, which are well."""


POD = {"namespace": "g", "pod": "a"}
OF_POD = '{namespace="g",pod="a"}'
JOB = {"namespace": "g", "job": "gateway"}
OF_JOB = '{namespace="g",job="gateway",pod="a"}'
TARGET = {"namespace": "g", "job": "a-prefix-gateway", "pod": "a", "instance": "a:8080"}
OF_TARGET = '{namespace="g",job="a-prefix-gateway",pod="a",instance="a:8080"}'
TARGET_OF_STATE = {"namespace": "g", "job": "a-prefix-gateway", "pod": "a"}
FLEET = {"namespace": "g", "job": "a-prefix-gateway"}


def steady(value: float) -> str:
    """A gauge that stays as it is."""
    return f"{value}+0x{FOR_LONG}"


def rising(a_second: float) -> str:
    """A counter that rises evenly."""
    return f"0+{a_second * EVERY}x{FOR_LONG}"


def states(**nodes: str) -> dict[str, str]:
    """What nodes of a job say of their state, one after the other until the end."""
    return {
        f'gateway_state{{namespace="g",job="a-prefix-gateway",pod="{pod}",state="{state}"}}': " ".join(
            f"{int(state == now)}+0x19" for now in said.split()
        )
        for pod, said in nodes.items()
        for state in ("ok", "degraded", "deaf", "draining", "crashed")
    }


def refused(reason: str, values: str) -> dict[str, str]:
    """How often Redis refused something to a node."""
    labels = f'namespace="g",job="a-prefix-gateway",pod="a",reason="{reason}"'
    return {f"gateway_redis_refusals_total{{{labels}}}": values}


def fanout(seconds: str) -> dict[str, str]:
    """Ten messages a second, each of which takes between the bound before and this one."""
    bounds = ["0.1", "0.25", "0.5", "+Inf"]
    return {
        f'gateway_fanout_seconds_bucket{{namespace="g",pod="a",le="{bound}"}}': rising(10 if bound >= seconds else 0)
        for bound in bounds[:-1]
    } | {'gateway_fanout_seconds_bucket{namespace="g",pod="a",le="+Inf"}': rising(10)}


SLOW = f"gateway_slow_consumers_total{OF_POD}"
HELD = f"gateway_connections{OF_POD}"
REFUSED = 'gateway_connections_refused_total{namespace="g",job="gateway",pod="a",status="401"}'
CASES = [
    Case(
        "all is well",
        {
            f"up{OF_TARGET}": steady(1),
            f"gateway_ready{OF_TARGET}": steady(1),
            f"gateway_connections{OF_TARGET}": steady(9000),
            f"gateway_max_connections{OF_TARGET}": steady(20_000),
            f"process_start_time_seconds{OF_TARGET}": steady(1_700_000_000),
            f"process_resident_memory_bytes{OF_TARGET}": steady(500e6),
            f"gateway_memory_limit_bytes{OF_TARGET}": steady(1e9),
            f"process_open_fds{OF_TARGET}": steady(9010),
            f"process_max_fds{OF_TARGET}": steady(65_536),
            f"gateway_publish_queue_messages{OF_TARGET}": steady(3),
            f"gateway_publish_queue_max_messages{OF_TARGET}": steady(10_000),
            f"gateway_messages_published_total{OF_TARGET}": rising(1000),
            **states(a="ok ok ok ok ok"),
            **refused("oom", steady(0)),
        },
    ),
    Case(
        "a node is gone",
        {f"up{OF_TARGET}": "1+0x10 0+0x100", f"gateway_ready{OF_TARGET}": "1+0x10 stale"},
        fires={
            "GatewayNodeDown": (TARGET, "a does not answer"),
            "GatewayNoNodes": (FLEET, "No node of a-prefix-gateway tells Prometheus anything"),
        },
    ),
    Case(
        "one node of two is gone",
        {
            f"up{OF_TARGET}": "1+0x10 0+0x100",
            f"gateway_ready{OF_TARGET}": "1+0x10 stale",
            'gateway_ready{namespace="g",job="a-prefix-gateway",pod="b",instance="b:8080"}': steady(1),
        },
        fires={"GatewayNodeDown": (TARGET, "a does not answer")},
    ),
    Case(
        "there has never been a node",
        {},
        others=False,
        fires={"GatewayNoNodes": ({}, "No node of any job tells Prometheus anything")},
    ),
    Case("a target that is no node is gone", {f"up{OF_TARGET}": "1+0x10 0+0x100"}),
    Case(
        "a part of a node fails",
        states(a="ok ok ok crashed ok"),
        fires={"GatewayNodeCrashed": (TARGET_OF_STATE | {"state": "crashed"}, "A part of a has failed")},
    ),
    Case(
        "a node is started again and again",
        {
            f"process_start_time_seconds{OF_TARGET}": "1+0x9 2+0x9 3+0x9 4+0x9 5+0x60",
            f"gateway_ready{OF_TARGET}": steady(1),
        },
        fires={"GatewayCrashLoop": (TARGET, "a was started 4 times within half an hour")},
    ),
    Case(
        "a node is started three times",
        {f"process_start_time_seconds{OF_TARGET}": "1+0x9 2+0x9 3+0x9 4+0x60", f"gateway_ready{OF_TARGET}": steady(1)},
    ),
    Case(
        "another program is started again and again",
        {f"process_start_time_seconds{OF_TARGET}": "1+0x9 2+0x9 3+0x9 4+0x9 5+0x60"},
    ),
    Case(
        "Redis is away for everybody, one of whom drains",
        states(a="ok ok ok degraded degraded", b="ok ok ok degraded draining") | refused("oom", steady(0)),
        fires={"GatewayRedisAway": (FLEET, "No node of a-prefix-gateway reaches Redis")},
    ),
    Case(
        "Redis is away for one node",
        states(a="ok ok ok degraded degraded", b="ok ok ok ok ok") | refused("oom", steady(0)),
    ),
    Case("all nodes start anew", {f"gateway_state{OF_TARGET}": steady(0)} | refused("oom", steady(0))),
    Case(
        "Redis takes no writes",
        states(a="ok ok ok degraded degraded") | refused("oom", "0+0x60 0+3x60"),
        fires={
            "GatewayRedisRefuses": (FLEET | {"reason": "oom"}, "Redis refuses commands of a-prefix-gateway: oom"),
        },
    ),
    Case(
        "Redis refuses something now and then, and nodes are well again before anybody asks",
        states(a="ok ok ok ok ok") | refused("noperm", "0+0x60 0+2x60"),
        fires={
            "GatewayRedisRefuses": (FLEET | {"reason": "noperm"}, "Redis refuses commands of a-prefix-gateway: noperm"),
        },
    ),
    Case("Redis refused once", states(a="ok ok ok ok ok") | refused("noperm", "0+0x75 2+0x60")),
    Case("slots of a cluster move", states(a="ok ok ok ok ok") | refused("moved", "0+0x60 0+3x60")),
    Case(
        "a node has little memory left",
        {
            f"process_resident_memory_bytes{OF_TARGET}": steady(990e6),
            f"gateway_memory_limit_bytes{OF_TARGET}": steady(2**30),
        },
        fires={"GatewayMemory": (TARGET, "a uses 944.1MiB of memory, more than 90 % of what it may")},
    ),
    Case(
        "a node has few descriptors left",
        {
            f"process_open_fds{OF_TARGET}": steady(950),
            f"process_max_fds{OF_TARGET}": steady(1024),
            f"gateway_ready{OF_TARGET}": steady(1),
        },
        fires={"GatewayDescriptors": (TARGET, "a has 950 descriptors open, more than 90 % of what it may")},
    ),
    Case(
        "another program has few descriptors left",
        {f"process_open_fds{OF_TARGET}": steady(950), f"process_max_fds{OF_TARGET}": steady(1024)},
    ),
    Case(
        "a node was restarted",
        {f"up{OF_TARGET}": "1+0x10 0+0x5 1+0x100", f"gateway_ready{OF_TARGET}": "1+0x10 stale _x4 1+0x100"},
        at="4m",
    ),
    Case(
        "a node is deaf",
        {f"gateway_backplane_deaf_seconds_total{OF_POD}": rising(1)},
        at="4m",
        fires={"GatewayNodeDeaf": (POD, "a hears nothing through Redis")},
    ),
    Case("a node was deaf and dialled anew", {f"gateway_backplane_deaf_seconds_total{OF_POD}": "0+0x20 4+0x100"}),
    Case(
        "a node stays out",
        {f"gateway_ready{OF_POD}": steady(0)},
        at="6m",
        fires={"GatewayNodeNotReady": (POD, "a has taken no clients in for five minutes")},
    ),
    Case("a node drains", {f"gateway_ready{OF_POD}": steady(0)}, at="4m"),
    Case(
        "messages were lost",
        {f"gateway_gaps_total{OF_POD}": "0+0x60 3+0x100"},
        fires={"GatewayGaps": (POD, "a told members of 3 channels that messages may be lost")},
    ),
    Case("messages were lost long ago", {f"gateway_gaps_total{OF_POD}": "0+0x10 3+0x100"}),
    Case(
        "clients read slowly",
        {SLOW: rising(2), HELD: steady(6000)},
        fires={
            "GatewaySlowConsumers": (POD, "a closes more than 1 % of its connections a minute, which read too slowly")
        },
    ),
    Case("few clients read slowly", {SLOW: rising(0.8), HELD: steady(6000)}),
    Case(
        "clients come again and again",
        {f"gateway_connections_opened_total{OF_JOB}": rising(300), f"gateway_connections{OF_JOB}": steady(10_000)},
        fires={"GatewayReconnectStorm": (JOB, "300 new connections a second")},
    ),
    Case(
        "clients return from a node that was drained",
        {f"gateway_connections_opened_total{OF_JOB}": rising(200), f"gateway_connections{OF_JOB}": steady(10_000)},
    ),
    Case(
        "a few clients come for the first time",
        {f"gateway_connections_opened_total{OF_JOB}": rising(9), f"gateway_connections{OF_JOB}": "0+10x100"},
    ),
    Case(
        "nobody's token fits",
        {REFUSED: rising(20), f"gateway_connections_opened_total{OF_JOB}": rising(1)},
        fires={
            "GatewayRefusesHandshakes": (JOB, "20 handshakes a second are refused, more than are accepted"),
        },
    ),
    Case(
        "a scanner tries its luck",
        {
            REFUSED: rising(20),
            f"gateway_connections_opened_total{OF_JOB}": rising(30),
            f"gateway_connections{OF_JOB}": steady(10_000),
        },
    ),
    Case(
        "Redis is slow",
        {f"gateway_backplane_lag_seconds{OF_POD}": steady(0.6)},
        at="3m",
        fires={"GatewayBackplaneLag": (POD, "a hears itself 600ms late through Redis")},
    ),
    Case("Redis was slow", {f"gateway_backplane_lag_seconds{OF_POD}": "0+0x4 0.6+0x4 0+0x100"}, at="3m"),
    Case(
        "fan-out takes long",
        fanout("0.5"),
        fires={"GatewaySlowFanout": (POD, "a takes up to 497.5ms to pass messages on")},
    ),
    Case("fan-out is quick", fanout("0.1")),
    Case("nothing is sent", {key: steady(0) for key in fanout("0.1")}),
    Case(
        "the event loop is blocked",
        {f"gateway_loop_lag_max_seconds{OF_POD}": steady(0.7)},
        at="6m",
        fires={"GatewayLoopLag": (POD, "The event loop of a is up to 700ms late")},
    ),
    Case("the event loop was blocked once", {f"gateway_loop_lag_max_seconds{OF_POD}": "0.7+0x5 0+0x100"}, at="6m"),
    Case(
        "many messages wait for Redis",
        {
            f"gateway_publish_queue_messages{OF_POD}": steady(1500),
            f"gateway_publish_queue_max_messages{OF_POD}": steady(10_000),
            f"gateway_messages_published_total{OF_POD}": rising(2000),
        },
        at="2m",
        fires={"GatewayPublishQueue": (POD, "1.5k messages of a wait for Redis")},
    ),
    Case(
        "few messages wait long for Redis",  # one a second, and each of them ten seconds
        {
            f"gateway_publish_queue_messages{OF_POD}": steady(10),
            f"gateway_publish_queue_max_messages{OF_POD}": steady(10_000),
            f"gateway_messages_published_total{OF_POD}": rising(1),
        },
        at="2m",
        fires={"GatewayPublishQueue": (POD, "10 messages of a wait for Redis")},
    ),
    Case(
        "some messages wait for Redis",
        {
            f"gateway_publish_queue_messages{OF_POD}": steady(900),
            f"gateway_publish_queue_max_messages{OF_POD}": steady(10_000),
            f"gateway_messages_published_total{OF_POD}": rising(200),
        },
    ),
    Case(
        "messages wait for Redis as they always do, and there is no limit",
        {
            f"gateway_publish_queue_messages{OF_POD}": steady(3),
            f"gateway_publish_queue_max_messages{OF_POD}": steady(0),
            f"gateway_messages_published_total{OF_POD}": rising(2000),
        },
    ),
    Case(
        "the handler fails",
        {f"gateway_handler_errors_total{OF_POD}": rising(0.2)},
        fires={"GatewayHandlerErrors": (POD, "0.2 exceptions a second in the handler of a")},
    ),
    Case("the handler failed", {f"gateway_handler_errors_total{OF_POD}": "0+0x40 20+0x100"}),
    Case(
        "somebody deletes keys",
        {f"gateway_presence_repairs_total{OF_POD}": "0+0x20 1+0x20 2+0x20 4+0x20"},
        fires={"GatewayPresenceRepairs": (POD, "Redis differed from what a holds 4 times within an hour")},
    ),
    Case("Redis lost its data", {f"gateway_presence_repairs_total{OF_POD}": "0+0x20 1+0x100"}),
    Case(
        "a node is almost full",
        {HELD: steady(950), f"gateway_max_connections{OF_POD}": steady(1000)},
        at="6m",
        fires={"GatewayAlmostFull": (POD, "a holds 950 connections, more than 90 % of max_connections")},
    ),
    Case("a node without a limit is never full", {HELD: steady(950), f"gateway_max_connections{OF_POD}": steady(0)}),
]


def unit(case: Case) -> dict[str, Any]:
    """Return promtool's test of a case: of every alert whether it fires, and what it says."""
    others = {'gateway_ready{namespace="other",job="other",pod="z"}': steady(1)} if case.others else {}
    series = [{"series": name, "values": values} for name, values in (case.figures | others).items()]
    tests = []
    for name, rule in alerts().items():
        expected = []
        if name in case.fires:
            labels, summary = case.fires[name]
            texts = rule["annotations"] | {"summary": summary}
            expected = [{"exp_labels": labels | rule["labels"], "exp_annotations": texts}]
        tests.append({"alertname": name, "eval_time": case.at, "exp_alerts": expected})
    return {"name": case.about, "interval": f"{EVERY}s", "input_series": series, "alert_rule_test": tests}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rules as Prometheus reads them, which is what the operator makes of the manifest."""
    file = tmp_path_factory.mktemp("prometheus") / "rules.yml"
    file.write_text(yaml.safe_dump(only("production", "PrometheusRule")["spec"]))
    return file


class TestAlerts:
    async def test_prometheus_accepts_the_rules(self, rules: Path) -> None:
        """Expressions, durations and templates, with no remark."""
        said = await output_of([program("promtool"), "check", "rules", "--lint-fatal", str(rules)])
        assert f"{len(alerts())} rules found" in said

    def test_every_alert_is_tried_both_ways(self) -> None:
        """In some case it fires; and in another one, with the figures that it looks at, it does not."""
        assert {name for case in CASES for name in case.fires} == set(alerts())
        for name, rule in alerts().items():
            looked_at = set(re.findall(r"\b(?:gateway|process)_\w+|\bup\b", rule["expr"]))
            silent = [case for case in CASES if not case.fires]
            assert any(looked_at <= {series.partition("{")[0] for series in case.figures} for case in silent), name

    async def test_alerts_fire_when_they_must_and_are_silent_when_they_must_not(self, rules: Path) -> None:
        """In every case all of them, and with the texts that a person reads."""
        told = {"rule_files": [rules.name], "evaluation_interval": "15s", "tests": [unit(case) for case in CASES]}
        file = rules.with_name("cases.yml")
        file.write_text(yaml.safe_dump(told))
        assert "SUCCESS" in await output_of([program("promtool"), "test", "rules", str(file)])

    def test_there_is_an_alert_for_what_loses_or_delays_messages(self) -> None:
        """Each says how bad it is, what is wrong, and what to do."""
        names = {name.removeprefix("Gateway") for name in alerts()}
        assert {"NodeDeaf", "Gaps", "SlowConsumers", "ReconnectStorm", "BackplaneLag"} <= names
        for rule in alerts().values():
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}


# ---- a Prometheus that asks a node


@pytest.fixture
async def node(redis: RedisServer) -> AsyncIterator[Container]:
    """A node of the overlay for development."""
    node = Container(container("dev")["args"], environment("dev", {}) | {"GATEWAY_REDIS_URL": redis.url}, name="dev")
    try:
        await node.start()
        yield node
    finally:
        node.close()


class Prometheus(Addressed):
    """The Prometheus of the compose file, whose nodes have other addresses; it evaluates rules every second if told."""

    def __init__(self, targets: list[str], rules: Mapping[str, Any] | None = None) -> None:
        self.port = free_port()
        text = (ROOT / "k8s/compose/prometheus.yml").read_text()
        for number, target in enumerate(targets, 1):
            assert f"node-{number}:8080" in text
            text = text.replace(f"node-{number}:8080", target)
        # Debian's keeps what it has seen in one place for all, of whatever test.
        options = ["--storage.tsdb.path=seen", "--config.file=prometheus.yml"]
        options.append(f"--web.listen-address={HOST}:{self.port}")
        self.process = Process([program("prometheus"), *options], name="prometheus")
        if rules is not None:
            (self.process.directory / "rules.yml").write_text(yaml.safe_dump(rules))
            eagerly = {"scrape_interval": "1s", "evaluation_interval": "1s"}
            text = yaml.safe_dump(yaml.safe_load(text) | {"global": eagerly, "rule_files": ["rules.yml"]})
        (self.process.directory / "prometheus.yml").write_text(text)

    async def ask(self, query: str) -> list[dict[str, Any]]:
        """Evaluate an expression; return what it gives, a value for each set of labels."""
        answer = await http.get(self.url("/api/v1/query", query=query))
        assert answer.status == 200, f"{query}: {answer.text}"
        found: list[dict[str, Any]] = answer.json["data"]["result"]
        return found

    async def fires(self, name: str, deadline: float = 40.0) -> dict[str, str]:
        """Wait until an alert fires; return its labels."""

        async def firing() -> list[dict[str, Any]]:
            self.process.assert_running()
            return await self.ask(f'ALERTS{{alertname="{name}",alertstate="firing"}}')

        found = await eventually(firing, deadline, what=f"{name} fires")
        return dict(found[0]["metric"])

    def close(self) -> None:
        """Kill it."""
        self.process.close()
        release_port(self.port)


@pytest.fixture
def prometheus(node: Container) -> Iterator[Prometheus]:
    """One that asks the node under three addresses."""
    prometheus = Prometheus([f"{host}:{node.port}" for host in HOSTS])
    prometheus.process.start()
    yield prometheus
    prometheus.close()


class TestPrometheus:
    async def test_every_panel_shows_something(
        self, prometheus: Prometheus, node: Container, dashboard: Manifest, connect: Clients
    ) -> None:
        """Each expression of the dashboard, evaluated over what a real node told."""
        client = await connect(node, "lobby", protocols=["gateway.v1.json"])
        await client.expect("$welcome")
        await client.close()

        async def asked_twice() -> bool:
            prometheus.process.assert_running()
            counts = await prometheus.ask("count_over_time(gateway_closes_total[1m])")
            return [int(each["value"][1]) > 1 for each in counts] == [True] * len(HOSTS)

        await eventually(asked_twice, 40, tolerating=(OSError, ClientError), what="two scrapes of each node")
        assert {each["metric"]["pod"] for each in await prometheus.ask("gateway_connections")} == set(HOSTS)
        assert [query for query in shown(dashboard) if not await prometheus.ask(query)] == []


def hasty() -> Manifest:
    """Return the rules with seconds where they wait for minutes, so that a test need not."""
    spec = deepcopy(only("production", "PrometheusRule")["spec"])
    for rule in (rule for group in spec["groups"] for rule in group["rules"]):
        if "for" in rule:
            rule["for"] = "3s"
    return dict(spec)


@dataclass(frozen=True, slots=True)
class Outage:
    """Something that happens to the Redis of all nodes, and who must be called then."""

    about: str
    begin: Callable[[RedisServer], Awaitable[object]]
    alert: str
    labels: Mapping[str, str]


OUTAGES = [
    Outage("stopped", RedisServer.stop, "GatewayRedisAway", {"job": "gateway"}),
    Outage(
        "out of memory",
        lambda redis: redis.command("CONFIG", "SET", "maxmemory", 1),
        "GatewayRedisRefuses",
        {"job": "gateway", "reason": "oom"},
    ),
]


class TestOutages:
    @pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.about)
    async def test_somebody_is_called_when_redis_fails_everybody(
        self, own_redis: RedisServer, start_nodes: Callable[..., Awaitable[Nodes]], outage: Outage
    ) -> None:
        """By a real Prometheus, of real nodes that have no clients."""
        nodes = await start_nodes(3, own_redis)
        prometheus = Prometheus([f"{HOST}:{node.port}" for node in nodes], hasty())
        prometheus.process.start()
        try:

            async def sees_all() -> bool:
                prometheus.process.assert_running()
                found = await prometheus.ask('gateway_state{state="ok"} == 1')
                return len(found) == len(nodes)

            await eventually(sees_all, 40, tolerating=(OSError, ClientError), what="a scrape of each node")
            await outage.begin(own_redis)
            labels = await prometheus.fires(outage.alert)
            assert outage.labels.items() <= labels.items()
            assert labels["severity"] == "critical"
        finally:
            prometheus.close()
