"""The harness does what it says; without that, no other test means anything."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.harness.browser import Pages
from tests.harness.client import Clients, Close
from tests.harness.cluster import RedisCluster
from tests.harness.crowd import Crowd
from tests.harness.haproxy import Haproxy
from tests.harness.node import Node, Nodes
from tests.harness.ports import HOST, free_port, release_port
from tests.harness.process import EndedEarly, Process
from tests.harness.proxy import Proxy
from tests.harness.redis import RedisServer
from tests.harness.sentinel import Sentinels
from tests.harness.wait import eventually
from tests.harness.wire import Wires, frame

ROOT = Path(__file__).resolve().parents[2]


def child(script: str) -> Process:
    """Start a Python script that prints a line once it is ready."""
    process = Process([sys.executable, "-uc", script], name="child")
    process.start()
    return process


def through(proxy: Proxy) -> Redis:
    """Return a client that tries nothing twice and waits for ever."""
    return Redis(port=proxy.port, retry=Retry(NoBackoff(), 0), socket_timeout=None)


def lives(pid: int) -> bool:
    """Tell whether a process runs; an orphan that ended is nobody's until init collects it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


class TestWaiting:
    async def test_the_first_true_value_is_returned(self) -> None:
        """What the predicate gave is the result."""
        values = iter([0, None, "", 7])
        assert await eventually(lambda: next(values)) == 7

    async def test_a_failure_names_the_last_value(self) -> None:
        """Past the deadline the test fails with what was seen last."""
        with pytest.raises(AssertionError, match=r"not within 0\.02 s: something; last: \[\]"):
            await eventually(list, 0.02, what="something")

    async def test_an_assertion_that_does_not_hold_is_not_yet(self) -> None:
        """A predicate may assert, and the last failure is shown."""

        def predicate() -> bool:
            raise AssertionError("2 of 3")

        with pytest.raises(AssertionError, match="2 of 3"):
            await eventually(predicate, 0.02)

    async def test_a_predicate_that_hangs_is_cancelled(self) -> None:
        """The deadline holds for a predicate that never returns."""
        with pytest.raises(AssertionError, match="never returned"):
            await eventually(asyncio.Event().wait, 0.02)


def test_no_port_is_given_out_twice() -> None:
    """A port belongs to who asked for it until it is released."""
    ports = [free_port() for _ in range(300)]
    for port in ports:
        release_port(port)
    assert len(set(ports)) == 300


class TestProcesses:
    async def test_stopping_tells_the_exit_code(self) -> None:
        """A process that ends at SIGTERM is not killed."""
        process = child("import signal, sys; signal.signal(15, lambda *_: sys.exit(4)); print(1); signal.pause()")
        await eventually(lambda: process.output)
        assert await process.stop() == 4
        process.close()

    async def test_one_that_does_not_stop_is_killed(self) -> None:
        """SIGKILL follows the deadline, for a frozen process too."""
        process = child("import signal; signal.signal(15, signal.SIG_IGN); print(1); [signal.pause() for _ in 'ab']")
        await eventually(lambda: process.output)
        process.freeze()
        assert await process.stop(deadline=0.1) == -signal.SIGKILL
        process.close()

    async def test_closing_ends_what_the_process_started(self) -> None:
        """Grandchildren die with their parent's test."""
        process = child("import signal, subprocess; print(subprocess.Popen(['sleep', '60']).pid); signal.pause()")
        grandchild = int(await eventually(lambda: process.output.strip()))
        directory = process.directory
        process.close()
        await eventually(lambda: not lives(grandchild))
        assert not directory.exists()

    async def test_a_killed_test_run_leaves_nothing(self) -> None:
        """Not even SIGKILL of the test process leaves a child or a file behind."""
        script = (
            "import os, signal; from tests.harness.process import Process\n"
            "p = Process(['sleep', '60'], name='child'); p.start()\n"
            "print(p.pid, p.directory, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
        )
        run = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
        )
        pid, directory = run.stdout.split()
        await eventually(lambda: not lives(int(pid)) and not Path(directory).parent.exists())

    async def test_a_failed_test_shows_the_output_of_its_processes(self, tmp_path: Path) -> None:
        """What a server said last is in the report of the test that failed."""
        (tmp_path / "test_it.py").write_text(
            "def test_it(redis):\n    redis.process.freeze(); redis.process.thaw()\n    raise SystemError\n"
        )
        options = ["-c", os.devnull, "--rootdir", str(tmp_path), "-p", "tests.conftest", "-p", "no:cacheprovider"]
        run = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "pytest", *options, str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert "output of redis-" in run.stdout
        assert "Ready to accept connections" in run.stdout


class TestRedis:
    async def test_a_restart_keeps_the_port_and_loses_the_data(self, own_redis: RedisServer) -> None:
        """A restarted server is where it was, and empty."""
        await own_redis.command("SET", "key", "value")
        await own_redis.restart()
        assert await own_redis.command("GET", "key") is None

    async def test_a_restart_can_keep_the_data(self, own_redis: RedisServer) -> None:
        """A restart with data brings back the last write."""
        await own_redis.command("SET", "key", "value")
        await own_redis.restart(keep_data=True)
        assert await own_redis.command("GET", "key") == "value"

    async def test_options_are_redis_conf_and_the_password_is_known(
        self, start_redis: Callable[..., Awaitable[RedisServer]]
    ) -> None:
        """A server takes any option; redis-cli and clients log in by themselves."""
        server = await start_redis(requirepass="secret", maxmemory="20mb")
        assert await server.cli("CONFIG", "GET", "maxmemory") == "maxmemory\n20971520"
        assert await server.command("PING")

    async def test_a_frozen_server_answers_when_thawed(self, own_redis: RedisServer) -> None:
        """SIGSTOP keeps connections open and silent."""
        async with own_redis.client() as client:
            own_redis.freeze()
            answer = asyncio.ensure_future(client.ping())
            assert not (await asyncio.wait([answer], timeout=0.1))[0]
            own_redis.thaw()
            assert await answer

    def test_the_shared_server_is_empty_for_each_test(self, redis: RedisServer, redis_url: str) -> None:
        """A test without a loop can use it too."""
        assert redis_url.endswith(f":{redis.port}/0")


class TestProxy:
    @pytest.fixture
    def proxy(self, redis: RedisServer, start_proxy: Callable[[RedisServer], Proxy]) -> Proxy:
        return start_proxy(redis)

    async def test_a_black_hole_holds_what_it_is_given(self, proxy: Proxy, redis: RedisServer) -> None:
        """With one direction silent the command is carried out, and its answer comes once healed."""
        async with through(proxy) as client:
            await client.ping()
            proxy.to_client.black_hole()
            answer = asyncio.ensure_future(client.set("key", "value"))
            await eventually(lambda: redis.command("GET", "key"))
            assert not answer.done()
            proxy.heal()
            assert await answer

    async def test_a_black_hole_passes_nothing_to_the_server(self, proxy: Proxy, redis: RedisServer) -> None:
        """With the other direction silent the command does not arrive."""
        async with through(proxy) as client:
            await client.ping()
            proxy.to_server.black_hole()
            passed = proxy.to_server.bytes
            answer = asyncio.ensure_future(client.set("key", "value"))
            assert not (await asyncio.wait([answer], timeout=0.1))[0]
            assert (proxy.to_server.bytes, await redis.command("GET", "key")) == (passed, None)
            proxy.heal()
            assert await answer

    async def test_a_delay_counts_in_both_directions(self, proxy: Proxy) -> None:
        """A round trip takes both delays longer, and no longer after healing."""
        async with through(proxy) as client:
            await client.ping()
            proxy.delay(0.05)
            began = time.monotonic()
            await client.ping()
            assert time.monotonic() - began >= 0.1
            proxy.heal()
            await client.ping()
            assert time.monotonic() - began < 1

    async def test_a_throttle_is_felt_by_the_sender(self, proxy: Proxy, redis: RedisServer) -> None:
        """What a narrow direction can not take stays in the sender's buffers."""
        async with through(proxy) as client:
            await client.set("key", b"x" * 20_000_000)
            proxy.to_client.throttle(1000)
            answer = asyncio.ensure_future(client.get("key"))

            async def much_is_held_back() -> bool:
                clients = await redis.cli("CLIENT", "LIST")
                return any(int(held) > 10_000_000 for held in re.findall(r" omem=(\d+)", clients))

            await eventually(much_is_held_back)
            proxy.heal()
            assert len(await answer or b"") == 20_000_000

    async def test_a_throttle_limits_bytes_a_second(self, proxy: Proxy) -> None:
        """Twenty kilobytes at a hundred a second take a fifth of a second."""
        async with through(proxy) as client:
            await client.set("key", b"x" * 20_000)
            proxy.to_client.throttle(100_000)
            began = time.monotonic()
            await client.get("key")
            assert 0.15 < time.monotonic() - began < 2

    async def test_a_reset_ends_open_connections_only(self, proxy: Proxy) -> None:
        """RST reaches who is connected, and a new connection works."""
        async with through(proxy) as client:
            await client.ping()
            proxy.reset()
            with pytest.raises((RedisConnectionError, ConnectionResetError)):
                await client.ping()
            await client.ping()
            assert (proxy.connections, proxy.accepted) == (1, 2)

    async def test_refusing_spares_open_connections(self, proxy: Proxy) -> None:
        """Who is connected goes on; who comes is refused until healed."""
        async with through(proxy) as client:
            await client.ping()
            proxy.refuse()
            await client.ping()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, proxy.port)
            proxy.heal()
            async with through(proxy) as another:
                await another.ping()


class TestSentinels:
    async def test_a_killed_master_is_replaced(self, sentinels: Sentinels) -> None:
        """All sentinels name a new master, which takes writes."""
        old = await sentinels.master_port()
        new = await sentinels.kill_master()
        assert new.port != old
        assert new.port == await sentinels.master_port()
        assert await new.command("SET", "key", "value")

    async def test_the_next_test_finds_all_six(self, sentinels: Sentinels) -> None:
        """What the test before killed is back, as a replica, without data."""
        assert all(server.process.awake for server in (*sentinels.servers, *sentinels.sentinels))
        assert await (await sentinels.master()).command("DBSIZE") == 0


class TestCluster:
    async def test_a_slot_moves_with_its_keys(self, cluster: RedisCluster) -> None:
        """Another master serves the slot, and no key is lost."""
        old = await cluster.master_of("{tag}")
        async with cluster.client() as client:
            await client.set("key{tag}", "value")
            new = await cluster.move_slot("{tag}")
            assert new is await cluster.master_of("key{tag}") is not old
            assert await client.get("key{tag}") == "value"

    async def test_a_failover_changes_master_and_replica(self, cluster: RedisCluster) -> None:
        """CLUSTER FAILOVER makes the replica the master, and the master its replica."""
        old = await cluster.master_of("key")
        new = await cluster.failover("key")
        assert await cluster.replica_of(new) is old

    async def test_a_killed_master_is_replaced(self, cluster: RedisCluster) -> None:
        """Every survivor names the replica as the new master."""
        replica = await cluster.replica_of(await cluster.master_of("key"))
        assert await cluster.kill_master("key") is replica


class TestNodes:
    async def test_a_node_that_ends_early_shows_why(self, start_node: Callable[..., Awaitable[Node]]) -> None:
        """A wrong setting is reported at once, with what the node said."""
        with pytest.raises(EndedEarly, match="log_level"):
            await start_node(log_level="nonsense")

    async def test_a_node_is_stopped_and_started_again(self, start_node: Callable[..., Awaitable[Node]]) -> None:
        """The same node comes back on the same port."""
        node = await start_node()
        assert await node.stop() == 0
        await node.start()
        assert (await node.get("/healthz")).json["status"] == "ok"

    def test_every_kind_of_setting_reaches_the_node(self) -> None:
        """Numbers, switches and lists are flags of the command line; rules are in a file."""
        rules: list[dict[str, Any]] = [{"match": "a-*", "history": 10, "send": False}, {"match": "*"}]
        node = Node(presence_max=2, allow_anonymous=False, allowed_origins=["app://a", "app://b"], channels=rules)
        command = node.process.command
        flags = dict(zip(command[4::2], command[5::2], strict=True))
        assert (
            flags.items()
            >= {"--presence-max": "2", "--allow-anonymous": "false", "--allowed-origins": "app://a,app://b"}.items()
        )
        assert tomllib.loads(Path(flags["--config"]).read_text()) == {"channels": rules}
        node.close()


class TestClients:
    async def test_what_is_skipped_stays_for_later(self, nodes: Nodes, connect: Clients) -> None:
        """`expect` finds its message among others and takes no other."""
        client = await connect(nodes[0], "skipping", name="Ada")
        await client.send("chat", {"text": "one"})
        await client.send("ping")
        await client.expect("pong", channel="skipping")
        assert (await client.receive())["param"]["text"] == "one"
        assert [message["cmd"] for message in client.received] == ["chat", "pong"]

    async def test_a_marker_proves_that_nothing_else_came(self, nodes: Nodes, connect: Clients) -> None:
        """What travels before the marker is seen, without waiting for time."""
        client = await connect(nodes[1], "marked")
        await client.expect_nothing_but()
        await nodes.redis.publish("gateway:channel:marked", "early")
        with pytest.raises(AssertionError, match="early"):
            await client.expect_nothing_but(
                "other", marker=lambda cmd: nodes.redis.publish("gateway:channel:marked", cmd)
            )

    async def test_a_thousand_clients(self, nodes: Nodes, connect: Clients, crowd: Crowd) -> None:
        """A crowd counts what a client among it reads."""
        client = await connect(nodes[1])
        await crowd.join([node.ws_url() for node in nodes for _ in range(500)])
        before = crowd.messages
        await nodes.redis.publish("gateway:all", "hello")
        await client.expect("hello")
        await eventually(lambda: crowd.messages >= before + 1000)
        assert crowd.open == 1000

    async def test_the_end_of_a_connection_is_told(self, nodes: Nodes, connect: Clients) -> None:
        """Who waits for a message learns that none will come; who waits for the close gets its code."""
        client = await connect(nodes[0])
        waiting = asyncio.ensure_future(client.receive())
        await client.close()
        assert await client.expect_close() == Close(1000)
        with pytest.raises(AssertionError, match="ended"):
            await waiting

    async def test_a_wire_sends_what_no_client_would(self, nodes: Nodes, wire: Wires) -> None:
        """An unmasked frame ends the connection; a message in single bytes is understood."""
        rude = await wire(nodes[0])
        await rude.send('{"cmd": "x"}', mask=None)
        assert (await rude.read_close()).close_code == 1002
        slow = await wire(nodes[0])
        await slow.write_split(frame('{"cmd": "x", "id": 1}'))
        assert (await slow.read_frame()).json["param"]["code"] == "unknown-command"


async def test_haproxy_notices_a_dead_node(
    own_redis: RedisServer,
    start_nodes: Callable[..., Awaitable[Nodes]],
    start_haproxy: Callable[..., Awaitable[Haproxy]],
    connect: Clients,
) -> None:
    """Connections are spread over the nodes, and only the living get new ones."""
    nodes = await start_nodes(2, own_redis)
    balancer = await start_haproxy(nodes, check="/healthz")
    await connect.many(4, balancer)
    assert set((await balancer.sessions()).values()) == {2}
    await nodes[0].kill()
    await balancer.state(nodes[0], "DOWN")
    await connect.many(2, balancer)
    assert (await balancer.sessions())[nodes[1].id] == 4


async def test_a_page_error_is_noted(nodes: Nodes, pages: Pages) -> None:
    """A page loads without errors, and an exception in it would fail the test."""
    page = await pages.open(nodes[0].url("/example"))
    pages.assert_clean()
    await page.evaluate("setTimeout(() => { throw new Error('on purpose') })")
    await eventually(lambda: pages.errors)
    with pytest.raises(AssertionError, match="on purpose"):
        pages.assert_clean()
    pages.allow("on purpose")
