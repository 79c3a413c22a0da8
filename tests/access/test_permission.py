"""Who may join a channel and send to it: rules, tokens, handlers, and what a refusal does not tell."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import Handler, Profile, Service, Settings
from gateway.access.permission import passes
from gateway.application.router import Router
from gateway.config import Rule
from gateway.connections.connection import Connection
from gateway.protocol.message import fits
from gateway.server.running import running_node
from tests.handlers.patterned import Patterned
from tests.harness.client import Clients
from tests.harness.embedded import Embedded
from tests.harness.node import Node, Nodes
from tests.harness.redis import RedisServer, injection
from tests.harness.wire import Head, Wires

V1 = ["gateway.v1.json"]


class Seeing(Handler):
    """Answers `asked` with the connections that it was asked about."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    async def authorize(self, connection: Connection, channel: str, action: str) -> bool:
        self.asked.append((connection.id, connection.remote, action))
        return True

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        return self.asked


# By kind of user: no name and no token, a user without patterns, users whose token names the channel, or another.
WHO: dict[str, Profile] = {
    "anonymous": Profile(),
    "user": Profile(id="ada"),
    "named": Profile(id="ada", channels=("other", "ro*")),
    "elsewhere": Profile(id="ada", channels=("other",)),
    "nowhere": Profile(id="ada", channels=()),
}

ALLOWED = {
    ("join", "anyone"): {"anonymous", "user", "named"},
    ("join", "users"): {"user", "named"},
    ("join", "token"): {"named"},
    ("join", "handler"): {"anonymous", "user", "named"},
    ("join", "nobody"): set(),
    ("send", "anyone"): set(WHO),
    ("send", "users"): set(WHO) - {"anonymous"},
    ("send", "token"): {"named"},
    ("send", "handler"): set(WHO),
    ("send", "nobody"): set(),
}


@pytest.mark.parametrize(("action", "rule"), ALLOWED)
def test_a_rule_lets_in_whom_it_names(action, rule):
    """Patterns of a token limit every join, whatever the rule; sending only where the rule says `token`."""
    only = {"join": Rule(match="*", join=rule), "send": Rule(match="*", send=rule)}[action]
    visitors = {who: Connection("", profile, Patterned()) for who, profile in WHO.items()}
    allowed = {who for who, visitor in visitors.items() if passes(only, visitor, "room", action)}
    assert allowed == ALLOWED[action, rule]


@pytest.mark.parametrize("action", ["join", "send"])
def test_a_handler_that_decides_nothing_allows_nothing_where_it_should(action):
    """The rule `handler` needs a handler with an `authorize` of its own."""
    rule = Rule(match="*", join="handler", send="handler")
    assert not passes(rule, Connection("", Profile(id="ada"), Handler()), "room", action)


def test_the_hook_of_a_router_is_an_authorize_of_its_own():
    """As much as the method of a class is."""
    router, rule = Router(), Rule(match="*", join="handler")
    assert not passes(rule, Connection("", Profile(), router), "room", "join")

    @router.hook
    async def authorize(connection: Connection, channel: str, action: str) -> bool:
        return True

    assert passes(rule, Connection("", Profile(), router), "room", "join")


def test_patterns_fit_as_regular_expressions_would():
    """Every pattern and name of up to five characters, with stars anywhere."""
    names = ["".join(letters) for size in range(1, 6) for letters in itertools.product("ab", repeat=size)]
    patterns = ["".join(letters) for size in range(1, 6) for letters in itertools.product("ab*", repeat=size)]
    for pattern in patterns:
        expression = re.compile(pattern.replace("*", ".*"))
        assert [fits(pattern, name) for name in names] == [expression.fullmatch(name) is not None for name in names]


def test_a_pattern_is_no_regular_expression():
    """Only * is special, and a pattern of many stars costs no more than its length."""
    assert fits("a.c", "a.c")
    assert not fits("a.c", "abc")
    assert not fits("a" + "*a" * 90 + "b", "a" * 200)


RULES = [
    {"match": "users-*", "join": "users", "send": "users"},
    {"match": "token-*", "join": "token", "send": "token"},
    {"match": "handler-*", "join": "handler", "send": "handler"},
    {"match": "vetoed-*", "join": "handler", "send": "handler"},
    {"match": "news-*", "send": "nobody"},
    {"match": "closed-*", "join": "nobody"},
]


@pytest.fixture(scope="module")
def _ruled() -> Iterator[Nodes]:
    server = RedisServer()
    nodes = Nodes(1, server, handler="patterned:Patterned", channels=RULES)
    try:
        with asyncio.Runner() as runner:
            runner.run(server.start())
            runner.run(nodes.start())
        yield nodes
    finally:
        nodes.close()
        server.close()


@pytest.fixture
def nodes(_ruled: Nodes) -> Nodes:
    """One node with rules; it lives as long as the module."""
    _ruled[0].process.assert_running()
    return _ruled


@pytest.fixture
def node(nodes: Nodes) -> Node:
    return nodes[0]


async def refusal(node: Node, wire: Wires, *channels: str, **query: str) -> tuple[int, bytes]:
    """Ask for an upgrade; return the status, and the text of a refusal."""
    client = await wire.open(node.ws_url(*channels, **query))
    await client.write(client.upgrade())
    head: Head = await client.read_head()
    length = int(head.headers.get("content-length", 0))
    return head.status, await client.read_exactly(length) if length else b""


@pytest.mark.parametrize(
    ("channel", "query", "status"),
    [
        ("users-1", {}, 403),
        ("users-1", {"user": "ada"}, 101),
        ("token-1", {"user": "ada"}, 403),
        ("token-1", {"user": "ada", "may": "token-*"}, 101),
        ("token-1", {"may": "token-*"}, 101),
        ("other", {"user": "ada", "may": "token-*"}, 403),
        ("handler-1", {}, 101),
        ("vetoed-1", {"user": "ada"}, 403),
        ("closed-1", {"user": "ada", "may": "*"}, 403),
        ("news-1", {}, 101),
    ],
    ids=str,
)
async def test_a_handshake_asks_for_every_channel(node: Node, wire: Wires, channel, query, status):
    """403 before the upgrade, also when one of several is refused."""
    assert (await refusal(node, wire, channel, **query))[0] == status
    if "may" not in query:
        assert (await refusal(node, wire, "other", channel, **query))[0] == status


async def test_a_refusal_does_not_tell_whether_a_channel_exists(node: Node, wire: Wires, connect: Clients):
    """The same words for a channel with members and for one without, on every way there is."""
    member = await connect(node.ws_url(user="ada", may="token-real"), "token-real", protocols=V1)
    assert (await member.expect("$welcome"))["param"]["channels"] == ["token-real"]
    real = await refusal(node, wire, "token-real", user="eve")
    none = await refusal(node, wire, "token-none", user="eve")
    assert real == (403, none[1].replace(b"none", b"real"))
    eve = await connect(node.ws_url(user="eve"), protocols=V1)
    for cmd, param in (("$join", None), ("chat", {"text": "x"}), ("$presence", None), ("$history", None)):
        answers = [await eve.request(cmd, param, channel) for channel in ("token-real", "token-none")]
        assert [answer["param"]["code"] for answer in answers] == ["forbidden"] * 2
        texts = [answer["param"]["message"].replace("none", "real") for answer in answers]
        assert texts[0] == texts[1]
    rooms = [await eve.request("join-room", {"room": room}) for room in ("token-real", "token-none")]
    assert [answer["param"]["code"] for answer in rooms] == ["forbidden"] * 2
    await member.expect_nothing_but()


async def test_joining_and_sending_go_by_the_rule(node: Node, connect: Clients):
    """`$join`, the demo's `join-room` and every command; what is refused harms nothing."""
    ada = await connect(node.ws_url(user="ada", may="news-*,users-*"), "news-1", protocols=V1)
    joins = {"users-2": "$reply", "news-2": "$reply", "closed-2": "$error", "elsewhere": "$error", "vetoed-2": "$error"}
    for channel, joined in joins.items():
        assert (await ada.request("$join", channel=channel))["cmd"] == joined
        assert (await ada.request("join-room", {"room": channel}, channel="users-2"))["cmd"] == joined
    for named, sent in (("users-2", "$reply"), ("news-1", "$error"), ("token-2", "$error"), (None, "$error")):
        answer = await ada.request("chat", {"text": "hello"}, channel=named)
        assert answer["cmd"] == sent
        assert sent == "$reply" or answer["param"]["code"] == "forbidden"


async def test_naming_another_channel_is_no_way_around_a_rule(node: Node, connect: Clients):
    """The demo answers to the first channel what names one the sender is not in: then the first one's rule counts."""
    ada = await connect(node, "news-3", protocols=V1)
    answer = await ada.request("chat", {"text": "fake news"}, channel="anything")
    assert answer["param"]["code"] == "forbidden"
    await ada.expect_nothing_but("$welcome")


async def test_operators_may_do_what_clients_may_not(nodes: Nodes, connect: Clients):
    """A rule is about clients: what is published by hand arrives."""
    ada = await connect(nodes[0], "news-4", protocols=V1)
    await ada.expect("$welcome")
    await nodes.redis.command("PUBLISH", "gateway:channel:news-4", injection("headline", 1))
    assert (await ada.expect("headline"))["param"] == 1


async def test_before_the_upgrade_the_handler_is_asked_about_the_connection_that_comes_to_be(connect: Clients):
    """What it notes down about an id holds for the one that opens."""
    async with running_node(Settings(port=0, handler=f"{__name__}:Seeing")) as (address, *_):
        ada = await connect(f"{address.replace('http', 'ws', 1)}/connect?ch=lobby", protocols=V1)
        id = (await ada.expect("$welcome"))["param"]["connection"]
        asked = (await ada.request("asked", None, "lobby"))["param"]
        assert asked == [[id, "127.0.0.1", "join"], [id, "127.0.0.1", "send"]]


async def test_the_application_joins_where_clients_may_not(connect: Clients):
    """`upgrade` and `join` are the server's own decisions; `service.authorize` tells what a client's would be."""
    rules = [Rule(match="closed-*", join="nobody", send="nobody")]
    embedded = Embedded("memory://", channels=rules)
    await embedded.start()
    try:
        member = await embedded.connect(connect, "closed-1")
        assert await embedded.service.join(member.id, "closed-2")
        await embedded.service.write_channel("news", 1, "closed-2")
        await member.client.expect("news")
        visitor = Connection("", Profile(), embedded.handler)
        assert not await embedded.service.authorize(visitor, "closed-1", "join")
        assert await embedded.service.authorize(visitor, "open", "send")
    finally:
        await embedded.stop()
