"""The manifests, without a cluster: rendered, held against Kubernetes' schemas, and what they start started here."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping

import jwt
import pytest
from aiohttp import WSServerHandshakeError

from gateway.config import Settings
from gateway.version import __version__
from tests.harness import http
from tests.harness.client import Clients
from tests.harness.container import Container, Dockerfile
from tests.harness.manifests import Manifest, container, environment, only, pod, pods, rendered, variables
from tests.harness.node import gateway
from tests.harness.ports import HOST
from tests.harness.redis import RedisServer
from tests.harness.sentinel import Sentinels
from tests.harness.wait import eventually

V1 = ["gateway.v1.json"]
OVERLAYS = ["dev", "production", "cluster"]
KUBERNETES = ["1.30", "1.37"]
"""The oldest version that will do, since `preStop.sleep` came with it, and the newest that there is a schema of."""
OPERATOR_S = {"ServiceMonitor", "PrometheusRule"}
"""Kinds that Kubernetes itself does not know."""
SECRET_SETTINGS = {name for name, field in Settings.model_fields.items() if not field.repr}
KEYS = {"jwt-secret": "j" * 32, "api-key": "a" * 32, "admin-password": "p" * 32}
"""What the secret of the tests holds, but for Redis."""
MARGIN = 5.0
"""Seconds that a node gets beyond what it says it needs, at least."""


def drain_seconds(overlay: str) -> float:
    """Return how long a node says it takes to end."""
    return float(variables(overlay)["GATEWAY_DRAIN_SECONDS"]["value"])


def pre_stop(overlay: str) -> float:
    """Return how long a pod goes on serving after it was told to end."""
    return float(container(overlay)["lifecycle"]["preStop"]["sleep"]["seconds"])


def patience(probe: Manifest) -> float:
    """Return how long a probe may fail before the kubelet acts."""
    return float(probe["periodSeconds"] * probe["failureThreshold"])


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Tell whether a selector is about what has these labels."""
    return bool(selector) and selector.items() <= labels.items()


# ---- rules


@pytest.mark.parametrize("overlay", OVERLAYS)
class TestManifests:
    @pytest.mark.parametrize("version", KUBERNETES)
    def test_kubernetes_knows_every_field(self, overlay: str, version: str) -> None:
        """Strictly: a misspelled field is an error."""
        for each in rendered(overlay):
            if each["kind"] not in OPERATOR_S:
                validate(each, version)

    def test_every_variable_is_a_setting(self, overlay: str) -> None:
        """A misspelled one would be ignored."""
        for name in variables(overlay):
            if name.startswith("GATEWAY_"):
                assert name.removeprefix("GATEWAY_").lower() in Settings.model_fields

    def test_secrets_are_references(self, overlay: str) -> None:
        """No secret lies in the repository, nor any part of one."""
        assert not [each for each in rendered(overlay) if each["kind"] == "Secret"]
        for name, entry in variables(overlay).items():
            if name.removeprefix("GATEWAY_").lower() in SECRET_SETTINGS:
                assert "value" not in entry
            assert not re.search(r"://[^/]*:(?!\$\()[^/]*@", entry.get("value", "")), name
        entries = [
            entry for spec in pods(overlay).values() for each in spec["containers"] for entry in each.get("env", ())
        ]
        assert not [entry for entry in entries if re.search("PASSWORD|AUTH", entry["name"]) and "value" in entry]

    def test_service_links_are_off(self, overlay: str) -> None:
        """The Service called gateway would have GATEWAY_PORT=tcp://... set in the nodes, and redis its own."""
        assert only(overlay, "Service")["metadata"]["name"] == "gateway"
        assert all(spec["enableServiceLinks"] is False for spec in pods(overlay).values())

    def test_the_grace_fits_what_ending_takes(self, overlay: str) -> None:
        """The pause for balancers, the drain, and a margin."""
        assert pod(overlay)["terminationGracePeriodSeconds"] >= pre_stop(overlay) + drain_seconds(overlay) + MARGIN

    def test_probes_are_as_patient_as_nodes(self, overlay: str) -> None:
        """A node may wait for Redis at its start, and for a handler that blocks it for up to a minute."""
        node = container(overlay)
        assert patience(node["startupProbe"]) > Settings.model_fields["startup_timeout"].default
        assert patience(node["livenessProbe"]) >= 60
        assert node["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert node["readinessProbe"]["httpGet"]["path"] == "/readyz"

    def test_nodes_are_replaced_one_by_one(self, overlay: str) -> None:
        """A new one first; never fewer than there were."""
        assert only(overlay, "Deployment")["spec"]["strategy"] == {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        }

    def test_pods_have_no_more_rights_than_they_need(self, overlay: str) -> None:
        """What the restricted Pod Security Standard asks for, a read-only file system, no token, and limits."""
        for spec in pods(overlay).values():
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert spec["automountServiceAccountToken"] is False
            for one in spec["containers"]:
                assert one["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert {"cpu", "memory"} <= set(one["resources"]["requests"])
                assert "memory" in one["resources"]["limits"]
                assert re.search(r":v?\d+\.\d+", one["image"])

    def test_the_image_is_this_version_s(self, overlay: str) -> None:
        """With the user that the image has, and its port."""
        image = Dockerfile()
        assert container(overlay)["image"].endswith(f"gateway:{__version__}")
        who = pod(overlay)["securityContext"]
        assert image.all("USER") == [f"{who['runAsUser']}:{who['runAsGroup']}"]
        (port,) = container(overlay)["ports"]
        assert variables(overlay)["GATEWAY_PORT"]["value"] == str(port["containerPort"])
        probes = [container(overlay)[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")]
        assert {probe["httpGet"]["port"] for probe in probes} == {port["name"]}

    def test_whatever_selects_selects_the_nodes(self, overlay: str) -> None:
        """Service, budget, policy and spread: each by labels that the pods have, and Redis's pods have not."""
        labels = only(overlay, "Deployment")["spec"]["template"]["metadata"]["labels"]
        found = [only(overlay, "Service")["spec"]["selector"]]
        found += [only(overlay, "Deployment")["spec"]["selector"]["matchLabels"]]
        found += [only(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]]
        found += [spread["labelSelector"]["matchLabels"] for spread in pod(overlay)["topologySpreadConstraints"]]
        found += [
            each["spec"]["selector"]["matchLabels"]
            for each in rendered(overlay)
            if each["kind"] == "PodDisruptionBudget" and each["metadata"]["name"] == "gateway"
        ]
        assert all(selects(selector, labels) for selector in found)
        assert len(found) >= 5
        assert not selects(found[0], {"app.kubernetes.io/name": "redis", "app.kubernetes.io/part-of": "gateway"})

    def test_sockets_outlive_the_time_outs_of_the_ingress(self, overlay: str) -> None:
        """It waits for longer than two heartbeats, and sends everything to the Service's port."""
        ingress = only(overlay, "Ingress")
        notes = ingress["metadata"]["annotations"]
        for name in ("read", "send"):
            assert int(notes[f"nginx.ingress.kubernetes.io/proxy-{name}-timeout"]) >= 3600
        assert notes["haproxy.org/timeout-tunnel"] == "1h"
        ports = {port["name"] for port in only(overlay, "Service")["spec"]["ports"]}
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                assert path["backend"]["service"]["name"] == "gateway"
                assert path["backend"]["service"]["port"]["name"] in ports

    def test_everything_is_in_one_namespace(self, overlay: str) -> None:
        """Where the secret is looked for."""
        assert len({each["metadata"]["namespace"] for each in rendered(overlay)}) == 1


class TestSchema:
    def test_a_misspelled_field_is_noticed(self) -> None:
        """Else nothing would be proved by no field being so."""
        broken = json.loads(json.dumps(only("production", "Deployment")))
        broken["spec"]["template"]["spec"]["containers"][0]["lifecycle"] = {"preStop": {"slep": {"seconds": 5}}}
        with pytest.raises(AssertionError, match="slep"):
            validate(broken, KUBERNETES[-1])


def validate(manifest: Manifest, version: str) -> None:
    """Hold an object against the schema of a version of Kubernetes."""
    import kubernetes_validate  # type: ignore[import-untyped]  # and slow to import

    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        raise AssertionError(f"{name}: {'.'.join(map(str, error.path))}: {error.message[:500]}") from None


class TestProduction:
    def test_the_autoscaler_leaves_room(self) -> None:
        """When one of the fewest nodes goes, the others can take in what it held."""
        scaler = only("production", "HorizontalPodAutoscaler")["spec"]
        assert scaler["scaleTargetRef"]["name"] == only("production", "Deployment")["metadata"]["name"]
        assert "replicas" not in only("production", "Deployment")["spec"]
        pods, cpu = scaler["metrics"]
        assert pods["pods"]["metric"]["name"] == "gateway_connections"
        target, fewest = int(pods["pods"]["target"]["averageValue"]), scaler["minReplicas"]
        most = int(variables("production")["GATEWAY_MAX_CONNECTIONS"]["value"])
        assert target * fewest / (fewest - 1) <= most
        assert cpu["resource"]["name"] == "cpu"
        assert "cpu" in container("production")["resources"]["requests"]
        assert only("production", "PodDisruptionBudget")["spec"]["maxUnavailable"] < fewest

    def test_the_monitor_finds_the_service(self) -> None:
        """By its labels and the name of its port, under a path that nodes have."""
        monitor = only("production", "ServiceMonitor")["spec"]
        service = only("production", "Service")
        assert selects(monitor["selector"]["matchLabels"], service["metadata"]["labels"])
        (endpoint,) = monitor["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert endpoint["path"] == "/metrics"

    def test_probes_and_figures_stay_inside(self) -> None:
        """Clients get at what is theirs, and nothing else."""
        (rule,) = only("production", "Ingress")["spec"]["rules"]
        paths = {path["path"] for path in rule["http"]["paths"]}
        assert paths == {"/connect", "/static", "/api", "/admin"}


# ---- what the manifests start


@pytest.fixture
def deploy() -> Iterator[Callable[..., Container]]:
    """Lays out nodes as an overlay says, with secrets, and with other values for what names a server."""
    made: list[Container] = []

    def lay_out(overlay: str, secrets: Mapping[str, str], **other: str) -> Container:
        assert "command" not in container(overlay)
        variables = environment(overlay, secrets) | other
        made.append(Container(container(overlay)["args"], variables, name=overlay))
        return made[-1]

    yield lay_out
    for each in made:
        each.close()


async def started(overlay: str, node: Container) -> None:
    """Start a node, and hold it against the probes."""
    probes = container(overlay)
    await node.start(patience(probes["startupProbe"]))
    for kind in ("startup", "liveness", "readiness"):
        assert await node.probe(probes[f"{kind}Probe"]) == 200


class TestNodes:
    async def test_a_node_of_dev_drains_in_its_time(
        self, redis: RedisServer, deploy: Callable[..., Container], connect: Clients
    ) -> None:
        """Not ready first, then its clients go, then it: all before the kubelet would lose patience."""
        url = variables("dev")["GATEWAY_REDIS_URL"]["value"]
        (port,) = only("dev", "Service", "redis")["spec"]["ports"]
        assert url == f"redis://redis:{port['port']}/0"
        node = deploy("dev", {}, GATEWAY_REDIS_URL=redis.url)
        await started("dev", node)
        clients = await connect.many(100, node, "lobby", protocols=V1)
        for client in clients:
            await client.expect("$welcome")

        seen: list[int] = []

        async def refuses() -> bool:
            seen.append(await node.probe(container("dev")["readinessProbe"]))
            return node.process.exit_code is not None

        took, _ = await asyncio.gather(node.end(60), eventually(refuses, 60))
        assert 503 in seen
        assert 200 not in seen[seen.index(503) :]
        assert took <= drain_seconds("dev") + 1
        assert pre_stop("dev") + took + MARGIN <= pod("dev")["terminationGracePeriodSeconds"]
        assert {(await client.expect_close()).code for client in clients} == {1012}
        assert not await redis.command("EXISTS", "gateway:nodes", "gateway:members:lobby")

    async def test_a_node_of_production_takes_its_keys_from_the_secret(
        self, sentinels: Sentinels, deploy: Callable[..., Container], connect: Clients
    ) -> None:
        """Redis by Sentinel, tokens, the API, the admin pages; logs are JSON and hold none of the keys."""
        node = deploy("production", KEYS | {"redis-url": sentinels.url})
        await started("production", node)
        with pytest.raises(WSServerHandshakeError, match="401"):
            await connect(node, "lobby")
        token = jwt.encode({"sub": "ada"}, KEYS["jwt-secret"], "HS256")
        client = await connect(node, "lobby", protocols=V1, headers={"Authorization": f"Bearer {token}"})
        assert (await client.expect("$welcome"))["param"]["user"] == "ada"
        bearer = {"Authorization": f"Bearer {KEYS['api-key']}"}
        assert (await http.get(node.url("/api/status"), headers=bearer)).json["users"] == 1
        assert (await http.get(node.url("/admin/websocket/login"))).status == 200
        await client.close()
        assert await node.end(60) <= drain_seconds("production")
        for line in node.process.output.splitlines():
            assert json.loads(line)["node"]
        assert not [key for key in KEYS.values() if key in node.process.output]

    @pytest.mark.parametrize("missing", ["redis-url", "jwt-secret", "api-key", "admin-password"])
    def test_without_a_key_no_pod_of_production_starts(self, missing: str) -> None:
        """Rather than one that lets everybody in."""
        keys = KEYS | {"redis-url": "memory://"}
        del keys[missing]
        with pytest.raises(AssertionError, match=missing):
            environment("production", keys)

    async def test_what_service_links_would_set_is_one_clear_error(self) -> None:
        """Exit code 2, and one line that names the setting and the value."""
        links = {
            "GATEWAY_PORT": "tcp://10.96.0.1:80",
            "GATEWAY_SERVICE_HOST": "10.96.0.1",
            "GATEWAY_SERVICE_PORT": "80",
        }
        process = gateway("serve", environment=links | {"GATEWAY_HOST": HOST})
        try:
            process.start()
            assert await process.wait() == 2
            (line,) = process.output.splitlines()
            assert "port: expected a number" in line
            assert "enableServiceLinks" in line
            assert "'tcp://10.96.0.1:80'" in line
        finally:
            process.close()
