"""The image and the compose file, without an engine: read, linted, and what they start started for real."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import WSServerHandshakeError

from gateway.config import Settings
from gateway.version import __version__
from tests.harness import http
from tests.harness.address import Addressed
from tests.harness.client import Client, Clients
from tests.harness.container import ROOT, Container, Dockerfile, audited, writes
from tests.harness.manifests import container
from tests.harness.ports import HOST, free_port, release_port
from tests.harness.process import Process, output_of, program
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

V1 = ["gateway.v1.json"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
NODES = [name for name in SERVICES if name.startswith("node-")]


def seconds(duration: str) -> float:
    """Read a duration as compose writes it."""
    return float(duration.removesuffix("s"))


# ---- the image


@pytest.fixture(scope="module")
def dockerfile() -> Dockerfile:
    """The instructions of the image."""
    return Dockerfile()


class TestImage:
    async def test_the_linter_has_nothing_to_say(self) -> None:
        """Hadolint, with no rule switched off."""
        linter = Path(sys.executable).with_name("hadolint")
        assert (
            await output_of([str(linter), "--no-fail", "--failure-threshold", "ignore", str(ROOT / "Dockerfile")]) == ""
        )

    def test_what_runs_is_slim_and_has_no_tools(self, dockerfile: Dockerfile) -> None:
        """The last stage is a slim Python of a fixed version, with neither a compiler nor pip."""
        versions = [rest.partition("=")[2] for word, rest in dockerfile.instructions if word == "ARG"]
        assert versions == ["3.13-slim-bookworm"]
        stages = [rest for word, rest in dockerfile.instructions if word == "FROM"]
        assert stages == ["python:${PYTHON} AS build", "python:${PYTHON}"]
        assert dockerfile.all("RUN") == ["pip uninstall --yes --root-user-action=ignore pip"]
        assert dockerfile.all("COPY") == ["--from=build /opt/gateway /opt/gateway"]
        assert any("venv --without-pip /opt/gateway" in rest for _, rest in dockerfile.instructions)

    def test_it_is_nobody_s_root(self, dockerfile: Dockerfile) -> None:
        """The user is a number other than 0, and nothing is copied or run after it was changed."""
        assert dockerfile.all("USER") == ["10001:10001"]
        words = [word for word, _ in dockerfile.final]
        assert not {"RUN", "COPY", "ADD"} & set(words[words.index("USER") :])

    def test_its_command_is_the_package_s(self, dockerfile: Dockerfile) -> None:
        """`gateway serve`, without a shell between it and its signals."""
        scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
        assert [json.loads(rest) for rest in dockerfile.all("ENTRYPOINT")] == [[*scripts]]
        assert [json.loads(rest) for rest in dockerfile.all("CMD")] == [["serve"]]
        assert dockerfile.all("STOPSIGNAL") == ["SIGTERM"]
        assert dockerfile.all("EXPOSE") == [dockerfile.environment["GATEWAY_PORT"]]

    def test_every_package_has_its_exact_version(self) -> None:
        """What the image installs is what the tests ran with."""
        wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        names = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower().replace("_", "-") for line in wanted}
        pinned = (ROOT / "requirements-ci.txt").read_text().splitlines()
        exact = {line.partition("==")[0].lower().replace("_", "-") for line in pinned if "==" in line}
        assert names <= exact

    async def test_the_build_gets_all_it_needs_and_no_more(self, tmp_path: Path) -> None:
        """From what .dockerignore lets through, a wheel is built that has templates, static files and types."""
        lines = (ROOT / ".dockerignore").read_text().splitlines()
        assert "*" in lines
        sent = [line[1:] for line in lines if line.startswith("!")]
        copied = {path for word, rest in Dockerfile().instructions if word == "COPY" for path in rest.split()[:-1]}
        assert {path for path in copied if not path.startswith(("-", "/"))} == set(sent)
        left_out = shutil.ignore_patterns("__pycache__", "node_modules", "src", "testing.*js", "react.*js")
        for path in sent:
            source = ROOT / path
            if source.is_dir():
                shutil.copytree(source, tmp_path / path, ignore=left_out)
            else:
                shutil.copy(source, tmp_path)
        build = "from hatchling.build import build_wheel; print(build_wheel('.'))"
        command = [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); {build}"]
        wheel = tmp_path / (await output_of(command)).splitlines()[-1]
        files = zipfile.ZipFile(wheel).namelist()
        assert {
            "gateway/py.typed",
            "gateway/client/dist/gateway.js",
            "gateway/server/demo/templates/example.html",
        } <= set(files)
        assert not [name for name in files if "node_modules" in name or "/src/" in name]

    async def test_the_health_check_tells_a_node_that_answers_from_one_that_does_not(
        self, dockerfile: Dockerfile
    ) -> None:
        """Run as Docker runs it: 0 or not 0."""
        _, _, command = dockerfile.all("HEALTHCHECK")[0].partition("CMD ")
        python, *arguments = json.loads(command)
        assert python == "python"
        node = Container(["serve"], {})
        environment = {"GATEWAY_PORT": str(node.port), "http_proxy": "http://127.0.0.1:9"}
        check = Process([sys.executable, *arguments], name="healthcheck", environment=environment)
        try:
            check.start()
            assert await check.wait() != 0
            await node.start()
            check.start()
            assert await check.wait() == 0, check.output
        finally:
            check.close()
            node.close()

    async def test_a_node_changes_no_file(
        self, redis: RedisServer, dockerfile: Dockerfile, tmp_path: Path, connect: Clients
    ) -> None:
        """So the root file system may be read-only: from the start over a chat to the end."""
        environment = dockerfile.environment
        del environment["PATH"]
        node = Container(["serve"], environment | {"GATEWAY_REDIS_URL": redis.url} | audited(tmp_path))
        try:
            await node.start()
            client = await connect(node, "written", protocols=V1)
            await client.expect("$welcome")
            await client.send("chat", {"text": "hello"})
            await client.expect("chat")
            for path in ("/example", "/static/gateway.js", "/metrics", "/api/openapi.json", "/readyz"):
                assert (await http.get(node.url(path))).status == 200
            await client.close()
            await node.end(30)
            assert list(writes(node.process.output)) == []
        finally:
            node.close()

    async def test_the_auditor_sees_writes(self, tmp_path: Path) -> None:
        """Else the test before would prove nothing."""
        program = "import tempfile; tempfile.TemporaryFile().close()"
        process = Process([sys.executable, "-c", program], name="writer", environment=audited(tmp_path))
        try:
            process.start()
            await process.wait()
            assert list(writes(process.output))
        finally:
            process.close()


# ---- compose


class TestCompose:
    def test_nodes_differ_in_name_alone(self) -> None:
        """Three of them, each with the image's own command."""
        assert NODES == ["node-1", "node-2", "node-3"]
        assert [SERVICES[name]["hostname"] for name in NODES] == NODES
        first, *others = ({**SERVICES[name], "hostname": ""} for name in NODES)
        assert all(other == first for other in others)
        assert "command" not in SERVICES["node-1"]
        assert SERVICES["node-1"]["image"] == f"gateway:{__version__}"

    def test_nodes_have_no_more_rights_than_they_need(self) -> None:
        """A file system that is read-only, no capabilities, and time to drain."""
        node = SERVICES["node-1"]
        assert node["read_only"] is True
        assert node["cap_drop"] == ["ALL"]
        assert node["security_opt"] == ["no-new-privileges:true"]
        assert seconds(node["stop_grace_period"]) >= float(node["environment"]["GATEWAY_DRAIN_SECONDS"]) + 5

    def test_every_variable_is_a_setting(self) -> None:
        """A misspelled one would be ignored."""
        for name in SERVICES["node-1"]["environment"]:
            assert name.removeprefix("GATEWAY_").lower() in Settings.model_fields

    def test_images_have_versions_and_ports_are_this_machine_s(self) -> None:
        """Nothing is `latest`, and nothing is published to the network."""
        for name, service in SERVICES.items():
            tag = service["image"].partition(":")[2]
            assert re.match(r"v?\d+\.\d+", tag), name
            assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name

    def test_what_is_mounted_is_there_and_read_only(self) -> None:
        """Docker would make a directory of a file that is missing."""
        for service in SERVICES.values():
            for volume in service.get("volumes", ()):
                source, _, mode = volume.split(":")
                assert (ROOT / source).is_file(), source
                assert mode == "ro"

    def test_monitoring_is_a_profile(self) -> None:
        """Prometheus asks every node, Grafana asks Prometheus."""
        assert {name for name in SERVICES if "profiles" in SERVICES[name]} == {"prometheus", "grafana"}
        folder = ROOT / "k8s/compose"
        (job,) = yaml.safe_load((folder / "prometheus.yml").read_text())["scrape_configs"]
        assert job["static_configs"] == [{"targets": [f"{name}:8080" for name in NODES]}]
        (source,) = yaml.safe_load((folder / "grafana-datasource.yml").read_text())["datasources"]
        assert source["url"] == "http://prometheus:9090"
        (provider,) = yaml.safe_load((folder / "grafana-dashboards.yml").read_text())["providers"]
        dashboard = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        assert Path(dashboard).parent == Path(provider["options"]["path"])
        assert any(volume.split(":")[1] == dashboard for volume in SERVICES["grafana"]["volumes"])


class Balancer(Process, Addressed):
    """haproxy with the configuration of the compose file, but for the addresses."""

    def __init__(self, containers: dict[str, Container]) -> None:
        self.port = free_port()
        super().__init__([program("haproxy"), "-db", "-f", "haproxy.cfg"], name="haproxy")
        text = (ROOT / "k8s/compose/haproxy.cfg").read_text().replace("bind :8080", f"bind {HOST}:{self.port}")
        for name, node in containers.items():
            assert f"server {name} {name}:8080\n" in text
            text = text.replace(f" {name}:8080\n", f" {HOST}:{node.port}\n")
        (self.directory / "haproxy.cfg").write_text(text)

    def close(self) -> None:
        """Kill it."""
        super().close()
        release_port(self.port)


@pytest.fixture
def composed(redis: RedisServer) -> Iterator[dict[str, Container]]:
    """Two of the nodes, not yet started, with the environment of the compose file; the third is missing."""
    environment: dict[str, str] = {
        name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in SERVICES["node-1"]["environment"].items()
    }
    assert environment["GATEWAY_REDIS_URL"] == "redis://redis:6379/0"
    environment["GATEWAY_REDIS_URL"] = redis.url
    environment["GATEWAY_TRUSTED_PROXIES"] += f",{HOST}"
    arguments = json.loads(Dockerfile().all("CMD")[0])
    containers = {name: Container(arguments, environment, name=name) for name in NODES[:2]}
    yield containers
    for node in containers.values():
        node.close()


@pytest.fixture
def balancer(composed: dict[str, Container]) -> Iterator[Balancer]:
    """The balancer in front of them, not yet started."""
    balancer = Balancer(composed)
    yield balancer
    balancer.close()


class TestBalancer:
    async def test_haproxy_accepts_the_configuration(self) -> None:
        """The very file, names that do not resolve included."""
        await output_of([program("haproxy"), "-c", "-f", str(ROOT / "k8s/compose/haproxy.cfg")])

    async def test_what_may_have_been_done_is_not_asked_twice(
        self, composed: dict[str, Container], balancer: Balancer
    ) -> None:
        """A node that ends in the middle of a request may have written the message; a page may be asked of another."""
        asked: Counter[str] = Counter()

        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = (await reader.readline()).decode()
            while (await reader.readline()).strip():
                pass
            if "/readyz" in request:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            asked[request.split()[0] if "/api" in request else ""] += 1
            writer.close()

        servers = [await asyncio.start_server(hang_up, HOST, node.port) for node in composed.values()]
        try:
            balancer.start()
            await eventually(lambda: _is_up(balancer), what="haproxy finds a node")
            for method in ("GET", "POST"):
                assert (await http.request(method, balancer.url("/api/channels/x/messages"))).status == 502
        finally:
            for server in servers:
                server.close()
        assert (asked["GET"], asked["POST"]) == (3, 1)

    async def test_clients_are_spread_and_survive_the_restart_of_a_node(
        self, composed: dict[str, Container], balancer: Balancer, connect: Clients
    ) -> None:
        """One `docker compose up` away: the demo, the admin pages, and a node that goes without a refused client."""
        await asyncio.gather(*(container.start() for container in composed.values()))
        balancer.start()
        await eventually(lambda: _is_up(balancer), what="haproxy finds a node")
        for path, status in {"/example": 200, "/admin/websocket/login": 200, "/metrics": 404}.items():
            assert (await http.get(balancer.url(path))).status == status, path

        first, second = composed.values()
        clients = [await connect(balancer, "lobby", protocols=V1) for _ in range(8)]
        for client in clients:
            await client.expect("$welcome")
        assert [await _connections(each) for each in (first, second)] == [4, 4]
        await clients[0].send("chat", {"text": "hello"}, channel="lobby")
        for client in clients:
            await client.expect("chat")

        took = await first.end(seconds(SERVICES["node-1"]["stop_grace_period"]))
        assert took <= float(SERVICES["node-1"]["environment"]["GATEWAY_DRAIN_SECONDS"])
        await eventually(lambda: _codes(clients) == [1012] * 4, what="the clients of the first node were sent away")
        for _ in range(8):
            client = await connect(balancer, "lobby", protocols=V1)
            await client.expect("$welcome")
        assert await _connections(second) == 12

    async def test_what_a_client_says_of_itself_is_not_passed_on(
        self, composed: dict[str, Container], balancer: Balancer, connect: Clients, redis: RedisServer
    ) -> None:
        """The nodes believe the balancer, so an address or a host that a client made up must not reach them."""
        await composed["node-1"].start()
        balancer.start()
        await eventually(lambda: _is_up(balancer), what="haproxy finds a node")
        made_up = {"X-Forwarded-For": "1.2.3.4", "Forwarded": "for=1.2.3.4", "X-Forwarded-Host": "elsewhere.example"}
        client = await connect(balancer, "lobby", protocols=V1, headers=made_up)
        id = (await client.expect("$welcome"))["param"]["connection"]
        assert await redis.command("HGET", f"gateway:connection:{id}", "remote") == HOST
        foreign = made_up | {"Origin": "http://elsewhere.example"}
        with pytest.raises(WSServerHandshakeError, match="403"):
            await connect(balancer, "lobby", headers=foreign)
        own = await connect(balancer, "lobby", protocols=V1, headers=made_up | {"Origin": balancer.url("").rstrip("/")})
        await own.expect("$welcome")


class TestRedis:
    async def test_redis_takes_its_options(self) -> None:
        """Those of the compose file, which are those of the overlay for development."""
        server, *options = SERVICES["redis"]["command"]
        deployed = container("dev", "redis")
        assert deployed["args"] == [server, *options]
        assert deployed["image"] == SERVICES["redis"]["image"]
        redis = RedisServer()
        redis.process.command += options
        try:
            await redis.start()
            for name, expected in {"save": "", "hash-max-listpack-value": "512"}.items():
                assert (await redis.command("CONFIG", "GET", name))[name] == expected
            limits = (await redis.command("CONFIG", "GET", "client-output-buffer-limit"))["client-output-buffer-limit"]
            assert f"pubsub {256 << 20} {64 << 20} 60" in limits
        finally:
            redis.close()


def _codes(clients: list[Client]) -> list[int]:
    return [client.closed.code for client in clients if client.closed is not None]


async def _is_up(balancer: Balancer) -> bool:
    balancer.assert_running()
    return (await http.get(balancer.url("/readyz"))).status == 200


async def _connections(container: Container) -> int:
    found = re.search(r"^gateway_connections (\d+)", (await http.get(container.url("/metrics"))).text, re.MULTILINE)
    assert found is not None
    return int(found.group(1))
