"""Rules, dashboard and scrape configuration, each given to the real Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
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
        names = {name for query in asked for name in re.findall(r"\bgateway_\w+", query)}
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
    figures: Mapping[str, str]
    """In promtool's notation: `3+2x4` is 3, 5, 7, 9, 11."""
    at: str = "20m"
    fires: Mapping[str, tuple[dict[str, str], str]] = field(default_factory=dict)


POD = {"namespace": "g", "pod": "a"}
OF_POD = '{namespace="g",pod="a"}'
JOB = {"namespace": "g", "job": "gateway"}
OF_JOB = '{namespace="g",job="gateway",pod="a"}'


def steady(value: float) -> str:
    """A gauge that stays as it is."""
    return f"{value}+0x{FOR_LONG}"


def rising(a_second: float) -> str:
    """A counter that rises evenly."""
    return f"0+{a_second * EVERY}x{FOR_LONG}"


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
    Case("all is well", {f"up{OF_JOB}": steady(1), f"gateway_ready{OF_POD}": steady(1), HELD: steady(9000)}),
    Case(
        "a node is gone",
        {f"up{OF_JOB}": "1+0x10 0+0x100"},
        fires={"GatewayNodeDown": (JOB | POD, "a does not answer")},
    ),
    Case("a node was restarted", {f"up{OF_JOB}": "1+0x10 0+0x5 1+0x100"}, at="4m"),
    Case("another job is gone", {'up{job="other",pod="b"}': steady(0)}),
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
        "messages wait for Redis",
        {f"gateway_publish_queue_messages{OF_POD}": steady(1500)},
        at="2m",
        fires={"GatewayPublishQueue": (POD, "1.5k messages of a wait for Redis")},
    ),
    Case("some messages wait for Redis", {f"gateway_publish_queue_messages{OF_POD}": steady(900)}),
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
        {HELD: steady(18_500)},
        at="6m",
        fires={"GatewayAlmostFull": (POD, "a holds 18.5k connections")},
    ),
]


def unit(case: Case) -> dict[str, Any]:
    """Return promtool's test of a case: of every alert whether it fires, and what it says."""
    series = [{"series": name, "values": values} for name, values in case.figures.items()]
    tests = []
    for name, rule in alerts().items():
        expected = []
        if name in case.fires:
            labels, summary = case.fires[name]
            texts = {"summary": summary, "description": rule["annotations"]["description"]}
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
        fired = [name for case in CASES for name in case.fires]
        assert sorted(fired) == sorted(alerts())
        for name, rule in alerts().items():
            looked_at = set(re.findall(r"\bgateway_\w+|\bup\b", rule["expr"]))
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
            assert set(rule["annotations"]) == {"summary", "description"}


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
    """The Prometheus of the compose file, whose nodes have other addresses."""

    def __init__(self, targets: list[str]) -> None:
        self.port = free_port()
        text = (ROOT / "k8s/compose/prometheus.yml").read_text()
        for number, target in enumerate(targets, 1):
            assert f"node-{number}:8080" in text
            text = text.replace(f"node-{number}:8080", target)
        options = ["--config.file=prometheus.yml", f"--web.listen-address={HOST}:{self.port}"]
        self.process = Process([program("prometheus"), *options], name="prometheus")
        (self.process.directory / "prometheus.yml").write_text(text)

    async def ask(self, query: str) -> list[dict[str, Any]]:
        """Evaluate an expression; return what it gives, a value for each set of labels."""
        answer = await http.get(self.url("/api/v1/query", query=query))
        assert answer.status == 200, f"{query}: {answer.text}"
        found: list[dict[str, Any]] = answer.json["data"]["result"]
        return found

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
