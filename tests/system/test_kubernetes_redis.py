"""The Redis Cluster of the overlay `cluster`: real servers, with the commands, hooks and probes of its pods."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from tests.harness.client import Client, Clients
from tests.harness.container import Container
from tests.harness.manifests import container, environment, only, pod
from tests.harness.process import output_of, program
from tests.harness.redispods import RedisPods
from tests.harness.wait import eventually

SECRETS = {
    "jwt-secret": "j" * 32,
    "api-key": "a" * 32,
    "admin-password": "p" * 32,
    "redis-password": "r" * 32,
}
NAME = "redis-cluster"
V1 = ["gateway.v1.json"]
SERVERS = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/component": "server"}


@pytest.fixture
def pods() -> Iterator[RedisPods]:
    """All of them, not yet started."""
    pods = RedisPods(SECRETS)
    yield pods
    pods.close()


async def layout(pods: RedisPods, ordinal: int) -> list[tuple[str, str, str]]:
    """Return what a server knows of all: id, master or replica of whom, slots."""
    lines = [line.split() for line in (await pods.command(ordinal, "CLUSTER", "NODES")).splitlines()]
    return sorted((line[0], line[3], " ".join(line[8:])) for line in lines)


async def agreed(pods: RedisPods) -> list[tuple[str, str, str]]:
    """Wait until the first and the last server know the same, which gossip brings about, and return it."""

    async def both() -> list[tuple[str, str, str]] | None:
        first = await layout(pods, 0)
        return first if first == await layout(pods, 5) else None

    return await eventually(both, what="two servers that know the same")


class TestManifests:
    def test_peers_are_the_pods(self) -> None:
        """As many names as there are replicas, under the Service's name, in their order."""
        told = only("cluster", "StatefulSet", NAME)["spec"]
        names = [f"{NAME}-{ordinal}.{told['serviceName']}" for ordinal in range(told["replicas"])]
        assert only("cluster", "ConfigMap", NAME)["data"]["peers"].split() == names
        service = only("cluster", "Service", NAME)["spec"]
        assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)

    def test_labels_select_the_servers(self) -> None:
        """Service, set, budget and policy; the job is let in, and is none of them."""
        assert only("cluster", "Service", NAME)["spec"]["selector"] == SERVERS
        assert only("cluster", "StatefulSet", NAME)["spec"]["selector"]["matchLabels"] == SERVERS
        assert only("cluster", "PodDisruptionBudget", NAME)["spec"]["selector"]["matchLabels"] == SERVERS
        labels = only("cluster", "StatefulSet", NAME)["spec"]["template"]["metadata"]["labels"]
        assert SERVERS.items() <= labels.items()
        job = only("cluster", "Job", f"{NAME}-create")["spec"]["template"]["metadata"]["labels"]
        policy = only("cluster", "NetworkPolicy", NAME)["spec"]["podSelector"]["matchLabels"]
        assert policy.items() <= labels.items()
        assert policy.items() <= job.items()
        assert not SERVERS.items() <= job.items()

    def test_it_is_configured_as_the_redis_of_the_other_overlays(self) -> None:
        """But for what a cluster needs, and for what it keeps: under the volume's path."""
        lines = only("cluster", "ConfigMap", NAME)["data"]["redis.conf"].splitlines()
        dev = container("dev", "redis")["args"]
        for option in ("--client-output-buffer-limit", "--hash-max-listpack-value"):
            assert f"{option.removeprefix('--')} {dev[dev.index(option) + 1]}" in lines
        assert container("cluster", NAME)["image"] == container("dev", "redis")["image"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container("cluster", NAME)["volumeMounts"]}
        (volume,) = only("cluster", "StatefulSet", NAME)["spec"]["volumeClaimTemplates"]
        assert f"dir {mounts[volume['metadata']['name']]}" in lines
        assert pod("cluster", NAME)["volumes"] == [{"name": "scripts", "configMap": {"name": NAME}}]
        assert mounts["scripts"] == "/scripts"

    @pytest.mark.parametrize("name", [name for name in only("cluster", "ConfigMap", NAME)["data"] if ".sh" in name])
    async def test_the_linter_has_nothing_to_say_of_the_scripts(self, name: str, tmp_path: Path) -> None:
        """As scripts for a shell that knows no more than POSIX."""
        file = tmp_path / name
        file.write_text(only("cluster", "ConfigMap", NAME)["data"][name])
        assert await output_of([program("shellcheck"), "--shell=sh", str(file)]) == ""


class TestServers:
    async def test_they_become_a_cluster_and_stay_one(self, pods: RedisPods) -> None:
        """Not ready before the job has run, which may run again; and found again when all have other addresses."""
        await pods.start(pods.ordinals)
        assert [await pods.is_alive(ordinal) for ordinal in pods.ordinals] == [True] * 6
        assert [await pods.is_ready(ordinal) for ordinal in pods.ordinals] == [False] * 6
        assert "made a cluster of 6" in await pods.create()
        await pods.are_ready()
        made = await agreed(pods)
        assert [slots for _, master, slots in made if master == "-"].count("") == 0
        assert sorted(len(master) for _, master, _ in made) == [1, 1, 1, 40, 40, 40]
        assert "knows a cluster" in await pods.create()
        assert await agreed(pods) == made

        await pods.kill(pods.ordinals)
        await pods.start(pods.ordinals)
        await pods.are_ready(60)
        assert {id for id, _, _ in await layout(pods, 3)} == {id for id, _, _ in made}

    async def test_a_half_made_cluster_is_completed(self, pods: RedisPods) -> None:
        """Some know each other, and one has its slots: what is missing is added."""
        await pods.start(pods.ordinals)
        await pods.command(0, "CLUSTER", "ADDSLOTSRANGE", 0, 5460)
        await pods.command(0, "CLUSTER", "MEET", pods.addresses[4], pods.port)
        assert "made a cluster of 6" in await pods.create()
        await pods.are_ready()

    async def test_a_node_lives_through_their_rolling_update(self, pods: RedisPods, connect: Clients) -> None:
        """One pod after the other ends and comes back elsewhere; the node's client loses nothing that is kept."""
        await pods.start(pods.ordinals)
        await pods.create()
        await pods.are_ready()
        variables = environment("cluster", SECRETS)
        url = variables["GATEWAY_REDIS_URL"]
        assert re.fullmatch(r"redis\+cluster://:r{32}@(redis-cluster-\d\.redis-cluster:6379,?)+", url)
        own = {"GATEWAY_REDIS_URL": pods.reachable(url), "GATEWAY_CHANNELS": '[{"match": "*", "history": 1000}]'}
        node = Container(container("cluster")["args"], variables | own, name="cluster")
        try:
            await node.start()
            token = jwt.encode({"sub": "ada"}, SECRETS["jwt-secret"], "HS256")
            client = await connect(node, "lobby", protocols=V1, headers={"Authorization": f"Bearer {token}"})
            await client.expect("$welcome")
            for ordinal in reversed(pods.ordinals):
                await pods.stop(ordinal)
                await pods.start([ordinal])
                await pods.are_ready()
                # A master had handed its slots over before it ended.
                assert (await pods.command(ordinal, "ROLE"))[0] == "slave"
                await says(client, f"after {ordinal}")
            assert said(client) == [f"after {ordinal}" for ordinal in reversed(pods.ordinals)]
            await node.end(60)
            assert SECRETS["redis-password"] not in node.process.output
        finally:
            node.close()


async def says(client: Client, text: str) -> None:
    """Say something in the lobby, and wait until it is heard there."""
    await client.send("chat", {"text": text}, channel="lobby")
    await eventually(lambda: text in said(client), 20, what=text)


def said(client: Client) -> list[str]:
    """Return what was heard in the lobby."""
    return [message["param"]["text"] for message in client.received if message["cmd"] == "chat"]
