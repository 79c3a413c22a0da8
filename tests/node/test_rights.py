"""Every right is looked at again when what it came from has changed: a token, a name, what a handler says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

import jwt
import pytest

from gateway import Connection, Forbidden, Settings
from gateway.config import Rule
from gateway.node.service import NodeService
from gateway.server.running import running_node
from tests.handlers.judging import Judging
from tests.harness.client import Client, Clients
from tests.harness.embedded import Embedded, Member
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

SECRET = "a secret of the tests, long enough to be none"
V1 = ["gateway.v1.json"]
RULES = [Rule(match="secret-*", history=10, send="token")]
ALL = ["public-*", "secret-*"]


def token(channels: list[str] | None = None, name: str = "Ada") -> str:
    """Make a token of Ada's."""
    return jwt.encode({"sub": "ada", "name": name, "channels": ALL if channels is None else channels}, SECRET)


# ---- the table: ways into a channel x what ends the right to be there x everything that the right was good for


@dataclass
class Place:
    """Ada in `public-1` and in `secret-1`, where Bob is, too; and the node they are at."""

    ada: Client
    bob: Client
    id: str
    service: NodeService
    redis: RedisServer
    numbers: Iterator[int]

    async def arrived_of(self, client: Client, write: Callable[[int], Awaitable[object]]) -> bool:
        """Write a number; tell whether a client was written it before what was written later."""
        number = next(self.numbers)
        await write(number)
        await self.service.write_channel(f"mark-{number}", None, "public-1")
        await client.expect(f"mark-{number}")
        return any(str(number) in str(message.get("param")) for message in client.received)

    async def answered(self, cmd: str, param: object = None) -> bool:
        """Ask something of the secret channel; tell whether it was allowed."""
        answer = await self.ada.request(cmd, param, "secret-1")
        assert answer["cmd"] == "$reply" or answer["param"]["code"] == "forbidden"
        return bool(answer["cmd"] == "$reply")


async def _hears(place: Place) -> bool:
    return await place.arrived_of(place.ada, lambda number: place.service.write_channel("news", number, "secret-1"))


async def _is_heard(place: Place) -> bool:
    return await place.arrived_of(
        place.bob, lambda number: place.ada.request("chat", {"text": f"{number}"}, "secret-1")
    )


async def _is_online(place: Place) -> bool:
    return bool(await place.redis.command("SISMEMBER", "gateway:online:secret-1", "ada"))


async def _is_member(place: Place) -> bool:
    members = [found.id async for found in place.service.get_connections_by_channel("secret-1")]
    in_set = bool(await place.redis.command("SISMEMBER", "gateway:members:secret-1", place.id))
    assert in_set == (place.id in members)
    return in_set


async def _is_noted(place: Place) -> bool:
    return "secret-1" in await place.redis.command("HGET", f"gateway:connection:{place.id}", "channels")


RIGHTS: dict[str, Callable[[Place], Awaitable[bool]]] = {
    "receive": _hears,
    "send": _is_heard,
    "ask for presence": lambda place: place.answered("$presence"),
    "read history": lambda place: place.answered("$history"),
    "stand in the online set": _is_online,
    "stand in the members set": _is_member,
    "stand in the connection's hash": _is_noted,
    "come back": lambda place: place.answered("$join"),
}
WAYS: dict[str, Callable[[Client], Awaitable[object]] | None] = {
    "address": None,
    "$join": lambda client: client.request("$join", None, "secret-1"),
    "handler": lambda client: client.request("join-room", {"room": "secret-1"}),
}
ENDS = {"patterns": token(["public-*"]), "name": token(name="Mallory")}


@pytest.fixture
async def node(redis: RedisServer) -> AsyncIterator[tuple[str, NodeService]]:
    """A node with tokens and rules, in this process."""
    handler = "tests.handlers.judging:Judging"
    settings = Settings(port=0, redis_url=redis.url, jwt_secret=SECRET, channels=tuple(RULES), handler=handler)
    async with running_node(settings) as (address, service, *_):
        yield address.replace("http", "ws", 1) + "/connect", service


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_right_ends_with_the_token_it_came_from(
    node: tuple[str, NodeService], redis: RedisServer, connect: Clients, way: str, end: str
) -> None:
    """All that it was good for ends, from the answer to `$auth` on; what the new token allows stays."""
    address, service = node
    bob = await connect(
        f"{address}?token={jwt.encode({'sub': 'bob', 'channels': ALL}, SECRET)}", *("public-1", "secret-1")
    )
    enter = WAYS[way]
    channels = ["public-1"] if enter else ["public-1", "secret-1"]
    ada = await connect(f"{address}?token={token()}", *channels, protocols=V1)
    id = (await ada.expect("$welcome"))["param"]["connection"]
    if enter:
        await enter(ada)
    place = Place(ada, bob, id, service, redis, iter(range(1000, 2000)))
    assert {right: await check(place) for right, check in RIGHTS.items()} == dict.fromkeys(RIGHTS, True)

    assert (await ada.request("$auth", {"token": ENDS[end]}))["cmd"] == "$reply"
    assert [message for message in ada.received if message["cmd"] == "$left"] == [
        {"channel": "secret-1", "cmd": "$left", "param": {"reason": "forbidden"}}
    ]
    assert {right: await check(place) for right, check in RIGHTS.items()} == dict.fromkeys(RIGHTS, False)
    assert await bob.expect("online-update", channel="secret-1", param={"userID": "ada", "connected": False})
    assert (await ada.request("$presence", None, "public-1"))["param"]["count"] == 2
    connection = service.node.hub.connections[id]
    assert (connection.channels, connection.placed) == (("public-1",), ())


async def test_nothing_of_a_channel_comes_after_the_word_that_it_was_left(
    node: tuple[str, NodeService], connect: Clients
) -> None:
    """However much is on its way; what comes before it is in order."""
    address, service = node
    ada = await connect(f"{address}?token={token()}", "public-1", "secret-1", protocols=V1)
    await ada.expect("$welcome")
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            await asyncio.gather(*(service.write_channel("news", written + n, "secret-1") for n in range(20)))
            written += 20

    writing = asyncio.create_task(write())
    await ada.expect("news")
    await ada.request("$auth", {"token": token(["public-*"])})
    so_far = written
    await eventually(lambda: written > so_far + 40)
    writing.cancel()
    await asyncio.wait([writing])
    await service.write_channel("end", None, "public-1")
    await ada.expect("end")
    secret = [message for message in ada.received if message["channel"] == "secret-1"]
    assert [message["cmd"] for message in secret].index("$left") == len(secret) - 1
    assert [message["param"] for message in secret[:-1]] == list(range(len(secret) - 1))


async def test_a_token_that_allows_as_much_changes_nothing(node: tuple[str, NodeService], connect: Clients) -> None:
    """Nobody leaves, and nobody is told anything."""
    address, _ = node
    ada = await connect(f"{address}?token={token()}", "public-1", "secret-1", protocols=V1)
    await ada.expect("$welcome")
    await ada.request("$auth", {"token": token(["secret-1", "public-1"])})
    await ada.request("$auth", {"token": jwt.encode({"sub": "ada"}, SECRET)})
    await ada.expect_nothing_but()
    assert (await ada.request("$presence", None, "secret-1"))["cmd"] == "$reply"


# ---- what the server decided, and what happens at the same time


@dataclass
class Judged:
    """An application whose handler a test has in its hands, and Ada there, whom the server put in the lobby."""

    node: Embedded
    handler: Judging
    ada: Member

    @property
    def connection(self) -> Connection:
        return self.node.service.node.hub.connections[self.ada.id]

    async def renew(self, *channels: str) -> None:
        """Show a token of hers that names these channels, and no others."""
        given = jwt.encode({"sub": "ada", "channels": list(channels)}, SECRET)
        assert (await self.ada.client.request("$auth", {"token": given}))["cmd"] == "$reply"

    @property
    def left(self) -> list[tuple[str, str]]:
        """What she was told to have left, and why."""
        found = [message for message in self.ada.client.received if message["cmd"] == "$left"]
        return [(message["channel"], message["param"]["reason"]) for message in found]


@pytest.fixture
async def judged(connect: Clients) -> AsyncIterator[Judged]:
    """One node without a Redis."""
    handler = Judging()
    async with Embedded("memory://", handler=handler, jwt_secret=SECRET) as node:
        yield Judged(node, handler, await node.connect(connect, "lobby", user="ada", protocols=V1))
        await connect.close()


async def test_where_the_server_put_a_connection_it_stays(judged: Judged) -> None:
    """By `upgrade`, or by `join` before or after its client did; until it leaves, and wants to come back."""
    service, client = judged.node.service, judged.ada.client
    for channel in ("chosen", "both", "late"):
        await client.request("$join", None, channel)
    for channel in ("both", "given"):
        await service.join(judged.ada.id, channel)
    await client.request("$join", None, "given")
    await judged.renew()
    assert (judged.connection.channels, judged.left) == (
        ("lobby", "both", "given"),
        [("chosen", "forbidden"), ("late", "forbidden")],
    )
    await client.request("$leave", None, "given")
    assert (await client.request("$join", None, "given"))["param"]["code"] == "forbidden"


async def test_the_server_s_taking_out_is_told_and_a_client_s_leaving_is_answered(judged: Judged) -> None:
    """The one by `$left`, the other by its reply alone."""
    await judged.node.service.leave(judged.ada.id, "lobby")
    await judged.node.service.leave(judged.ada.id, "lobby")
    await judged.ada.client.request("$join", None, "tea")
    await judged.ada.client.request("$leave", None, "tea")
    assert judged.left == [("lobby", "removed")]


async def test_a_plain_client_is_told_nothing(judged: Judged, connect: Clients) -> None:
    """It knows no such word."""
    plain = await judged.node.connect(connect, "lobby")
    await judged.node.service.leave(plain.id, "lobby")
    await plain.client.send("?")
    assert [(await plain.client.receive())["cmd"]] == ["$error"]


async def test_a_join_under_way_is_looked_at_again(judged: Judged) -> None:
    """The handler was asked for the old token, and says yes after the new one has come."""
    judged.handler.gate = asyncio.Event()
    joining = asyncio.create_task(judged.node.service.join_for(judged.connection, "secret-1"))
    while ("secret-1", "join") not in judged.handler.asked:
        await asyncio.sleep(0)
    await judged.renew("public-*")
    judged.handler.gate.set()
    with pytest.raises(Forbidden, match="not allowed to join secret-1"):
        await joining
    assert (judged.connection.channels, judged.left) == (("lobby",), [])


async def test_a_review_overtaken_by_another_decides_nothing(judged: Judged) -> None:
    """Its answers are for a token that is no longer the latest."""
    service, client = judged.node.service, judged.ada.client
    await client.request("$join", None, "secret-1")
    judged.handler.gate = asyncio.Event()
    judged.connection.profile = replace(judged.connection.profile, name="Mallory")
    first = asyncio.create_task(service.review(judged.connection))
    while judged.handler.asked.count(("secret-1", "join")) < 2:
        await asyncio.sleep(0)
    judged.connection.profile = replace(judged.connection.profile, name="Ada")
    second = asyncio.create_task(service.review(judged.connection))
    judged.handler.gate.set()
    await asyncio.gather(first, second)
    assert (judged.connection.channels, judged.left) == (("lobby", "secret-1"), [])


@pytest.mark.parametrize("failure", [RuntimeError, SystemExit, asyncio.CancelledError, lambda: Forbidden("no")])
async def test_a_handler_that_fails_to_answer_allows_nothing(
    judged: Judged, failure: Callable[[], BaseException]
) -> None:
    """The token is renewed all the same."""
    await judged.ada.client.request("$join", None, "secret-1")
    judged.handler.failure = failure
    await judged.renew("secret-*")
    assert judged.left == [("secret-1", "forbidden")]
    assert (await judged.ada.client.request("$ping"))["cmd"] == "$reply"


async def test_an_application_asks_again_by_itself(judged: Judged) -> None:
    """When its own mind has changed."""
    await judged.ada.client.request("$join", None, "secret-1")
    await judged.ada.client.request("$join", None, "tea")
    judged.handler.failure = lambda: Forbidden("banned")
    await judged.node.service.review(judged.connection)
    assert judged.connection.channels == ("lobby", "tea")
    assert (await judged.ada.client.expect("$left"))["channel"] == "secret-1"
