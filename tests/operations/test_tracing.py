"""OpenTelemetry traces: what is spanned, and that a trace goes where its message goes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway import Connection, GatewayError, Handler, InvalidSettings, Publisher, Service, SyncPublisher
from tests.harness import http
from tests.harness.client import Clients
from tests.harness.embedded import Embedded, Member
from tests.harness.node import Node, gateway
from tests.harness.process import output_of
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

ROOT = Path(__file__).parents[2]
SPAN = "span: "
"""Begins the lines that `tests/handlers/traced.py` prints."""

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HANDSHAKE, COMMAND, PUBLISH, DELIVER = (f"gateway {what}" for what in ("handshake", "command", "publish", "deliver"))
RULES = [{"match": "kept-*", "history": 10, "ttl": 60}]


class Spans:
    """What was spanned in this process."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter
        self._tracer = trace.get_tracer("tests")

    def all(self, name: str = "") -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if name in ("", span.name)]

    async def some(self, name: str, count: int = 1) -> list[ReadableSpan]:
        """Wait for so many of a name."""
        return await eventually(lambda: found if len(found := self.all(name)) == count else None, what=name)

    async def one(self, name: str) -> ReadableSpan:
        return (await self.some(name))[0]

    def forget(self) -> None:
        self._exporter.clear()

    def begun(self) -> Any:
        """Begin a span of the application's own, with `with`."""
        return self._tracer.start_as_current_span("application")


@pytest.fixture(scope="module")
def _exporter() -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(_exporter: InMemorySpanExporter) -> Iterator[Spans]:
    """The spans of one test."""
    _exporter.clear()
    yield Spans(_exporter)
    _exporter.clear()


class Talker(Handler):
    """Writes where it is told to."""

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        match cmd:
            case "write":
                way, *to = param
                return await getattr(service, f"write_{way}")("said", None, *to)
            case "refuse":
                raise GatewayError("no")
        raise RuntimeError("a bug")


class Pair:
    """Two nodes on one Redis with tracing, and Ada at each."""

    def __init__(self, redis: RedisServer, clients: Clients, spans: Spans) -> None:
        self.redis = redis
        self.spans = spans
        self.nodes = [Embedded(redis.url, handler=Talker(), tracing=True, channels=RULES) for _ in range(2)]
        self.ada: list[Member] = []
        self._clients = clients

    async def start(self) -> None:
        for node in self.nodes:
            await node.start()
            self.ada.append(await node.connect(self._clients, "lobby", user="ada", protocols=["gateway.v1.json"]))
        for member in self.ada:
            await member.client.expect("$welcome")
        await self.spans.some(HANDSHAKE, 2)

    def names(self, found: list[ReadableSpan]) -> list[Any]:
        return sorted((span.attributes or {})["gateway.node"] for span in found)

    @property
    def ids(self) -> list[str]:
        return sorted(node.service.node_id for node in self.nodes)


@pytest.fixture
async def pair(redis: RedisServer, connect: Clients, spans: Spans) -> AsyncIterator[Pair]:
    pair = Pair(redis, connect, spans)
    await pair.start()
    yield pair
    await connect.close()
    for node in pair.nodes:
        await node.stop()


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    assert span.parent is not None
    assert parent.context is not None
    return (span.parent.trace_id, span.parent.span_id) == (parent.context.trace_id, parent.context.span_id)


class TestMessages:
    @pytest.mark.parametrize("channel", ["lobby", "kept-lobby"])
    async def test_a_trace_crosses_nodes(self, pair: Pair, spans: Spans, channel: str) -> None:
        """A command, what it published, and its delivery by both nodes are one trace, with or without history."""
        for node, member in zip(pair.nodes, pair.ada, strict=True):
            await node.service.join(member.id, channel)
        spans.forget()
        await pair.ada[0].client.request("write", ["channel", channel], channel="lobby")
        for member in pair.ada:
            await member.client.expect("said")
        command, publish = await spans.one(COMMAND), await spans.one(PUBLISH)
        deliveries = await spans.some(DELIVER, 2)
        assert is_child(publish, command)
        assert all(is_child(delivery, publish) for delivery in deliveries)
        assert pair.names(deliveries) == pair.ids
        assert [span.kind for span in (command, publish, *deliveries)] == [
            *(SpanKind.SERVER, SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.CONSUMER)
        ]
        assert publish.attributes is not None
        assert publish.attributes["messaging.destination.name"] == channel
        assert command.attributes is not None
        assert command.attributes["gateway.cmd"] == "write"

    @pytest.mark.parametrize(("way", "to", "deliveries"), [("user", "ada", 2), ("all", None, 2), ("connection", "", 1)])
    @pytest.mark.parametrize("here", [True, False], ids=["here", "there"])
    async def test_so_it_does_on_every_way(
        self, pair: Pair, spans: Spans, way: str, to: str | None, deliveries: int, here: bool
    ) -> None:
        """To a user, to all, to one connection of this node or of the other."""
        spans.forget()
        reached = pair.ada[0 if here else 1]
        arguments = [] if to is None else [to or reached.id]
        await pair.ada[0].client.request("write", [way, *arguments])
        await reached.client.expect("said")
        publish = await spans.one(PUBLISH)
        assert is_child(publish, await spans.one(COMMAND))
        assert all(is_child(delivery, publish) for delivery in await spans.some(DELIVER, deliveries))

    async def test_what_the_application_spans_is_part_of_it(self, pair: Pair, spans: Spans) -> None:
        """A write belongs to whatever is under way where it is made."""
        with spans.begun():
            await pair.nodes[0].service.write_channel("said", None, "lobby")
        assert is_child(await spans.one(PUBLISH), await spans.one("application"))

    async def test_a_trace_that_is_not_sampled_is_not_carried(self, pair: Pair, spans: Spans) -> None:
        """Nor does any node begin one in its place."""
        spans.forget()
        unsampled = trace.SpanContext(1, 1, is_remote=True)
        with trace.use_span(trace.NonRecordingSpan(unsampled)):
            await pair.nodes[0].service.write_channel("said", None, "lobby")
        for member in pair.ada:
            await member.client.expect("said")
        with spans.begun():
            await pair.nodes[0].service.write_channel("then", None, "lobby")
        await spans.some(DELIVER, 2)
        assert len(spans.all(PUBLISH)) == 1

    @pytest.mark.parametrize("carried", ["rubbish", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ü" * 1000, "00-1-1-1"])
    async def test_a_trace_that_is_none_harms_nobody(self, pair: Pair, spans: Spans, carried: str) -> None:
        """Whoever wrote it to Redis: the message is delivered, and nothing is spanned."""
        spans.forget()
        payload = b'{"channel":"lobby","cmd":"said","param":null}'
        await pair.redis.command("PUBLISH", "gateway:channel:lobby", msgpack.packb([payload, [], None, carried]))
        for member in pair.ada:
            await member.client.expect("said")
        assert spans.all() == []

    async def test_nodes_without_tracing_pass_the_message_on(
        self, pair: Pair, spans: Spans, start_node: Callable[..., Awaitable[Node]], connect: Clients
    ) -> None:
        """While a cluster is being switched over."""
        node = await start_node(pair.redis)
        client = await connect(node, "lobby", protocols=["gateway.v1.json"])
        await client.expect("$welcome")
        await pair.nodes[0].service.write_channel("said", 1, "lobby", exclude=[pair.ada[0].id])
        assert (await client.expect("said"))["param"] == 1


class TestClients:
    async def test_a_handshake_continues_the_trace_of_the_client(self, pair: Pair, spans: Spans) -> None:
        """As its `traceparent` says; each command is a trace of its own, with a link to it."""
        spans.forget()
        member = await pair.nodes[0].connect(
            pair._clients, "lobby", headers={"Traceparent": f"00-{TRACE}-{PARENT}-01"}, protocols=["gateway.v1.json"]
        )
        await member.client.request("$leave", channel="lobby")
        handshake, command = await spans.one(HANDSHAKE), await spans.one(COMMAND)
        assert handshake.parent is not None
        assert (f"{trace_of(handshake):032x}", f"{handshake.parent.span_id:016x}") == (TRACE, PARENT)
        assert handshake.attributes is not None
        assert handshake.attributes["gateway.connection"] == member.id
        assert handshake.attributes["url.path"] == "/connect"
        assert command.parent is None
        assert [link.context for link in command.links] == [handshake.context]

    async def test_no_token_reaches_a_trace(self, pair: Pair, spans: Spans) -> None:
        """Which may stand in the address, and in headers."""
        url = pair.nodes[0].ws_url("lobby") + "&token=hunter2"
        await pair._clients(url, headers={"Authorization": "Bearer hunter2", "Cookie": "gateway_token=hunter2"})
        assert all("hunter2" not in span.to_json() for span in await spans.some(HANDSHAKE, 3))

    async def test_a_refused_handshake_is_no_error_of_ours(self, pair: Pair, spans: Spans) -> None:
        """Its status tells what it was."""
        spans.forget()
        headers = {"Origin": "https://elsewhere.example"}
        assert (await http.get(pair.nodes[0].url("/connect"), headers=headers)).status == 403
        handshake = await spans.one(HANDSHAKE)
        assert handshake.attributes is not None
        assert handshake.attributes["http.response.status_code"] == 403
        assert handshake.status.status_code is StatusCode.UNSET

    @pytest.mark.parametrize(
        ("cmd", "kind", "status"),
        [
            ("refuse", "internal", StatusCode.UNSET),
            ("$nonsense", "unknown-command", StatusCode.UNSET),
            ("fail", "RuntimeError", StatusCode.ERROR),
        ],
    )
    async def test_a_command_that_fails_says_how(
        self, pair: Pair, spans: Spans, cmd: str, kind: str, status: StatusCode
    ) -> None:
        """What is refused is no error; what the handler raised is, with its traceback."""
        spans.forget()
        await pair.ada[0].client.request(cmd)
        command = await spans.one(COMMAND)
        assert command.attributes is not None
        assert (command.attributes["error.type"], command.status.status_code) == (kind, status)
        assert [event.name for event in command.events] == ["exception"] * (status is StatusCode.ERROR)


class TestProducers:
    @pytest.mark.parametrize("kind", ["async", "sync"])
    async def test_the_trace_of_a_publisher_goes_on_at_the_nodes(self, pair: Pair, spans: Spans, kind: str) -> None:
        """From the thread that calls it, too."""
        spans.forget()

        def write() -> None:
            with SyncPublisher(pair.redis.url, tracing=True) as publisher:
                publisher.write_channel("said", None, "lobby")
                publisher.write_connection("said", None, pair.ada[1].id)

        with spans.begun():
            if kind == "sync":
                await asyncio.to_thread(write)
            else:
                async with Publisher(pair.redis.url, tracing=True) as publisher:
                    await publisher.write_channel("said", None, "lobby")
                    await publisher.write_connection("said", None, pair.ada[1].id)
        application = await spans.one("application")
        assert all(is_child(publish, application) for publish in await spans.some(PUBLISH, 2))
        assert {trace_of(delivery) for delivery in await spans.some(DELIVER, 3)} == {trace_of(application)}

    async def test_the_trace_of_a_request_to_the_api_goes_on(
        self, pair: Pair, start_node: Callable[..., Awaitable[Node]], spans: Spans
    ) -> None:
        """As its `traceparent` says."""
        node = await start_node(pair.redis, tracing=True, api_key="key", handler="tests.handlers.traced:handler")
        spans.forget()
        headers = {"Authorization": "Bearer key", "Traceparent": f"00-{TRACE}-{PARENT}-01"}
        answer = await http.request(
            "POST", node.url("/api/channels/lobby/messages"), headers=headers, json={"cmd": "said"}
        )
        assert answer.status == 202
        assert {f"{trace_of(delivery):032x}" for delivery in await spans.some(DELIVER, 2)} == {TRACE}
        publish = await eventually(lambda: printed(node, PUBLISH))
        assert publish[0]["parent_id"] == f"0x{PARENT}"


class TestProcesses:
    async def test_a_trace_crosses_processes(
        self, redis: RedisServer, start_nodes: Callable[..., Awaitable[Any]], connect: Clients
    ) -> None:
        """Each of two nodes exports its part, as their own OpenTelemetry is set up to."""
        nodes = await start_nodes(2, redis, tracing=True, handler="tests.handlers.traced:handler")
        options: dict[str, Any] = {
            "protocols": ["gateway.v1.json"],
            "headers": {"Traceparent": f"00-{TRACE}-{PARENT}-01"},
        }
        clients = [await connect(node, "lobby", **options) for node in nodes]
        for client in clients:
            await client.expect("$welcome")
        await clients[0].send("ping")
        for client in clients:
            await client.expect("pong")
        (handshake,) = await eventually(lambda: printed(nodes[0], HANDSHAKE))
        assert (handshake["context"]["trace_id"], handshake["parent_id"]) == (f"0x{TRACE}", f"0x{PARENT}")
        (command,) = await eventually(lambda: printed(nodes[0], COMMAND))
        (there,) = await eventually(lambda: printed(nodes[1], DELIVER))
        assert there["context"]["trace_id"] == command["context"]["trace_id"] != handshake["context"]["trace_id"]
        assert there["attributes"]["gateway.node"] == nodes[1].id


class TestOff:
    async def test_nothing_is_imported_or_carried_unless_it_is_wanted(self) -> None:
        """What travels is one part, and what knows OpenTelemetry is not there (redis-py imports it by itself)."""
        program = """
import sys
from gateway import Settings
from gateway.protocol.envelope import Envelope, pack
from gateway.node.service import NodeService
NodeService(Settings())
assert "gateway.operations.tracing.spans" not in sys.modules
print(len(pack(Envelope(b"x"))))
"""
        assert await output_of([sys.executable, "-c", program]) == "4"

    async def test_without_opentelemetry_it_is_one_line_and_2(self, tmp_path: Path) -> None:
        """Which says what to install."""
        (tmp_path / "opentelemetry.py").write_text("raise ModuleNotFoundError('there is none')\n")
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        process = gateway("serve", "--port", "0", "--tracing", "true", environment={"PYTHONPATH": path})
        try:
            process.start()
            assert await process.wait(deadline=30) == 2
            assert process.output == (
                "gateway: tracing: expected OpenTelemetry, which gateway[otel] installs: there is none\n"
            )
        finally:
            process.close()

    def test_so_it_is_for_a_publisher(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of either kind, when it is made."""
        monkeypatch.setitem(sys.modules, "gateway.operations.tracing.spans", None)
        for kind in (Publisher, SyncPublisher):
            with pytest.raises(InvalidSettings, match=r"gateway\[otel\]"):
                kind("redis://localhost", tracing=True)


def printed(node: Node, name: str) -> list[dict[str, Any]]:
    """Return the spans of a name that a node has printed."""
    lines = [line.removeprefix(SPAN) for line in node.output.splitlines() if line.startswith(SPAN)]
    return [span for span in map(json.loads, lines) if span["name"] == name]
