"""The ways in: every route that upgrades asks the one configured handler, and `/` leads to what there is."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urljoin

import pytest

from gateway import Settings
from gateway.config import Rule
from gateway.server.app import create_app
from gateway.server.running import running_node
from tests.handlers.guarded import Guarded
from tests.harness import http
from tests.harness.client import Clients
from tests.harness.embedded import Embedded
from tests.harness.node import Node
from tests.harness.wire import Wires

V1 = ["gateway.v1.json"]
HANDLERS = {"guarded:Guarded": {"/connect", "/example/socket"}, "answering:Answering": {"/connect"}}
"""What asks the application's handler, where that is a demo and where it is none."""


def settings(handler: str, **fields: object) -> Settings:
    """Settings of a node with a handler of the tests; nobody is an operator there."""
    return Settings.model_validate(
        {"port": 0, "handler": f"tests.handlers.{handler}", "admin_password": "secret", **fields}
    )


def paths(node: Settings) -> list[str]:
    """Every path that a node answers, with some name where one may choose it."""
    resources = [resource.canonical for resource in create_app(node).router.resources()]
    return [re.sub(r"{[^}]*}", "name", path) for path in (*resources, "/admin/websocket/socket")]


@asynccontextmanager
async def shaking(node: Settings, wire: Wires) -> AsyncIterator[Callable[..., Awaitable[int]]]:
    """Run a node; yield what asks it for an upgrade at a path and returns the status."""
    async with running_node(node) as (address, *_):

        async def status(path: str, query: str, **headers: str) -> int:
            client = await wire.open(f"{address.replace('http', 'ws', 1)}{path}?{query}")
            await client.write(client.upgrade(headers=headers))
            return (await client.read_head()).status

        yield status


@pytest.mark.parametrize("handler", HANDLERS)
async def test_every_route_that_upgrades_asks_the_one_handler(wire: Wires, handler: str) -> None:
    """None lets in whom that does not know, or into a channel where it does not want them; whatever the way in."""
    node = settings(handler, channels=[{"match": "closed", "join": "nobody"}])
    async with shaking(node, wire) as status:
        let_in = {path for path in paths(node) if await status(path, "as=ada&ch=tea") == 101}
        assert let_in == HANDLERS[handler]
        unknown = 401 if handler.startswith("guarded") else 101
        for path in let_in:
            for headers in ({}, {"Content-Length": "0"}):  # which does not go the short way
                assert await status(path, "as=nobody", **headers) == unknown
                assert await status(path, "as=ada&ch=tea&ch=secret-1", **headers) == (403 if unknown == 401 else 101)
                assert await status(path, "as=ada&ch=closed", **headers) == 403


@pytest.mark.parametrize("path", ["/example", "/example/socket"])
async def test_the_demo_is_there_while_it_is_the_handler(start_node: Callable[..., Awaitable[Node]], path: str) -> None:
    """A node with another one has no page that talks to nobody, and no word of it."""
    node = await start_node(handler="answering:Answering")
    assert (await node.get(path)).status == 404
    assert "example" not in node.output
    assert "example" not in (await node.get("/")).text


async def test_the_demo_of_an_application_answers_on_its_page_too(connect: Clients) -> None:
    """With what a class of the application's own makes of it."""
    async with running_node(settings("sessions:Sessions")) as (address, *_):
        client = await connect(address.replace("http", "ws", 1) + "/example/socket?ch=tea", protocols=V1)
        assert (await client.request("draw-in", "side"))["param"] is True
        assert (await client.request("hello", None, "tea"))["cmd"] == "$reply"


async def test_names_are_not_told_where_presence_is_not(connect: Clients) -> None:
    """What the demo's page asks for is a reading of presence as well."""
    async with running_node(settings("named:Named", channels=[Rule(match="*", presence=False)])) as (address, *_):
        client = await connect(address.replace("http", "ws", 1) + "/example/socket?ch=tea&name=Ada", protocols=V1)
        assert (await client.request("hello", None, "tea"))["param"] == {"people": {}}


async def test_an_application_s_own_route_decides_who_comes_and_its_handler_what_he_may(connect: Clients) -> None:
    """`upgrade` asks nobody about its own channel; what the client asks for afterwards is asked."""
    node = Embedded("memory://", handler=Guarded())
    await node.start()
    try:
        member = await node.connect(connect, "secret-1", protocols=V1)
        assert (await member.client.expect("$welcome"))["param"]["channels"] == ["secret-1"]
        for cmd, param, channel in (
            ("$join", None, "secret-2"),
            ("join-room", {"room": "secret-2"}, None),
            ("ping", None, "quiet-1"),
        ):
            assert (await member.client.request(cmd, param, channel))["param"]["code"] == "forbidden"
    finally:
        await connect.close()
        await node.stop()


LINK = re.compile(r'href="([^"]+)"|src="([^"]+)"')


@pytest.mark.parametrize(
    ("fields", "there", "missing"),
    [
        ({}, {"/example"}, {"/admin/websocket"}),
        ({"admin_password": "secret"}, {"/example", "/admin/websocket"}, set()),
        ({"handler": "tests.handlers.answering:Answering"}, set(), {"/example", "/admin/websocket"}),
        ({"host": "0.0.0.0"}, {"/example"}, {"/admin/websocket"}),
        ({"host": "0.0.0.0", "admin_password": "secret"}, {"/example", "/admin/websocket"}, set()),
    ],
    ids=["demo", "demo-password", "handler", "world", "world-password"],
)
async def test_the_root_leads_to_what_the_node_serves(
    fields: dict[str, str], there: set[str], missing: set[str]
) -> None:
    """And to nothing that it does not; its policy lets in what it needs, and no more."""
    async with running_node(Settings.model_validate({"port": 0, **fields})) as (address, service, *_):
        address = address.replace("0.0.0.0", "127.0.0.1")
        page = await http.get(f"{address}/")
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self'")
        assert service.node_id in page.text
        assert not re.search(r"<script|style=|\son\w+=|//", page.text.replace("<!doctype html>", ""))
        links = {urljoin("/", one or other) for one, other in LINK.findall(page.text)}
        assert links >= there | {"/metrics", "/healthz", "/readyz", "/api/openapi.json"}
        assert not links & missing
        for link in links:
            assert (await http.get(f"{address}{link}")).status in (200, 302), link
