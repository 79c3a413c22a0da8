"""Who is let in: everything that is refused before the upgrade, and what a handler has to say about it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.handlers.guarded import CATASTROPHES
from tests.harness import http
from tests.harness.client import Clients
from tests.harness.node import Node, Nodes, lasting
from tests.harness.wire import Head, Wires

V1 = ["gateway.v1.json"]


@pytest.fixture(scope="module")
def _guarded() -> Iterator[Nodes]:
    with lasting(Nodes(1, handler="guarded:Guarded")) as nodes:
        yield nodes


@pytest.fixture
def node(_guarded: Nodes) -> Node:
    """A node whose handler is `guarded`; it lives as long as the module."""
    _guarded[0].process.assert_running()
    return _guarded[0]


async def upgrade(wire: Wires, url: str, **headers: str) -> Head:
    """Ask for an upgrade, with headers replaced or, when empty, left out; return the answer."""
    client = await wire.open(url)
    await client.write(client.upgrade(headers={name.replace("_", "-"): value for name, value in headers.items()}))
    return await client.read_head()


class TestHandshake:
    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({}, 101),
            ({"Connection": "keep-alive, Upgrade"}, 101),
            ({"Upgrade": "WebSocket"}, 101),
            ({"Upgrade": ""}, 426),
            ({"Upgrade": "h2c"}, 426),
            ({"Connection": "keep-alive"}, 426),
            ({"Connection": ""}, 426),
            ({"Sec_WebSocket_Version": "8"}, 426),
            ({"Sec_WebSocket_Version": ""}, 426),
            ({"Sec_WebSocket_Key": ""}, 400),
            ({"Sec_WebSocket_Key": "short"}, 400),
            ({"Sec_WebSocket_Key": "!" * 24}, 400),
        ],
        ids=str,
    )
    async def test_a_handshake_is_as_rfc_6455_has_it(
        self, node: Node, wire: Wires, headers: dict[str, str], status: int
    ) -> None:
        """426 tells what this is and which version it speaks."""
        assert (await upgrade(wire, node.ws_url("lobby"), **headers)).status == status

    async def test_the_key_is_answered(self, node: Node, wire: Wires) -> None:
        """With the example of RFC 6455 section 1.3."""
        head = await upgrade(wire, node.ws_url(), Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==")
        assert head.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert "sec-websocket-protocol" not in head.headers
        assert "sec-websocket-extensions" not in head.headers

    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [
            ("gateway.v1.json", "gateway.v1.json"),
            ("gateway.v1.msgpack, gateway.v1.json", "gateway.v1.msgpack"),
            ("chat, gateway.v1.json", "gateway.v1.json"),
            ("chat", None),
            ("GATEWAY.V1.JSON", None),
        ],
    )
    async def test_the_first_subprotocol_that_is_known_is_chosen(
        self, node: Node, wire: Wires, offered: str, chosen: str | None
    ) -> None:
        """One that is not known is no reason to refuse: the client speaks the plain protocol then."""
        head = await upgrade(wire, node.ws_url(), Sec_WebSocket_Protocol=offered)
        assert (head.status, head.headers.get("sec-websocket-protocol")) == (101, chosen)

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
    async def test_other_methods_are_refused(self, node: Node, method: str) -> None:
        """405."""
        assert (await http.request(method, node.url("/connect"))).status == 405

    async def test_a_refusal_ends_the_connection(self, node: Node, wire: Wires) -> None:
        """It is an HTTP answer that says so, and comes whole: whoever tries again connects again."""
        client = await wire.open(node.ws_url())
        await client.write(client.upgrade(headers={"Sec-WebSocket-Version": "8"}))
        head = await client.read_head()
        assert head.headers["connection"] == "close"
        assert len(await client.read_end()) == int(head.headers["content-length"])


class TestChannels:
    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ("", 101),
            ("?ch=", 101),
            ("?ch=&ch=", 101),
            ("?ch=&ch=a&ch=", 101),
            ("?ch=a&ch=a", 101),
            ("?" + "&".join(f"ch=c{number}" for number in range(128)), 101),
            ("?" + "&".join(f"ch=c{number}" for number in range(129)), 400),
            ("?" + "&".join(["ch=same"] * 129), 101),
            ("?ch=" + "%C3%A9" * 100, 101),
            ("?ch=" + "%C3%A9" * 100 + "a", 400),
            ("?ch=a+b", 400),
            ("?ch=a%00", 400),
            ("?ch=%20", 400),
            ("?ch=%E2%80%83", 400),
            ("?ch=*", 400),
            ("?ch=%5B", 400),
            ("?ch=%5C", 400),
            ("?ch=ok&ch=a+b", 400),
        ],
        ids=lambda value: str(value)[:30],
    )
    async def test_bad_channels_and_too_many_are_400(self, node: Node, wire: Wires, query: str, status: int) -> None:
        """An empty one counts as none, and one that is named twice counts once."""
        assert (await upgrade(wire, node.ws_url() + query)).status == status

    @pytest.mark.parametrize(
        ("query", "named"),
        [
            ("?ch=%ff", "ch"),
            ("?ch=%ed%a0%bd", "ch"),
            ("?ch=lobby&ch=a%C3", "ch"),
            ("?name=%ed%a0%bd", "name"),
            ("?ch=lobby&token=%ff", "token"),
            ("?ch=lobby&%ff=1", r"\xff"),
            ("?else=%80", "else"),
            ("?%0d%0aname=%80", r"\r\nname"),
        ],
    )
    async def test_what_is_not_utf_8_is_400(self, node: Node, wire: Wires, query: str, named: str) -> None:
        """And never a name with U+FFFD in it, the same for all who meant different ones."""
        client = await wire.open(node.ws_url() + query)
        await client.write(client.upgrade())
        head = await client.read_head()
        assert head.status == 400
        body = await client.read_exactly(int(head.headers["content-length"]))
        assert body.decode() == f"{named}: expected UTF-8, percent-encoded\n"

    @pytest.mark.parametrize("path", ["/example?ch=%ff", "/example/socket?ch=%ff"])
    async def test_what_is_not_utf_8_is_400_on_the_demo_s_page_too(self, nodes: Nodes, wire: Wires, path: str) -> None:
        """Which would show a room that nobody meant."""
        client = await wire.open(nodes[0])
        await client.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (await client.read_head()).status == 400

    async def test_what_is_utf_8_is_taken(self, node: Node, connect: Clients) -> None:
        """U+FFFD itself, a percent sign that begins no byte, a character that a proxy has decoded."""
        for query, name in (("%EF%BF%BD", "\ufffd"), ("100%", "100%"), ("%zz", "%zz"), ("%F0%9F%98%80", "\U0001f600")):
            client = await connect(f"{node.ws_url()}?ch={query}", protocols=V1)
            assert (await client.expect("$welcome"))["param"]["channels"] == [name]

    async def test_an_empty_channel_is_not_joined(self, node: Node, connect: Clients) -> None:
        """Who names no other is in none."""
        client = await connect(node, "", "", protocols=V1)
        assert (await client.expect("$welcome"))["param"]["channels"] == []

    async def test_channels_are_joined_in_the_order_named(self, node: Node, connect: Clients) -> None:
        """Each once; the first is the connection's own."""
        client = await connect(node, "b", "", "a", "b", protocols=V1)
        assert (await client.expect("$welcome"))["param"]["channels"] == ["b", "a"]
        await client.send("ping")
        assert (await client.expect("pong"))["channel"] == "b"

    async def test_the_demo_s_socket_finds_a_channel_by_itself(self, node: Node, connect: Clients) -> None:
        """`example-` and eight random letters, unless one is named."""
        found = set()
        for _ in range(3):
            client = await connect(node, path="/example/socket", protocols=V1)
            [channel] = (await client.expect("$welcome"))["param"]["channels"]
            kind, _, letters = channel.partition("-")
            assert (kind, len(letters), letters.isalpha(), letters.islower()) == ("example", 8, True, True)
            found.add(channel)
        assert len(found) == 3
        client = await connect(node, "tea", path="/example/socket", protocols=V1)
        assert (await client.expect("$welcome"))["param"]["channels"] == ["tea"]


class TestOrigin:
    async def test_a_page_of_this_site_may_connect(self, node: Node, wire: Wires) -> None:
        """And whoever is no page."""
        assert (await upgrade(wire, node.ws_url(), Origin=node.url("").rstrip("/"))).status == 101
        assert (await upgrade(wire, node.ws_url())).status == 101

    @pytest.mark.parametrize(
        "origin",
        [
            "https://evil.example",
            "null",
            "http://127.0.0.1",
            "http://127.0.0.1:1",
            "http://localhost:{port}",
            "garbage",
        ],
    )
    async def test_a_page_of_another_site_is_403(self, node: Node, wire: Wires, origin: str) -> None:
        """Host and port must be the same."""
        head = await upgrade(wire, node.ws_url(), Origin=origin.format(port=node.port))
        assert head.status == 403

    @pytest.mark.parametrize("path", ["/connect", "/example/socket"])
    @pytest.mark.parametrize(
        ("headers", "status"),
        [({"Origin": "https://evil.example"}, 403), ({"Sec_WebSocket_Protocol": "gateway.token.x"}, 400)],
        ids=["foreign", "lone token"],
    )
    async def test_the_handler_is_not_asked_about_a_foreign_page(
        self, node: Node, wire: Wires, path: str, headers: dict[str, str], status: int
    ) -> None:
        """Nor about a token that stands alone: `authenticate` would not know who it is, or fail."""
        for who in ("nobody", *CATASTROPHES):
            assert (await upgrade(wire, node.url(f"{path}?as={who}"), **headers)).status == status

    async def test_other_sites_may_be_allowed(self, start_node, wire: Wires) -> None:
        """By name."""
        node = await start_node(allowed_origins=["https://a.example", "https://b.example"])
        for origin, status in (
            ("https://a.example", 101),
            ("https://b.example", 101),
            ("http://a.example", 403),
            ("https://a.example.evil", 403),
            ("https://c.example", 403),
        ):
            assert (await upgrade(wire, node.ws_url(), Origin=origin)).status == status, origin

    async def test_operators_are_told_what_no_browser_tells_its_page(self, start_node, wire: Wires) -> None:
        """In the log, and by a count for each status."""
        node = await start_node(jwt_secret="0123456789abcdef0123456789abcdef")
        assert (await upgrade(wire, node.ws_url(), Origin="https://a\x01.example")).status in (400, 403)
        assert (await upgrade(wire, node.ws_url(), Origin="https://a.example")).status == 403
        assert (await upgrade(wire, node.ws_url() + "?token=not.a.token")).status == 401
        lines = [line for line in node.output.splitlines() if " refused: " in line]
        assert any("remote=127.0.0.1 status=403 " in line and "https://a.example" in line for line in lines)
        assert any("status=401 " in line and "Web Token" in line for line in lines)
        assert "not.a.token" not in node.output
        metrics = (await node.get("/metrics")).text
        assert 'gateway_connections_refused_total{status="401"} 1.0' in metrics

    async def test_all_sites_may_be_allowed(self, start_node, wire: Wires) -> None:
        """`*` is any."""
        node = await start_node(allowed_origins="*")
        assert (await upgrade(wire, node.ws_url(), Origin="https://a.example")).status == 101


class TestHandler:
    async def test_who_is_not_known_is_401(self, node: Node, wire: Wires) -> None:
        """`authenticate` returned None."""
        assert (await upgrade(wire, node.ws_url("lobby", **{"as": "nobody"}))).status == 401

    async def test_who_is_known_is_who_they_are(self, node: Node, connect: Clients) -> None:
        """The profile is the connection's."""
        client = await connect(node.ws_url("lobby", **{"as": "ada"}), protocols=V1)
        assert (await client.expect("$welcome"))["param"]["user"] == "ada"

    async def test_an_illegal_user_id_is_refused(self, node: Node, wire: Wires) -> None:
        """A handler's profile is checked like everybody's."""
        assert (await upgrade(wire, node.ws_url(**{"as": "a b"}))).status in (400, 401)

    @pytest.mark.parametrize("channels", [["secret-1"], ["lobby", "secret-1"]], ids=str)
    async def test_a_channel_that_may_not_be_joined_is_403(self, node: Node, wire: Wires, channels: list[str]) -> None:
        """Before the upgrade, for all of them."""
        assert (await upgrade(wire, node.ws_url(*channels))).status == 403

    async def test_a_channel_that_may_not_be_joined_later_is_forbidden(self, node: Node, connect: Clients) -> None:
        """`$join` asks the handler too."""
        client = await connect(node, "lobby", protocols=V1)
        assert (await client.request("$join", channel="secret-1"))["param"]["code"] == "forbidden"
        assert (await client.request("$join", channel="open-1"))["cmd"] == "$reply"

    async def test_a_channel_that_may_not_be_sent_to_is_forbidden(self, node: Node, connect: Clients) -> None:
        """Named, or the connection's own; the connection stays."""
        client = await connect(node, "quiet-1", "loud-1")
        for channel in ("quiet-1", "quiet-2", None):
            await client.send("ping", channel=channel, id="r1")
            assert (await client.expect("$error", id="r1"))["param"]["code"] == "forbidden"
        await client.send("ping", channel="loud-1")
        await client.expect("pong", channel="loud-1")

    @pytest.mark.parametrize("how", CATASTROPHES)
    async def test_whatever_authenticate_raises_harms_nobody(
        self, node: Node, wire: Wires, connect: Clients, how: str
    ) -> None:
        """The client is told of an internal error, without details; the node lives."""
        bystander = await connect(node, "lobby")
        client = await wire.open(node.ws_url("lobby", **{"as": how}))
        await client.write(client.upgrade())
        head = await client.read_head()
        assert head.status == 500
        assert b"secret" not in await client.read_exactly(int(head.headers["content-length"]))
        await bystander.send("ping")
        await bystander.expect("pong")
        node.process.assert_running()

    @pytest.mark.parametrize("how", CATASTROPHES)
    async def test_whatever_authorize_raises_harms_nobody(
        self, node: Node, wire: Wires, connect: Clients, how: str
    ) -> None:
        """Before the upgrade 500, afterwards `internal`; the node lives."""
        assert (await upgrade(wire, node.ws_url(f"broken-{how}"))).status == 500
        client = await connect(node, "lobby")
        await client.send("ping", channel=f"broken-{how}", id="r1")
        error = await client.expect("$error", id="r1")
        assert error["param"]["code"] == "internal"
        assert "secret" not in error["param"]["message"]
        await client.send("ping")
        await client.expect("pong")
        node.process.assert_running()

    async def test_a_refusal_of_the_gateway_s_own_is_told_as_such(self, node: Node, wire: Wires) -> None:
        """`authenticate` may raise `Forbidden`: 403."""
        assert (await upgrade(wire, node.ws_url(**{"as": "banned"}))).status == 403


class TestPages:
    async def test_health_is_told(self, node: Node) -> None:
        """200 while the event loop turns."""
        answer = await node.get("/healthz")
        assert (answer.status, answer.json["status"]) == (200, "ok")

    @pytest.mark.parametrize("name", ["gateway.js", "gateway.mjs", "gateway.d.ts"])
    async def test_the_browser_client_is_served(self, node: Node, name: str) -> None:
        """The script as a script, which browsers insist on."""
        answer = await node.get(f"/static/{name}")
        assert answer.status == 200
        assert answer.body
        assert name.endswith(".ts") or "javascript" in answer.headers["Content-Type"]

    async def test_the_demo_page_is_served(self, node: Node) -> None:
        """With a policy that lets nothing foreign in."""
        answer = await node.get("/example?ch=%3Cscript%3E")
        assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (200, "text/html")
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert "<script>" not in answer.text.partition("</head>")[2]

    @pytest.mark.parametrize(
        "path", ["/nothing", "/static/", "/static/../chat.py", "/static/%2e%2e/chat.py", "/static"]
    )
    async def test_what_is_not_there_is_not_served(self, node: Node, path: str) -> None:
        """Nothing outside of the static files, and no list of them."""
        assert (await node.get(path)).status in (403, 404)
