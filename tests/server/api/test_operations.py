"""The server API on two real nodes: every operation, every refusal, hostile names, trouble with Redis."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import ClientSession, ClientTimeout
from yarl import URL

from gateway.config import load
from gateway.errors import InvalidSettings
from tests.harness.client import Client, Clients
from tests.harness.http import Answer
from tests.harness.node import Node, Nodes
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually
from tests.harness.wire import Wires

KEY = "a-key/with+signs=="
BEARER = {"Authorization": f"Bearer {KEY}"}
V1 = ["gateway.v1.json"]
RULES = [{"match": "kept-*", "history": 50}]
LARGEST = 2000

HOSTILE = [
    "a/b",
    "../up",
    "..%2f%2e",
    "100%",
    "a%2Fb",
    "a+b&c=d",
    "q#x=1&y",
    "<script>alert(1)</script>",
    "';DROP--",
    "Zoë-\U0001f600-ß",
    "x" * 200,
    "~tilde~",
    "a;b,c:d@e",
    '"quoted"',
]


class Caller:
    """Asks the API of a node."""

    def __init__(self, session: ClientSession, node: Node) -> None:
        self.session = session
        self.node = node

    async def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """Send a request as it stands, with the key; a body that is a dict as JSON."""
        options.setdefault("headers", BEARER)
        if body is not None:
            options["data"] = json.dumps(body).encode() if isinstance(body, dict) else body
        url = URL(self.node.url(path), encoded=True)
        async with self.session.request(method, url, timeout=ClientTimeout(total=20), **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def good(self, method: str, path: str, body: Any = None, status: int = 200, **options: Any) -> Any:
        """Return the JSON of an answer that must have this status."""
        answer = await self(method, path, body, **options)
        assert answer.status == status, answer
        assert status == 204 or answer.headers["Content-Type"].startswith("application/json")
        return answer.json if answer.body else None

    async def bad(self, status: int, method: str, path: str, body: Any = None, **options: Any) -> dict[str, Any]:
        """Return the problem document of an answer that must have this status."""
        return problem(await self(method, path, body, **options), status)


def problem(answer: Answer, status: int) -> dict[str, Any]:
    """Check that an answer is a problem document of this status, and return it."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    said = answer.json
    assert said["status"] == status
    assert said["type"] == "about:blank"
    assert said["title"]
    assert said["detail"]
    assert said.keys() <= {"type", "title", "status", "detail", "code", "field"}
    return dict(said)


def path(*parts: str) -> str:
    """Make a path under /api of parts that are quoted in full."""
    return "/".join(["/api", *(quote(part, safe="") for part in parts)])


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    """Send a body without telling its length."""
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


async def id_of(client: Client) -> str:
    return str((await client.expect("$welcome"))["param"]["connection"])


@pytest.fixture(scope="module")
def _pair() -> Iterator[Nodes]:
    from tests.conftest import _run
    from tests.harness.redis import RedisServer

    server = RedisServer()
    nodes = Nodes(2, server, api_key=KEY, handler="named:Named", channels=RULES, max_message_bytes=LARGEST)
    try:
        _run(server.start())
        _run(nodes.start())
        yield nodes
    finally:
        nodes.close()
        server.close()


@pytest.fixture
async def pair(_pair: Nodes) -> Nodes:
    """Two nodes with an API key, that live as long as the module; nobody of the test before is connected any more."""
    for node in _pair:
        node.process.assert_running()

    async def is_empty() -> bool:
        return not await _pair.redis.command("EXISTS", "gateway:channels", "gateway:users")

    await eventually(is_empty)
    return _pair


@pytest.fixture
async def callers(pair: Nodes, session: ClientSession) -> list[Caller]:
    """One caller for each node."""
    return [Caller(session, node) for node in pair]


@pytest.fixture
async def api(callers: list[Caller]) -> Caller:
    """The caller of the first node."""
    return callers[0]


class TestWriting:
    async def test_to_a_channel(self, pair: Nodes, callers: list[Caller], connect: Clients) -> None:
        """Every member on every node gets it, but those excluded; the sender is who the caller says."""
        members = [await connect(node.ws_url("lobby"), protocols=V1) for node in pair]
        ids = [await id_of(member) for member in members]
        for caller, skipped in zip(callers, ids, strict=True):
            body = {"cmd": "chat", "param": {"text": "hi"}, "from": "ada", "exclude": [skipped]}
            assert await caller.good("POST", "/api/channels/lobby/messages", body, 202) == {}
        assert await caller.good("POST", "/api/channels/lobby/messages", {"cmd": "end"}, 202) == {}
        for member in members:
            expected = {"channel": "lobby", "cmd": "chat", "param": {"text": "hi"}, "from": "ada"}
            assert await member.expect("chat") == expected
            assert await member.expect("end") == {"channel": "lobby", "cmd": "end", "param": None}
            await member.expect_nothing_but("online-update")

    async def test_to_a_channel_with_history(self, api: Caller) -> None:
        """The answer says where the message stands."""
        first = await api.good("POST", "/api/channels/kept-1/messages", {"cmd": "a"}, 202)
        second = await api.good("POST", "/api/channels/kept-1/messages", {"cmd": "b"}, 202)
        assert (second["epoch"], second["offset"]) == (first["epoch"], first["offset"] + 1)

    async def test_to_a_user(self, pair: Nodes, api: Caller, connect: Clients) -> None:
        """On every node; one who is offline is no error."""
        tabs = [await connect(node.ws_url("lobby", user="ada"), protocols=V1) for node in pair]
        for tab in tabs:
            await id_of(tab)
        assert await api.good("POST", "/api/users/ada/messages", {"cmd": "psst", "param": [1]}, 202) == {}
        for tab in tabs:
            assert (await tab.expect("psst"))["param"] == [1]
        assert await api.good("POST", "/api/users/nobody/messages", {"cmd": "psst"}, 202) == {}

    async def test_to_a_connection(self, pair: Nodes, callers: list[Caller], connect: Clients) -> None:
        """Whichever node holds it; an unknown one is 404. As a user, an anonymous one is its id."""
        client = await connect(pair[1].ws_url(), protocols=V1)
        id = await id_of(client)
        for caller in callers:
            await caller.good("POST", path("connections", id, "messages"), {"cmd": "psst", "from": "ada"}, 202)
            assert (await client.expect("psst"))["from"] == "ada"
            await caller.good("POST", path("users", id, "messages"), {"cmd": "anonymous"}, 202)
            await client.expect("anonymous")
            for unknown in (f"{id}x", "nowhere~1", "nothing", f"{caller.node.id}~1"):
                await caller.bad(404, "POST", path("connections", unknown, "messages"), {"cmd": "psst"})

    async def test_to_everyone(self, pair: Nodes, api: Caller, connect: Clients) -> None:
        """But those excluded."""
        clients = [await connect(node.ws_url(), protocols=V1) for node in pair]
        ids = [await id_of(client) for client in clients]
        await api.good("POST", "/api/messages", {"cmd": "news", "exclude": ids[:1]}, 202)
        await api.good("POST", "/api/messages", {"cmd": "end"}, 202)
        await clients[1].expect("news")
        await clients[0].expect("end")
        await clients[0].expect_nothing_but()

    @pytest.mark.parametrize("param", [None, 0, "", [], {}, [[[]]], 1e300, {"ключ": "\u2028</script>\x00"}])
    async def test_param_is_any_json(self, param: Any, pair: Nodes, api: Caller, connect: Clients) -> None:
        client = await connect(pair[1].ws_url("lobby"), protocols=V1)
        await id_of(client)
        await api.good("POST", "/api/channels/lobby/messages", {"cmd": "x", "param": param}, 202)
        assert (await client.expect("x"))["param"] == param


class TestNames:
    @pytest.mark.parametrize("name", HOSTILE, ids=ascii)
    async def test_hostile_names_are_names(
        self, name: str, pair: Nodes, callers: list[Caller], connect: Clients
    ) -> None:
        """In paths they are percent-encoded, in queries too; what comes back is what went in."""
        client = await connect(pair[1].ws_url(user=name), name, protocols=V1)
        id = await id_of(client)
        for caller in callers:
            await caller.good("POST", path("channels", name, "messages"), {"cmd": "to-channel"}, 202)
            assert (await client.expect("to-channel"))["channel"] == name
            await caller.good("POST", path("users", name, "messages"), {"cmd": "to-user", "from": name}, 202)
            assert (await client.expect("to-user"))["from"] == name
            detail = await caller.good("GET", path("channels", name))
            assert detail == {"name": name, "members": 1, "online": 1, "users": [name]}
            for filters in ({"channel": name}, {"user": name}, {"channel": name, "user": name}):
                query = "&".join(f"{key}={quote(value, safe='')}" for key, value in filters.items())
                (found,) = (await caller.good("GET", f"/api/connections?{query}"))["items"]
                assert (found["id"], found["user"], found["channels"]) == (id, name, [name])
            listed = await caller.good("GET", f"/api/channels?prefix={quote(name, safe='')}")
            assert listed["items"] == [{"name": name, "members": 1, "online": 1}]
            other = quote(f"{name[:-1]}!", safe="")
            joined = f"/api/connections/{quote(id, safe='')}/channels/{other}"
            assert await caller.good("PUT", joined) == {"created": True}
            assert await caller.good("DELETE", joined) == {"emptied": True}

    @pytest.mark.parametrize("name", ["%20", "a%20b", "%0A", "%C2%85", "%7B", "*", "%3F", "%5B", "%5C", "x" * 201])
    async def test_illegal_names_are_refused(self, name: str, api: Caller) -> None:
        """The problem names the field, and shows the name in plain ASCII."""
        for method, where, field, body in [
            ("POST", "channels/{}/messages", "channel", {"cmd": "x"}),
            ("POST", "users/{}/messages", "user", {"cmd": "x"}),
            ("GET", "channels/{}", "channel", None),
            ("GET", "channels/{}/history", "channel", None),
            ("PUT", "connections/x/channels/{}", "channel", None),
            ("DELETE", "connections/x/channels/{}", "channel", None),
            ("GET", "connections?channel={}", "channel", None),
            ("GET", "connections?user={}", "user", None),
            ("GET", "connections?node={}", "node", None),
        ]:
            said = await api.bad(400, method, f"/api/{where.format(name)}", body)
            assert said["field"] == field
            assert said["detail"].isascii()

    @pytest.mark.parametrize("name", ["%FF", "%C3", "%ED%A0%80", "%F8%88%80%80%80"])
    async def test_what_is_not_utf8_is_refused(self, name: str, api: Caller) -> None:
        said = await api.bad(400, "POST", f"/api/channels/{name}/messages", {"cmd": "x"})
        assert said["field"] == "channel"

    async def test_an_empty_name_is_no_path(self, api: Caller) -> None:
        await api.bad(404, "POST", "/api/channels//messages", {"cmd": "x"})


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "cmd"),
            ({"cmd": ""}, "cmd"),
            ({"cmd": None}, "cmd"),
            ({"cmd": 1}, "cmd"),
            ({"cmd": "x" * 129}, "cmd"),
            ({"cmd": "$left", "param": {"reason": "removed"}}, "cmd"),
            ({"cmd": "x", "parm": 1}, "parm"),
            ({"cmd": "x", "sender": "ada"}, "sender"),
            ({"cmd": "x", "channel": "lobby"}, "channel"),
            ({"cmd": "x", "from": 1}, "from"),
            ({"cmd": "x", "from": "a b"}, "from"),
            ({"cmd": "x", "from": ""}, "from"),
            ({"cmd": "x", "exclude": "a"}, "exclude"),
            ({"cmd": "x", "exclude": ["a", 1]}, "exclude.1"),
        ],
    )
    async def test_a_wrong_field_is_named(self, body: Any, field: str, api: Caller) -> None:
        """Unknown ones too: a slip of the pen must not pass for a message."""
        for where in ("/api/channels/lobby/messages", "/api/messages"):
            said = await api.bad(400, "POST", where, body)
            assert said["field"] == field
            assert field in said["detail"]

    @pytest.mark.parametrize("field", ["exclude", "x"])
    async def test_one_receiver_excludes_nobody(self, field: str, api: Caller) -> None:
        for where in ("/api/users/ada/messages", "/api/connections/x/messages"):
            assert (await api.bad(400, "POST", where, {"cmd": "x", field: []}))["field"] == field

    @pytest.mark.parametrize(
        "body",
        [
            *(b"", b"{", b"nonsense", b"\xff", b"[]", b"1", b'"x"', b"null", b"[" * 5000, b"\x00" * 100),
            *(b'{"cmd":"x","param":NaN}', b'{"cmd":"x","param":-9223372036854775809}', b'{"cmd":"x"}{"cmd":"x"}'),
        ],
    )
    async def test_what_is_no_json_object_is_refused(self, body: bytes, api: Caller) -> None:
        said = await api.bad(400, "POST", "/api/messages", body)
        assert "expected a JSON object" in said["detail"]

    async def test_size(self, api: Caller) -> None:
        """As large as a client's message may be, and a little for what is around it; no more, packed or not."""
        await api.good("POST", "/api/messages", {"cmd": "x", "param": "y" * LARGEST}, 202)
        packed = BEARER | {"Content-Encoding": "gzip"}
        for size in (LARGEST + 4097, 1_000_000, 10_000_000):
            body = json.dumps({"cmd": "x", "param": "y" * size}).encode()
            await api.bad(413, "POST", "/api/messages", io.BytesIO(body))
            await api.bad(413, "POST", "/api/messages", gzip.compress(body), headers=packed)
            await api.bad(413, "POST", "/api/messages", in_pieces(body))

    async def test_a_body_that_does_not_come_whole_harms_nobody(self, api: Caller, wire: Wires) -> None:
        """The connection ends in the middle; a chunk is none."""
        head = f"POST /api/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        for rest in ("Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\nzz\r\n"):
            half = await wire.open(api.node)
            await half.write((head + rest).encode())
            half.close()
        await api.good("GET", "/api/status")
        assert "Traceback" not in api.node.output


class TestLooking:
    async def test_status_counts_the_cluster(self, pair: Nodes, callers: list[Caller], connect: Clients) -> None:
        for node, user in zip([*pair, pair[0]], ["ada", "ada", ""], strict=True):
            await id_of(await connect(node.ws_url("lobby", user=user), protocols=V1))
        for caller in callers:
            status = await caller.good("GET", "/api/status")
            assert status == {
                "node": caller.node.id,
                "version": status["version"],
                "nodes": 2,
                "connections": 3,
                "channels": 1,
                "users": 1,
            }

    async def test_nodes(self, pair: Nodes, api: Caller) -> None:
        """By id, a page at a time."""
        both = (await api.good("GET", "/api/nodes"))["items"]
        assert [node["id"] for node in both] == sorted(node.id for node in pair)
        keys = {"id", "host", "version", "started", "connections", "channels", "ready"}
        assert all(node.keys() == keys and node["ready"] is True for node in both)
        first = await api.good("GET", "/api/nodes?limit=1")
        second = await api.good("GET", f"/api/nodes?limit=1&cursor={first['cursor']}")
        assert ([*first["items"], *second["items"]], second["cursor"]) == (both, None)

    async def test_connections(self, pair: Nodes, callers: list[Caller], connect: Clients) -> None:
        """In the order they came, from all nodes; filtered, sorted, paged, or one by itself."""
        clients = [
            await connect(node.ws_url(*channels, user=user, name=name), protocols=V1)
            for node, channels, user, name in [
                (pair[0], ["a", "b"], "ada", "Ada"),
                (pair[1], ["a"], "bob", "Bob"),
                (pair[1], [], "", "Zoë"),
            ]
        ]
        ids = [await id_of(client) for client in clients]
        for caller in callers:
            page = await caller.good("GET", "/api/connections")
            assert page.keys() == {"items", "cursor"}
            assert ([item["id"] for item in page["items"]], page["cursor"]) == (ids, None)
            first = page["items"][0]
            expected = {"id": ids[0], "node": pair[0].id, "user": "ada", "name": "Ada", "channels": ["a", "b"]}
            assert first == expected | {"started": first["started"], "remote": "127.0.0.1"}
            assert page["items"][2]["user"] == ids[2]
            for item in page["items"]:
                assert await caller.good("GET", path("connections", item["id"])) == item
            for query, found in [
                ("channel=a", ids[:2]),
                ("user=bob", ids[1:2]),
                (f"user={ids[2]}", ids[2:]),
                (f"node={pair[1].id}", ids[1:]),
                (f"node={pair[1].id}&channel=a", ids[1:2]),
                ("node=nowhere", []),
                ("text=zo%C3%AB", ids[2:]),
                ("sort=started&descending=true", ids[::-1]),
            ]:
                page = await caller.good("GET", f"/api/connections?{query}")
                assert [item["id"] for item in page["items"]] == found
            seen, cursor = [], ""
            while True:
                page = await caller.good("GET", f"/api/connections?limit=1{cursor}")
                seen += [item["id"] for item in page["items"]]
                if page["cursor"] is None:
                    break
                cursor = f"&cursor={page['cursor']}"
            assert seen == ids

    async def test_channels(self, pair: Nodes, callers: list[Caller], connect: Clients) -> None:
        """Counts of members and of users online; one by itself also names the users."""
        for node, channels, user in [(pair[0], ["a", "b"], "ada"), (pair[1], ["a"], "ada"), (pair[1], ["a"], "bob")]:
            await id_of(await connect(node.ws_url(*channels, user=user), protocols=V1))
        a, b = {"name": "a", "members": 3, "online": 2}, {"name": "b", "members": 1, "online": 1}
        for caller in callers:
            assert await caller.good("GET", "/api/channels") == {"items": [a, b], "cursor": None}
            assert (await caller.good("GET", "/api/channels?prefix=b"))["items"] == [b]
            first = await caller.good("GET", "/api/channels?limit=1&sort=members")
            rest = await caller.good("GET", f"/api/channels?limit=1&sort=members&cursor={first['cursor']}")
            assert ([*first["items"], *rest["items"]], rest["cursor"]) == ([a, b], None)
            assert await caller.good("GET", "/api/channels/a") == a | {"users": ["ada", "bob"]}
            await caller.bad(404, "GET", "/api/channels/nobody")

    async def test_history(self, callers: list[Caller]) -> None:
        """The newest messages, oldest first; the cursor leads to those before."""
        for number in range(6):
            await callers[0].good("POST", "/api/channels/kept-2/messages", {"cmd": "n", "param": number}, 202)
        body = {"cmd": "n", "param": 6, "from": "ada"}
        last = await callers[0].good("POST", "/api/channels/kept-2/messages", body, 202)
        for caller in callers:
            whole = await caller.good("GET", "/api/channels/kept-2/history")
            assert (whole["epoch"], whole["offset"], whole["cursor"]) == (last["epoch"], last["offset"], None)
            assert [item["param"] for item in whole["items"]] == list(range(7))
            newest = {"channel": "kept-2", "cmd": "n", "param": 6, "from": "ada", "offset": last["offset"]}
            assert whole["items"][-1] == newest
            pages, cursor = [], ""
            while True:
                page = await caller.good("GET", f"/api/channels/kept-2/history?limit=3{cursor}")
                pages.append([item["param"] for item in page["items"]])
                if page["cursor"] is None:
                    break
                cursor = f"&cursor={page['cursor']}"
            assert pages == [[4, 5, 6], [1, 2, 3], [0]]

    async def test_history_that_was_trimmed(self, api: Caller) -> None:
        """The pages end where it begins."""
        for number in range(60):
            await api.good("POST", "/api/channels/kept-3/messages", {"cmd": "n", "param": number}, 202)
        first = await api.good("GET", "/api/channels/kept-3/history?limit=30")
        rest = await api.good("GET", f"/api/channels/kept-3/history?limit=30&cursor={first['cursor']}")
        assert [item["param"] for item in (*rest["items"], *first["items"])] == list(range(10, 60))
        assert rest["cursor"] is None

    async def test_a_channel_that_keeps_none_has_no_history(self, api: Caller) -> None:
        await api.bad(404, "GET", "/api/channels/lobby/history")
        empty = await api.good("GET", "/api/channels/kept-none/history")
        assert (empty["items"], empty["offset"], empty["cursor"]) == ([], 0, None)

    @pytest.mark.parametrize("where", ["nodes", "connections", "channels", "channels/kept-1/history"])
    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=0", "limit"),
            ("limit=-1", "limit"),
            ("limit=1001", "limit"),
            ("limit=ten", "limit"),
            ("limit=", "limit"),
            ("limit=1&limit=2", "limit"),
            ("cursor=", "cursor"),
            ("cursor=x", "cursor"),
            ("cursor=%FF", "cursor"),
            ("cursor=WyJvdGhlciIsMSwieCJd", "cursor"),
            ("chanel=lobby", "chanel"),
        ],
    )
    async def test_a_wrong_query_is_named(self, where: str, query: str, field: str, api: Caller) -> None:
        """Unknown parameters too: a filter with a slip of the pen must not list everything."""
        assert (await api.bad(400, "GET", f"/api/{where}?{query}"))["field"] == field

    @pytest.mark.parametrize(
        "query", ["channel=", "user=", "node=", "sort=age", "descending=maybe", "text=%ff", "user=%ed%a0%bd"]
    )
    async def test_a_wrong_filter_is_named(self, query: str, api: Caller) -> None:
        said = await api.bad(400, "GET", f"/api/connections?{query}")
        assert said["field"] == query.partition("=")[0]


class TestMoving:
    async def test_join_and_leave(self, pair: Nodes, callers: list[Caller], connect: Clients) -> None:
        """From any node; doing it twice is harmless, and says whether the channel came to be or was emptied."""
        client = await connect(pair[1].ws_url(), protocols=V1)
        id = await id_of(client)
        for caller in callers:
            where = path("connections", id, "channels", "a/b")
            assert await caller.good("PUT", where) == {"created": True}
            assert await caller.good("PUT", where) == {"created": False}
            await caller.good("POST", path("channels", "a/b", "messages"), {"cmd": "hello"}, 202)
            await client.expect("hello")
            assert await caller.good("DELETE", where) == {"emptied": True}
            assert await caller.good("DELETE", where) == {"emptied": False}
            for method in ("PUT", "DELETE"):
                await caller.bad(404, method, path("connections", "nowhere~1", "channels", "a"))

    async def test_too_many_channels(self, pair: Nodes, api: Caller, connect: Clients) -> None:
        id = await id_of(await connect(pair[1].ws_url(*map(str, range(128))), protocols=V1))
        said = await api.bad(409, "PUT", path("connections", id, "channels", "one-more"))
        assert said["code"] == "too-many-channels"

    async def test_disconnect(self, pair: Nodes, callers: list[Caller], connect: Clients) -> None:
        """With 4410 and not to come back, or as the caller says."""
        for caller in callers:
            for query, code, reason in [
                ("", 4410, "ended by an operator"),
                ("?code=1012&reason=a%20rest", 1012, "a rest"),
            ]:
                client = await connect(pair[1].ws_url(), protocols=V1)
                id = await id_of(client)
                assert await caller.good("DELETE", path("connections", id) + query, status=204) is None
                assert (await client.expect_close(code)).reason == reason
            await caller.bad(404, "DELETE", path("connections", "nowhere~1"))

    @pytest.mark.parametrize(
        ("query", "field"), [("code=1", "code"), ("code=x", "code"), ("reason=" + "x" * 124, "reason"), ("why=", "why")]
    )
    async def test_a_wrong_end_is_named(
        self, query: str, field: str, pair: Nodes, api: Caller, connect: Clients
    ) -> None:
        """And the connection stays."""
        client = await connect(pair[0].ws_url(), protocols=V1)
        id = await id_of(client)
        assert (await api.bad(400, "DELETE", f"{path('connections', id)}?{query}"))["field"] == field
        await client.expect_nothing_but()


class TestDoor:
    @pytest.mark.parametrize(
        "authorization",
        [
            "",
            KEY,
            f"Basic {KEY}",
            "Bearer",
            "Bearer ",
            f"Bearer {KEY}x",
            f"Bearer {KEY[:-1]}",
            "Bearer ÿ",
            f"Bearer {KEY} x",
        ],
    )
    async def test_without_the_key_nothing_is_told(self, authorization: str, api: Caller) -> None:
        """Not even what exists."""
        headers = {"Authorization": authorization} if authorization else {}
        for method, where in [("GET", "status"), ("GET", "nothing"), ("PATCH", "status"), ("POST", "messages")]:
            answer = await api(method, f"/api/{where}", headers=headers)
            problem(answer, 401)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        for where in ("/api", "/api/"):
            await api.bad(401, "GET", where, headers=headers)

    async def test_the_scheme_is_written_in_any_case(self, api: Caller) -> None:
        await api.good("GET", "/api/status", headers={"Authorization": f"bEARER   {KEY} "})

    async def test_the_key_never_reaches_the_log(self, api: Caller) -> None:
        await api.bad(401, "GET", "/api/status", headers={"Authorization": "Bearer wrong-secret"})
        assert "wrong-secret" not in api.node.output
        assert KEY not in api.node.output

    @pytest.mark.parametrize(
        "where",
        ["", "/", "/x", "/status/", "/Status", "/connections/a/b", "/channels/a/b/c", "/%00", "/..", "//status"],
    )
    async def test_unknown_routes_are_problems(self, where: str, api: Caller) -> None:
        await api.bad(404, "GET", f"/api{where}")

    async def test_other_methods_are_problems(self, api: Caller) -> None:
        """They name those that are allowed."""
        for method, where, allowed in [
            ("POST", "status", "GET"),
            ("OPTIONS", "messages", "POST"),
            ("PATCH", "connections/x", "DELETE, GET"),
            ("GET", "connections/x/channels/y", "DELETE, PUT"),
            ("POST", "openapi.json", "GET"),
            ("PROPFIND", "nodes", "GET"),
        ]:
            answer = await api(method, f"/api/{where}")
            problem(answer, 405)
            assert answer.headers["Allow"] == allowed

    async def test_head_is_get_without_a_body(self, api: Caller) -> None:
        answer = await api("HEAD", "/api/status")
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer.headers["Content-Length"]) > 10

    async def test_without_a_key_in_the_settings_it_is_off(
        self, start_node: Callable[..., Awaitable[Node]], session: ClientSession
    ) -> None:
        """All of it is 404, whatever is shown; only its description can be read."""
        node = await start_node()
        caller = Caller(session, node)
        for headers in ({}, BEARER, {"Authorization": "Bearer "}):
            for method, where in [("GET", "status"), ("POST", "messages"), ("GET", "nothing"), ("GET", "")]:
                said = await caller.bad(404, method, f"/api/{where}", headers=headers)
                assert "api_key" in said["detail"]
        await caller.good("GET", "/api/openapi.json", headers={})


@pytest.mark.parametrize("key", ["two words", "schlüssel", "line\nbreak"])
def test_a_key_that_fits_in_no_header_is_refused(key: str) -> None:
    """In a line that does not show it."""
    with pytest.raises(InvalidSettings, match="api_key: expected visible ASCII") as refused:
        load(api_key=key)
    assert key not in str(refused.value)
    assert ascii(key)[1:-1] not in str(refused.value)


class TestTrouble:
    async def test_while_redis_is_away(
        self, own_redis: RedisServer, start_node: Callable[..., Awaitable[Node]], session: ClientSession
    ) -> None:
        """Writes wait, then are 503 like everything else, with the time after which to ask again."""
        node = await start_node(own_redis, api_key=KEY, publish_timeout=0.5, channels=RULES)
        caller = Caller(session, node)
        await own_redis.kill()
        writes = ("", "channels/c/", "users/u/", "channels/kept-1/")
        reads = ("status", "nodes", "connections", "channels", "channels/c", "channels/kept-1/history")
        asked: list[tuple[str, str, Any]] = [
            *(("POST", f"/api/{where}messages", {"cmd": "x"}) for where in writes),
            *(("GET", f"/api/{where}", None) for where in (*reads, "connections/other~1")),
            ("PUT", "/api/connections/other~1/channels/c", None),
            ("DELETE", "/api/connections/other~1", None),
        ]

        async def is_away() -> bool:
            return (await caller("GET", "/api/status")).status == 503

        await eventually(is_away)
        for method, where, body in asked:
            answer = await caller(method, where, body)
            problem(answer, 503)
            assert int(answer.headers["Retry-After"]) >= 1
        await caller.bad(404, "GET", f"/api/connections/{node.id}~1")
        await own_redis.start()

        async def is_back() -> bool:
            return (await caller("POST", "/api/channels/c/messages", {"cmd": "x"})).status == 202

        await eventually(is_back)

    async def test_a_body_that_does_not_come_is_not_waited_for(
        self, start_node: Callable[..., Awaitable[Node]], wire: Wires
    ) -> None:
        node = await start_node(api_key=KEY, handshake_timeout=0.3)
        slow = await wire.open(node)
        head = f"POST /api/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 9\r\n\r\n"
        await slow.write(head.encode())
        answered = await slow.read_head()
        assert answered.status == 408
        assert json.loads(await slow.read_exactly(int(answered.headers["content-length"])))["status"] == 408

    async def test_a_node_that_does_not_answer_is_named(
        self, redis: RedisServer, start_nodes: Callable[..., Awaitable[Nodes]], session: ClientSession, connect: Clients
    ) -> None:
        """Lists show what the others hold, and whose part is missing."""
        nodes = await start_nodes(2, redis, api_key=KEY)
        caller = Caller(session, nodes[0])
        ids = [await id_of(await connect(node.ws_url("lobby"), protocols=V1)) for node in nodes]
        nodes[1].freeze()
        page = await caller.good("GET", "/api/connections")
        assert ([item["id"] for item in page["items"]], page["silent"]) == (ids[:1], [nodes[1].id])
        page = await caller.good("GET", "/api/channels")
        assert page == {
            "items": [{"name": "lobby", "members": 2, "online": 2}],
            "cursor": None,
            "silent": [nodes[1].id],
        }
        nodes[1].thaw()
        page = await caller.good("GET", "/api/connections")
        assert [item["id"] for item in page["items"]] == ids
