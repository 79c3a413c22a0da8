"""Users on real nodes: where a token may be, what it allows, when it ends, and how many connections one may have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jwt
import pytest
from aiohttp import WSServerHandshakeError, web

from gateway.access.tokens import make_token
from gateway.connections.expiry import SLACK, Expiry
from gateway.connections.hub import Hub
from tests.harness import http
from tests.harness.client import Client, Clients
from tests.harness.embedded import Embedded
from tests.harness.fakes import make_connection
from tests.harness.node import Node, Nodes
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually
from tests.harness.wire import Head, Wires

SECRET = "a secret of more than thirty-two bytes"
V1 = ["gateway.v1.json"]


def token(user: str = "ada", *, lasts: float = 600, **options: Any) -> str:
    """Make a token as `gateway token` does."""
    return make_token(SECRET, user, seconds=lasts, now=time.time(), **options)


def soon(user: str = "ada", **claims: Any) -> tuple[str, float]:
    """Make a token that ends in a moment; return it and when."""
    expires = time.time() + 2
    return jwt.encode({"sub": user, "exp": expires, **claims}, SECRET, "HS256"), expires


def wrong(user: str = "ada") -> str:
    """Make a token that somebody else has signed."""
    return make_token("another secret of thirty-two bytes", user, now=time.time())


def carrying(place: str, given: str, protocols: str = "gateway.v1.json, ") -> tuple[dict[str, str], dict[str, str]]:
    """Put a token in its place; return query and headers."""
    match place:
        case "header":
            return {}, {"Authorization": f"Bearer {given}"}
        case "query":
            return {"token": given}, {}
        case "cookie":
            return {}, {"Cookie": f"a=b; gateway_token={given}; c=d"}
    return {}, {"Sec-WebSocket-Protocol": f"{protocols}gateway.token.{given}"}


PLACES = ["header", "query", "subprotocol", "cookie"]
"""In the order in which they count."""


async def ask(wire: Wires, node: Node, *channels: str, headers: Any = None, **query: str) -> Head:
    """Ask for an upgrade; return the answer."""
    client = await wire.open(node.ws_url(*channels, **query))
    await client.write(client.upgrade(headers=headers or {}))
    return await client.read_head()


async def greeted(connect: Clients, node: Node, *channels: str, given: str, **options: Any) -> Client:
    """Connect with a token; return once the client is welcome."""
    client = await connect(node.ws_url(*channels, token=given), protocols=V1, **options)
    await client.expect("$welcome")
    return client


async def welcome(connect: Clients, node: Node, place: str, given: str) -> Any:
    """Connect with a token in one place; return what the client is told."""
    query, headers = carrying(place, given)
    headers.setdefault("Sec-WebSocket-Protocol", V1[0])
    client = await connect(node.ws_url(**query), headers=headers)
    return (await client.expect("$welcome"))["param"]


def _running(redis: bool, count: int, **settings: Any) -> Iterator[Nodes]:
    server = RedisServer()
    nodes = (
        Nodes(count, server, jwt_secret=SECRET, **settings) if redis else Nodes(count, jwt_secret=SECRET, **settings)
    )
    try:
        with asyncio.Runner() as runner:
            if redis:
                runner.run(server.start())
            runner.run(nodes.start())
        yield nodes
    finally:
        nodes.close()
        server.close()


@pytest.fixture(scope="module")
def _keyed() -> Iterator[Nodes]:
    yield from _running(False, 1, handler="sessions:Sessions", log_level="debug")


@pytest.fixture
def node(_keyed: Nodes) -> Node:
    """A node that asks for tokens; its handler knows sessions, too."""
    _keyed[0].process.assert_running()
    return _keyed[0]


@pytest.fixture(scope="module")
def _limited() -> Iterator[Nodes]:
    yield from _running(True, 2, max_connections_per_user=3)


@pytest.fixture
def limited(_limited: Nodes) -> Nodes:
    """Two nodes on one Redis that allow a user three connections."""
    for one in _limited:
        one.process.assert_running()
    return _limited


class TestPlaces:
    @pytest.mark.parametrize("place", PLACES)
    async def test_a_token_is_found_in_four_places(self, node: Node, connect: Clients, place: str) -> None:
        """And says who is there."""
        assert (await welcome(connect, node, place, token("ada")))["user"] == "ada"

    @pytest.mark.parametrize("higher", range(3))
    async def test_what_the_client_says_itself_counts_before_the_cookie(
        self, node: Node, connect: Clients, wire: Wires, higher: int
    ) -> None:
        """The first of Authorization, `?token=`, subprotocol, cookie, a bad one too; an empty one is none."""
        above, below = PLACES[higher], PLACES[higher + 1 :]
        for place in below:
            for first, status in ((token("ada"), 101), (wrong("ada"), 401), ("", 101)):
                (query, headers), (more, others) = carrying(above, first), carrying(place, token("bob"))
                both = {"Sec-WebSocket-Protocol": V1[0]} | headers | others
                if place == "subprotocol" or above == "subprotocol":
                    both["Sec-WebSocket-Protocol"] = (headers | others)["Sec-WebSocket-Protocol"]
                assert (await ask(wire, node, headers=both, **(query | more))).status == status
                if status == 101:
                    client = await connect(node.ws_url(**(query | more)), headers=both)
                    user = (await client.expect("$welcome"))["param"]["user"]
                    assert user == ("ada" if first else "bob"), (above, place)

    @pytest.mark.parametrize(
        "offered", ["{t}, gateway.v1.json", "gateway.v1.json, {t}", "chat,{t} ,gateway.v1.msgpack"]
    )
    async def test_the_token_is_never_the_subprotocol_chosen(self, node: Node, wire: Wires, offered: str) -> None:
        """Wherever it stands among those offered."""
        protocols = offered.format(t=f"gateway.token.{token()}")
        head = await ask(wire, node, headers={"Sec-WebSocket-Protocol": protocols})
        assert (head.status, head.headers["sec-websocket-protocol"][:11]) == (101, "gateway.v1.")

    @pytest.mark.parametrize("offered", ["gateway.token.{t}", "chat, gateway.token.{t}", "gateway.token."])
    async def test_a_token_alone_is_400(self, node: Node, wire: Wires, offered: str) -> None:
        """Good or bad: a browser would have nothing selected, and close."""
        for given in (token(), wrong()):
            head = await ask(wire, node, headers={"Sec-WebSocket-Protocol": offered.format(t=given)})
            assert head.status == 400

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Basic YWRhOmFkYQ=="},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer   "},
            {"Cookie": "gateway_token="},
            {"Cookie": "gateway_token"},
            {"Cookie": "Gateway_Token=x; token=x"},
            {"Sec-WebSocket-Protocol": "gateway.v1.json, gateway.token."},
        ],
        ids=str,
    )
    async def test_without_a_token_it_is_401(self, node: Node, wire: Wires, headers: dict[str, str]) -> None:
        """And said which kind is asked for."""
        head = await ask(wire, node, headers=headers, token="")
        assert (head.status, head.headers["www-authenticate"]) == (401, "Bearer")

    @pytest.mark.parametrize("place", PLACES)
    @pytest.mark.parametrize(
        "bad",
        [
            wrong(),
            "rubbish",
            jwt.encode({"sub": "a b"}, SECRET, "HS256"),
            jwt.encode({"name": "Ada"}, SECRET, "HS256"),
            jwt.encode({"sub": "ada", "exp": 1_000_000_000}, SECRET, "HS256"),
            jwt.encode({"sub": "ada", "nbf": 4_000_000_000}, SECRET, "HS256"),
            jwt.encode({"sub": "ada", "channels": "lobby"}, SECRET, "HS256"),
            jwt.encode({"sub": "ada"}, "", "none"),
        ],
        ids=["signature", "rubbish", "user", "nobody", "expired", "early", "channels", "none"],
    )
    async def test_a_bad_token_is_401_in_every_place(self, node: Node, place: str, bad: str) -> None:
        """Before the upgrade, and the answer does not repeat it."""
        query, headers = carrying(place, bad)
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        answer = await http.get(node.url("/connect", **query), headers=upgrade | key | headers)
        assert answer.status == 401
        assert not any(part and part in answer.text for part in bad.split("."))
        assert len(answer.text) > 10

    async def test_the_demo_s_socket_asks_for_a_token_too(self, node: Node, wire: Wires) -> None:
        """It is no way round."""
        for query, status in (({}, 401), ({"token": token()}, 101)):
            client = await wire.open(node.ws_url(path="/example/socket", **query))
            await client.write(client.upgrade())
            assert (await client.read_head()).status == status


class TestCookie:
    async def test_a_cookie_counts_for_pages_of_this_site_only(self, node: Node, wire: Wires) -> None:
        """Others are refused before anybody looks at it."""
        cookie = {"Cookie": f"gateway_token={token()}"}
        for origin, status in ((node.url().rstrip("/"), 101), ("https://evil.example", 403)):
            assert (await ask(wire, node, headers=cookie | {"Origin": origin})).status == status

    async def test_a_cookie_counts_for_sites_allowed_by_name_and_not_by_asterisk(self, start_node, wire: Wires) -> None:
        """`*` lets any page connect, but not as this user; with a token of its own it may."""
        node = await start_node(jwt_secret=SECRET, allowed_origins=["https://a.example", "*"])
        cookie = {"Cookie": f"gateway_token={token()}"}
        for origin, status in (("https://a.example", 101), ("https://b.example", 401), (node.url().rstrip("/"), 101)):
            assert (await ask(wire, node, headers=cookie | {"Origin": origin})).status == status
        own = {"Origin": "https://b.example"}
        assert (await ask(wire, node, headers=cookie | own, token=token())).status == 101


class TestClaims:
    async def test_the_name_is_shown(self, node: Node, connect: Clients) -> None:
        """In what the demo says of a message; `from` is the user id."""
        ada = await connect(node.ws_url("lobby", token=token("ada", name="Ada")))
        await ada.send("chat", {"text": "hi"})
        said = await ada.expect("chat")
        assert (said["from"], said["param"]["user"]) == ("ada", "Ada")

    async def test_patterns_limit_what_a_client_may_join(self, node: Node, connect: Clients, wire: Wires) -> None:
        """Before the upgrade 403, afterwards `forbidden`; what the server joins it to is not limited."""
        given = token("ada", channels=["team-*", "lobby"])
        for channels, status in ((["team-1", "lobby"], 101), ([], 101), (["lobby", "other"], 403), (["lobby2"], 403)):
            assert (await ask(wire, node, *channels, token=given)).status == status
        ada = await greeted(connect, node, given=given)
        assert (await ada.request("$join", channel="team-2"))["cmd"] == "$reply"
        assert (await ada.request("$join", channel="other"))["param"]["code"] == "forbidden"
        assert (await ada.request("join-room", {"room": "other"}))["param"]["code"] == "forbidden"
        assert (await ada.request("draw-in", "other"))["param"] is True
        nowhere = token("ada", channels=["-"])
        assert (await ask(wire, node, "lobby", token=nowhere)).status == 403


class TestAnonymous:
    async def test_without_a_key_everybody_is_anonymous(self, nodes: Nodes, connect: Clients) -> None:
        """Whatever token they show; `?name=` is what they are called."""
        for place in PLACES:
            assert "~" in (await welcome(connect, nodes[0], place, token()))["user"]
        ada = await connect(nodes[0], "anonymous", name="Ada")
        await ada.send("chat", {"text": "hi"})
        said = await ada.expect("chat")
        assert said["param"]["user"] == "Ada"
        assert "~" in said["from"]

    async def test_both_may_be_let_in(self, start_node, connect: Clients, wire: Wires) -> None:
        """`allow_anonymous`: who shows a token is a user, who shows none is not, who shows a bad one is refused."""
        node = await start_node(jwt_secret=SECRET, allow_anonymous=True)
        ada = await greeted(connect, node, given=token())
        nobody = await connect(node, "lobby", name="Nobody", protocols=V1)
        assert "~" in (await nobody.expect("$welcome"))["param"]["user"]
        assert (await nobody.request("$auth", {"token": token()}))["param"]["code"] == "unauthorized"
        await ada.close()
        for place in PLACES:
            query, headers = carrying(place, wrong())
            assert (await ask(wire, node, headers=headers, **query)).status == 401

    async def test_nobody_may_be_let_in(self, start_node, wire: Wires) -> None:
        """Without a key and without anonymous clients nobody is left."""
        node = await start_node(allow_anonymous=False)
        assert (await ask(wire, node)).status == (await ask(wire, node, token=token())).status == 401


class TestHandler:
    async def test_a_handler_s_own_authenticate_replaces_it_all(self, start_node, wire: Wires) -> None:
        """It neither needs a token nor looks at one."""
        node = await start_node(jwt_secret=SECRET, handler="guarded:Guarded")
        assert (await ask(wire, node, **{"as": "ada"})).status == 101
        assert (await ask(wire, node, token=wrong(), **{"as": "ada"})).status == 101
        assert (await ask(wire, node, token=token(), **{"as": "nobody"})).status == 401

    async def test_it_may_ask_the_settings_for_what_it_does_not_know(self, node: Node, connect: Clients) -> None:
        """`super().authenticate`; and what it lets in may end, too."""
        ada = await connect(node, protocols=V1, headers={"Cookie": "session=eve-1"})
        assert (await ada.expect("$welcome"))["param"]["user"] == "eve"
        await greeted(connect, node, given=token("ada"))
        await ada.expect_close(4401, deadline=10)


class TestExpiry:
    async def test_a_connection_ends_with_its_token(self, node: Node, connect: Clients) -> None:
        """4401, and not before it is over; on plain connections, too."""
        given, expires = soon()
        clients = [await greeted(connect, node, given=given), await connect(node.ws_url(token=given))]
        for client in clients:
            assert (await client.expect_close(4401, deadline=10)).reason == "token expired"
            assert time.time() >= expires

    async def test_a_fresh_token_renews(self, node: Node, connect: Clients) -> None:
        """Without reconnecting; the answer says until when."""
        given, _ = soon()
        ada, marker = await greeted(connect, node, given=given), await greeted(connect, node, given=given)
        fresh = token("ada", lasts=3600)
        answer = await ada.request("$auth", {"token": fresh})
        assert answer["param"] == {"expires": jwt.decode(fresh, options={"verify_signature": False})["exp"]}
        await marker.expect_close(4401, deadline=10)
        assert (await ada.request("$ping"))["cmd"] == "$reply"
        endless = jwt.encode({"sub": "ada"}, SECRET, "HS256")
        assert (await ada.request("$auth", {"token": endless}))["param"] == {"expires": None}

    async def test_a_refused_token_changes_nothing(self, node: Node, connect: Clients) -> None:
        """The connection stays until its own is over."""
        given, _ = soon()
        ada = await greeted(connect, node, given=given)
        for param in (
            {"token": token("bob")},
            {"token": wrong("ada")},
            {"token": "rubbish"},
            {"token": ""},
            {"token": jwt.encode({"sub": "ada", "exp": 1_000_000_000}, SECRET, "HS256")},
        ):
            error = (await ada.request("$auth", param))["param"]
            assert error["code"] == "unauthorized"
            assert not param["token"] or param["token"] not in error["message"]
        nothings: list[Any] = [None, {}, {"token": None}, {"token": 5}, [], "token"]
        for nothing in nothings:
            error = (await ada.request("$auth", nothing))["param"]
            assert (error["code"], error["field"]) == ("invalid-param", "token")
        assert (await ada.request("$ping"))["cmd"] == "$reply"
        await ada.expect_close(4401, deadline=10)

    async def test_name_and_patterns_are_those_of_the_fresh_token(self, node: Node, connect: Clients) -> None:
        """From then on, for what was joined before as well. A shorter one ends sooner."""
        ada = await greeted(connect, node, "lobby", "tea", given=token("ada", name="Ada", channels=["lobby", "tea"]))
        assert (await ada.request("$join", channel="team"))["param"]["code"] == "forbidden"
        fresh, _ = soon(name="Ada L.", channels=["team", "tea"])
        assert (await ada.request("$auth", {"token": fresh}))["cmd"] == "$reply"
        assert (await ada.request("$join", channel="team"))["cmd"] == "$reply"
        assert (await ada.request("$join", channel="lobby2"))["param"]["code"] == "forbidden"
        assert (await ada.expect("$left"))["channel"] == "lobby"
        await ada.send("chat", {"text": "hi"}, "tea")
        assert (await ada.expect("chat", channel="tea"))["param"]["user"] == "Ada L."
        await ada.expect_close(4401, deadline=10)

    async def test_a_plain_connection_knows_no_auth(self, node: Node, connect: Clients) -> None:
        """Like all commands of the gateway."""
        ada = await connect(node.ws_url(token=token()))
        await ada.send("$auth", {"token": token()}, id=1)
        assert (await ada.expect("$error", id=1))["param"]["code"] == "unknown-command"

    async def test_the_cluster_learns_the_new_name(self, limited: Nodes, connect: Clients) -> None:
        """In what Redis holds of the connection; the sets stay as they are."""
        ada = await connect(limited[0].ws_url("names", token=token("renamed", name="Ada")), protocols=V1)
        id = (await ada.expect("$welcome"))["param"]["connection"]
        await ada.request("$auth", {"token": token("renamed", name="Grace")})
        redis = limited.redis

        async def renamed() -> bool:
            return bool(await redis.command("HGET", f"gateway:connection:{id}", "name") == "Grace")

        await eventually(renamed)
        assert await redis.command("HGET", f"gateway:connection:{id}", "channels") == '["names"]'
        await ada.close()

        async def gone() -> bool:
            return not await redis.command("EXISTS", f"gateway:connection:{id}", "gateway:user:renamed:connections")

        await eventually(gone)


class TestQueue:
    """The one timer, without a clock."""

    def make(self, hub: Hub, number: int, expires: float) -> Any:
        connection, socket = make_connection(f"n~{number}", user="ada")
        connection.profile = connection.profile.__class__("ada", expires=expires)
        hub.add(connection)
        return connection, socket

    def test_what_is_due_is_closed_and_nothing_else(self) -> None:
        """Whatever order they came in, and however far the clock jumps; one that was set back closes nobody."""
        hub = Hub()
        expiry = Expiry(hub)
        made = [self.make(hub, number, expires) for number, expires in enumerate([50, 10, 0, 30, 10])]
        for connection, _ in made:
            expiry.watch(connection)
        for now, closed in ((9, []), (10, [1, 4]), (5, [1, 4]), (49, [1, 3, 4]), (1000, [0, 1, 3, 4])):
            expiry.close_due(now)
            assert [number for number, (_, socket) in enumerate(made) if socket.closes] == closed
            assert all(close.code == 4401 for _, socket in made for close in socket.closes)

    def test_renewed_and_gone_connections_are_passed_over(self) -> None:
        """What counts is what the profile says when the time has come."""
        hub = Hub()
        expiry = Expiry(hub)
        (renewed, socket), (gone, other) = self.make(hub, 1, 10), self.make(hub, 2, 10)
        expiry.watch(renewed)
        expiry.watch(gone)
        renewed.profile = renewed.profile.__class__("ada", expires=20)
        expiry.watch(renewed)
        hub.remove(gone)
        expiry.close_due(15)
        assert not socket.closes + other.closes
        expiry.close_due(20)
        assert [close.code for close in socket.closes] == [4401]

    def test_the_queue_does_not_grow_with_those_who_have_gone(self) -> None:
        """Tokens may last for a year, connections for a second."""
        hub = Hub()
        expiry = Expiry(hub)
        staying = [self.make(hub, number, 1e9) for number in range(10)]
        for connection, _ in staying:
            expiry.watch(connection)
        for number in range(1000):
            connection, _ = self.make(hub, 100 + number, 2e9)
            expiry.watch(connection)
            hub.remove(connection)
        assert len(expiry._queue) <= 2 * 11 + SLACK
        expiry.close_due(1e9)
        assert all(socket.closes for _, socket in staying)

    def test_many_at_once_are_closed_in_portions(self) -> None:
        """So that others get a turn."""
        hub = Hub()
        expiry = Expiry(hub)
        made = [self.make(hub, number, 10) for number in range(1200)]
        for connection, _ in made:
            expiry.watch(connection)
        portions = 0
        while expiry.close_due(10):
            portions += 1
            assert sum(bool(socket.closes) for _, socket in made) == portions * 500
        assert all(socket.closes for _, socket in made)


async def try_to_connect(connect: Clients, node: Node, user: str) -> Client | int:
    """Connect as a user; return the client, or the status of the refusal."""
    try:
        return await connect(node.ws_url(token=token(user)))
    except WSServerHandshakeError as refusal:
        return refusal.status


class TestLimit:
    async def test_a_user_may_have_so_many_and_no_more(self, limited: Nodes, connect: Clients) -> None:
        """On all nodes together; who has gone makes room for another. Others are not concerned."""
        one, two = limited
        held = [await greeted(connect, node, given=token("ada")) for node in (one, two, one)]
        for node in limited:
            assert await try_to_connect(connect, node, "ada") == 429
            await greeted(connect, node, given=token("bob"))
        await held.pop(0).close()

        async def has_room() -> bool:
            return isinstance(await try_to_connect(connect, two, "ada"), Client)

        await eventually(has_room)
        assert await try_to_connect(connect, one, "ada") == 429

    async def test_many_at_the_same_moment_are_counted_one_by_one(self, limited: Nodes, connect: Clients) -> None:
        """Twenty on each of two nodes: three are let in, and no place is lost in the crush."""
        for user in ("crowd-1", "crowd-2", "crowd-3"):
            tries = (try_to_connect(connect, limited[number % 2], user) for number in range(40))
            found = await asyncio.gather(*tries)
            clients = [client for client in found if isinstance(client, Client)]
            assert (len(clients), found.count(429)) == (3, 37)
            assert len(await limited.redis.command("SMEMBERS", f"gateway:user:{user}:connections")) == 3

    async def test_a_handshake_that_is_broken_off_gives_its_place_back(
        self, limited: Nodes, connect: Clients, wire: Wires
    ) -> None:
        """Refused for another reason, or left in the middle."""
        node, url = limited[0], limited[0].ws_url(token=token("eve"))
        for _ in range(10):
            leaving = await wire.open(url)
            await leaving.write(leaving.upgrade())
            leaving.reset()
            assert (await ask(wire, node, headers={"Sec-WebSocket-Version": "8"}, token=token("eve"))).status == 426
        assert "Traceback" not in node.output

        async def three() -> bool:
            found = [await try_to_connect(connect, node, "eve") for _ in range(3)]
            for client in found:
                if isinstance(client, Client):
                    await client.close()
            return all(isinstance(client, Client) for client in found)

        await eventually(three)

    async def test_a_node_alone_counts_too(self, start_node, connect: Clients) -> None:
        """On `memory://`, at once; who is anonymous is not counted."""
        node = await start_node(jwt_secret=SECRET, allow_anonymous=True, max_connections_per_user=2)
        for _ in range(5):
            await connect(node, "lobby")
        found = await asyncio.gather(*(try_to_connect(connect, node, "ada") for _ in range(10)))
        assert found.count(429) == 8
        clients = [client for client in found if isinstance(client, Client)]
        await clients[0].close()

        async def has_room() -> bool:
            return isinstance(await try_to_connect(connect, node, "ada"), Client)

        await eventually(has_room)
        assert await try_to_connect(connect, node, "ada") == 429

    async def test_while_redis_is_away_each_node_counts_alone(self, own_redis, start_nodes, connect: Clients) -> None:
        """Nobody is refused for that; when it is back all are counted."""
        nodes = await start_nodes(2, own_redis, jwt_secret=SECRET, max_connections_per_user=1)
        await own_redis.kill()
        for node in nodes:
            assert isinstance(await try_to_connect(connect, node, "ada"), Client)

            async def is_full(node: Node = node) -> bool:
                return await try_to_connect(connect, node, "ada") == 429

            await eventually(is_full)
        await own_redis.start()

        async def both() -> bool:
            return len(await own_redis.command("SMEMBERS", "gateway:user:ada:connections")) == 2

        await eventually(both, 30)
        assert await try_to_connect(connect, nodes[0], "ada") == 429

    @pytest.mark.slow
    async def test_a_node_that_dies_gives_its_places_back(self, own_redis, start_nodes, connect: Clients) -> None:
        """As soon as the others have cleaned up after it."""
        doomed, other = await start_nodes(2, own_redis, jwt_secret=SECRET, max_connections_per_user=2)
        for _ in range(2):
            await greeted(connect, doomed, given=token("ada"))
        assert await try_to_connect(connect, other, "ada") == 429
        await doomed.kill()

        async def has_room() -> bool:
            return isinstance(await try_to_connect(connect, other, "ada"), Client)

        await eventually(has_room, 40)


class TestEmbedded:
    async def test_an_application_of_one_s_own_has_it_all(self, connect: Clients) -> None:
        """It may ask any handler who somebody is; `upgrade` counts, and ends what its profile says."""
        node = Embedded("memory://", jwt_secret=SECRET, max_connections_per_user=1)

        async def who(request: web.Request) -> web.Response:
            profile = await node.handler.authenticate(request)
            return web.json_response(profile and profile.id)

        node.app.router.add_get("/who", who)
        await node.start()
        try:
            assert (await http.get(node.url("/who", token=token("ada")))).json == "ada"
            await node.connect(connect, user="ada")
            with pytest.raises(WSServerHandshakeError) as refused:
                await connect(node.ws_url(user="ada"))
            assert refused.value.status == 429
        finally:
            await connect.close()
            await node.stop()


class TestSecrecy:
    """What nodes write to their log, and answer."""

    @pytest.fixture
    async def written(self, node: Node, wire: Wires, connect: Clients) -> AsyncIterator[list[str]]:
        """Collects what was sent; after the test nothing of it may be in all that the node has written."""
        sent: list[str] = []
        yield sent
        marker = await connect(node.ws_url(token=token("marker")), protocols=V1)
        id = (await marker.expect("$welcome"))["param"]["connection"]
        await eventually(lambda: f"connection={id}" in node.output, what="the log is written")
        for part in {part for secret in sent for part in secret.split(".")}:
            if len(part) > 8 and part != token().split(".")[0]:
                assert part not in node.output
        assert SECRET not in node.output

    async def test_no_token_is_ever_written(self, node: Node, wire: Wires, written: list[str]) -> None:
        """Good, bad, expired, in every place, in requests that are refused for another reason, and in `$auth`."""
        good, bad, old = token("ada"), wrong("ada"), jwt.encode({"sub": "ada", "exp": 1}, SECRET, "HS256")
        for given in (good, bad, old, "rubbish-rubbish-rubbish"):
            written.append(given)
            for place in PLACES:
                query, headers = carrying(place, given)
                for more, channels in (({}, ["lobby"]), ({"Sec-WebSocket-Version": "8"}, []), ({}, ["a b"])):
                    await ask(wire, node, *channels, headers=headers | more, **query)
                await ask(wire, node, headers={**headers, "Origin": "https://evil.example"}, **query)
                await http.get(node.url("/nothing", **query), headers=headers)

    async def test_no_token_of_a_bad_request_is_written(self, node: Node, wire: Wires, written: list[str]) -> None:
        """Heads that do not parse, are too long, or break off."""
        given = token("ada")
        written += [given, "hush-hush-hush"]
        plain, query = "GET /connect HTTP/1.1\r\nHost: x\r\n", f"GET /connect?token={given}"
        for head in (
            f"{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {given}\x01",
            f"{query} HTTP/1.1\r\nHost: x\r\nCookie: gateway_token={given};\x7f=\xff\r\nB d: x",
            f"{query} HTTP/9.9",
            f"{query}{'x' * 9000} HTTP/1.1\r\nHost: x",
            f"G\x01T {query} HTTP/1.1",
            f"{plain}Authorization: Bearer {given}{'x' * 9000}",
            f"{plain}Cookie: hush-hush-hush={{}}; @hush-hush-hush=5; gateway_token={given}",
            f"{plain}Transfer-Encoding: {given}\r\nContent-Length: hush-hush-hush",
            given,
        ):
            client = await wire.open(node.ws_url())
            await client.write(head.encode("latin-1") + b"\r\n\r\n")
            client.finish()
            await client.read_end()

    async def test_no_fresh_token_is_written(self, node: Node, connect: Clients, written: list[str]) -> None:
        """Nor is it in an answer."""
        ada = await greeted(connect, node, given=token("ada"))
        for given in (token("ada", lasts=700), wrong("ada"), token("bob")):
            written.append(given)
            await ada.request("$auth", {"token": given})
            await ada.request(given[:100], {"token": given})
        assert not any(given in str(ada.received) for given in written[:1])


class TestCommand:
    async def test_a_token_is_printed(self, node: Node, connect: Clients) -> None:
        """Which the node takes."""
        from tests.harness.node import gateway

        words = ("--user", "ada", "--name", "Ada L.", "--channels", "team-*", "lobby", "--ttl", "60")
        command = gateway("token", *words, environment={"GATEWAY_JWT_SECRET": SECRET})
        try:
            command.start()
            assert await command.wait(deadline=30) == 0
            given = command.output.strip()
        finally:
            command.close()
        claims = jwt.decode(given, SECRET, ["HS256"])
        assert claims["exp"] - claims["iat"] in (60, 61)
        assert (claims["sub"], claims["name"], claims["channels"]) == ("ada", "Ada L.", ["team-*", "lobby"])
        await greeted(connect, node, "team-1", given=given)

    @pytest.mark.parametrize(
        ("words", "settings", "said"),
        [
            (["--user", "ada"], {}, "jwt_secret: "),
            (["--user", "ada"], {"GATEWAY_JWT_PUBLIC_KEY": "key.pem"}, "jwt_secret: "),
            (["--user", "a b"], {"GATEWAY_JWT_SECRET": SECRET}, "expected a user id"),
            (["--user", ""], {"GATEWAY_JWT_SECRET": SECRET}, "expected a user id"),
            (["--user", "ada", "--channels", "a b"], {"GATEWAY_JWT_SECRET": SECRET}, "channels"),
            (["--user", "ada", "--ttl", "soon"], {"GATEWAY_JWT_SECRET": SECRET}, "--ttl"),
            (["--user", "ada", "--ttl=-5"], {"GATEWAY_JWT_SECRET": SECRET}, "--ttl"),
            (["--user", "ada", "--ttl", "inf"], {"GATEWAY_JWT_SECRET": SECRET}, "--ttl"),
            (["--user", "ada", "--ttl", "1e300"], {"GATEWAY_JWT_SECRET": SECRET}, "--ttl"),
        ],
        ids=str,
    )
    def test_what_is_wrong_is_one_line(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        words: list[str],
        settings: dict[str, str],
        said: str,
    ) -> None:
        """And exit code 2."""
        from gateway.cli import main

        monkeypatch.setattr("sys.argv", ["gateway", "token", *words])
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert (ended.value.code, printed.out) == (2, "")
        assert len(printed.err.splitlines()) == 1
        assert said in printed.err
        assert SECRET not in printed.err
