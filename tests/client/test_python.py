"""The client in Python: against real nodes, and against a server that does what nodes seldom do."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from gateway.client import Client, Message, Position, connect
from gateway.client.retry import Backoff
from gateway.errors import Forbidden, InvalidChannel, NoAnswer, NotConnected, RateLimited, Unauthorized
from tests.harness.feed import KEPT, RULES
from tests.harness.haproxy import Haproxy
from tests.harness.node import Node, Nodes
from tests.harness.numbered import running
from tests.harness.ports import HOST, free_port, release_port
from tests.harness.redis import RedisServer
from tests.harness.scripted import Scripted
from tests.harness.stream import Stream, assert_whole
from tests.harness.wait import eventually

ANSWERING = {"handler": "tests.handlers.answering:Answering", "channels": RULES}

StartNodes = Callable[..., Awaitable[Nodes]]
StartNode = Callable[..., Awaitable[Node]]


async def _next(inbox: AsyncIterator[Message]) -> Message:
    async with asyncio.timeout(5):
        return await anext(inbox)


# ---- against a node


async def test_an_application_s_day(start_node: StartNode) -> None:
    """Join, send, ask, see who is there, read what was said, leave."""
    node = await start_node(**ANSWERING)
    async with connect(node.ws_url(user="ada")) as ada, connect(node.ws_url(user="bob"), channels=["kept"]) as bob:
        assert ada.stats().state == "open"
        assert ada.welcome is not None
        assert ada.welcome.user == "ada"
        heard = ada.messages("kept", "said")
        everything = aiter(bob)
        await bob.join("kept")
        await ada.join("kept")
        assert await ada.request("add", [1, 2]) == 3
        await bob.send("say", {"text": "hi"}, channel="kept")
        assert await _next(heard) == Message("kept", "said", {"text": "hi"}, sender="bob", offset=1)
        assert (await _next(everything)).cmd == "online-update"
        assert (await _next(everything)).cmd == "said"

        presence = await ada.presence("kept")
        assert (presence.count, sorted(presence.users or [])) == (2, ["ada", "bob"])
        history = await ada.history("kept", limit=5)
        assert [message.param for message in history.messages] == [{"text": "hi"}]
        assert ada.position("kept") == Position(str(history.epoch), 1)

        await bob.leave("kept")
        await bob.leave("kept")
        assert (await ada.presence("kept")).users == ["ada"]
        assert ada.stats().connects == 1
        assert ada.stats().pending == 0
    assert ada.state == "closed"


async def test_what_is_refused_is_raised(start_node: StartNode) -> None:
    """By its type, with the fields that the server gave."""
    node = await start_node(**ANSWERING)
    async with connect(node.ws_url()) as client:
        with pytest.raises(RateLimited, match="slow down") as refused:
            await client.request("refuse")
        assert refused.value.fields == {"retry_after": 2}
        with pytest.raises(Forbidden):
            await client.join("secret")
        with pytest.raises(Forbidden):
            await client.join("secret")
        with pytest.raises(InvalidChannel):
            await client.join("no such name")
        with pytest.raises(Forbidden):
            await client.presence("kept")
        with pytest.raises(NoAnswer):
            await client.request("hang", timeout=0.1)


@pytest.mark.parametrize("cmd", ["end", "farewell"])
async def test_an_end_for_good_ends_the_client(start_node: StartNode, cmd: str) -> None:
    """4410 and `close-connection`: iterators end, and what is sent afterwards raises."""
    node = await start_node(**ANSWERING)
    async with connect(node.ws_url()) as client:
        await client.send(cmd, 4410)
        async with asyncio.timeout(5):
            assert [message async for message in client if message.cmd != "close-connection"] == []
        assert client.state == "closed"
        with pytest.raises(NotConnected):
            await client.send("add", [])
        with pytest.raises(NotConnected):
            await client.join("kept")
        assert [message async for message in client.messages("kept")] == []


async def test_a_lost_connection_comes_back_with_its_channels(start_node: StartNode) -> None:
    """What was missed is there, once; requests under way are told, later ones wait."""
    node = await start_node(**ANSWERING)
    states: list[str] = []
    async with connect(node.ws_url(), channels=["kept", "loose"], first_delay=0.01, on_state=states.append) as client:
        said = client.messages(cmd="said")
        await client.send("say", 1, channel="kept")
        assert (await _next(said)).param == 1
        with pytest.raises(NotConnected):
            await client.request("hang", 1012)
        await client.send("say", 2, channel="kept")
        assert client.welcome is not None
        assert [await _next(said), await _next(said)] == [
            Message("loose", "$gap", {"since": None, "epoch": None}),
            Message("kept", "said", 2, sender=client.welcome.user, offset=2),
        ]
        assert client.stats().connects == 2
        assert client.stats().gaps == 1
    assert states == ["connecting", "open", "waiting", "connecting", "open", "closed"]


async def test_a_stream_stays_whole_while_its_nodes_are_restarted(
    redis: RedisServer, start_nodes: StartNodes, start_haproxy: Callable[[Nodes], Awaitable[Haproxy]]
) -> None:
    """Behind a balancer, from node to node: complete, in order, nothing twice, no gap."""
    nodes = await start_nodes(2, redis, channels=RULES, drain_seconds=2)
    balancer = await start_haproxy(nodes)
    async with (
        running(redis.url) as backplane,
        connect(balancer.ws_url(), channels=["kept"]) as client,
    ):
        stream = Stream(lambda number: backplane.append("kept", Stream.envelope("kept", number), KEPT))
        inbox = client.messages("kept", "n", limit=10_000)
        await client.join("kept")
        async with stream.flowing():
            for _ in range(2):
                assert client.welcome is not None
                held = next(node for node in nodes if node.id == client.welcome.node)
                connects = client.stats().connects
                await held.stop() if connects == 1 else await held.kill()
                await _connects(client, connects + 1)
                await held.start()
                await balancer.state(held, "UP")
        await eventually(lambda: (at := client.position("kept")) and at.offset == stream.sent, 20, what="all of it")
        inbox.end()
        assert_whole([message.param async for message in inbox], stream.sent)
        assert client.stats().gaps == 0


# ---- against a server that does as it is told


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with Scripted().running() as server:
        yield server


def _close(code: int, reason: str = "") -> Callable[[web.WebSocketResponse], Awaitable[object]]:
    async def close(socket: web.WebSocketResponse) -> None:
        await socket.close(code=code, message=reason.encode())
        raise asyncio.CancelledError

    return close


def _jwt(seconds: float) -> str:
    payload = json.dumps({"exp": time.time() + seconds})
    return f"e30.{base64.urlsafe_b64encode(payload.encode()).decode().rstrip('=')}.s"


async def _connects(client: Client, count: int) -> None:
    await eventually(lambda: client.stats().connects == count, 60, what=f"{count} connections")


async def test_the_pause_that_a_restarting_node_names_is_kept(server: Scripted) -> None:
    """And the next connection is made after it."""
    server.steps = [_close(1012, "node is restarting; retry_after=0.2")]
    began = time.monotonic()
    async with connect(server.url, first_delay=60) as client:
        await client.send("go")
        await _connects(client, 2)
    assert 0.2 <= time.monotonic() - began < 20


async def test_a_refused_token_is_replaced_once(server: Scripted) -> None:
    """After 4401 another one is asked for; when that is refused as well, it is over."""
    server.steps, server.statuses = [_close(4401)], [101, 401]
    tokens = iter("abc")
    async with connect(server.url, token=lambda: next(tokens), first_delay=0.01) as client:
        await client.send("go")
        with pytest.raises(Unauthorized):
            async for _ in client:
                pass
        assert client.state == "failed"
        with pytest.raises(Unauthorized):
            await client.request("add")
    assert server.tokens == ["Bearer a", "Bearer b"]


async def test_the_same_token_is_not_shown_again(server: Scripted) -> None:
    """Neither a fixed one, nor one from a function that has no other."""
    for token in ("fixed", lambda: "fixed"):
        server.steps = [_close(4401)]
        async with connect(server.url, token=token, first_delay=0.01) as client:
            await client.send("go")
            with pytest.raises(Unauthorized):
                await anext(aiter(client))
    assert server.tokens == ["Bearer fixed"] * 2


async def test_a_token_is_renewed_before_it_expires(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the open connection; a source that fails meanwhile is asked again."""
    monkeypatch.setattr("gateway.client.token.SHORTEST", 0.01)
    tokens = [_jwt(1), None, _jwt(60)]

    async def fetch() -> str:
        found = tokens.pop(0)
        if found is None:
            raise OSError("no network")
        return found

    async with connect(server.url, token=fetch) as client:
        await eventually(lambda: [one["cmd"] for one in server.asked] == ["$auth"])
        assert client.stats().connects == 1


@pytest.mark.parametrize(("status", "error"), [(401, Unauthorized), (403, Forbidden), (404, NotConnected)])
async def test_a_refused_upgrade_that_no_attempt_can_mend_is_raised(
    server: Scripted, status: int, error: type[Exception]
) -> None:
    """By the one who connects."""
    server.statuses = [status]
    with pytest.raises(error, match=str(status)):
        await connect(server.url)


async def test_a_full_server_is_asked_again(server: Scripted) -> None:
    """503 and 429 pass."""
    server.statuses = [503, 429]
    async with connect(server.url, first_delay=60):
        pass
    assert len(server.tokens) == 3


async def test_what_is_no_gateway_is_said(start_node: StartNode) -> None:
    """A wrong address is an error, not a reason to try for ever."""
    with pytest.raises(NotConnected):
        await connect("http://[nonsense")
    port = free_port()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), connect(f"http://{HOST}:{port}/"):
                pass
    finally:
        release_port(port)


async def test_a_listener_of_states_that_raises_harms_nothing(server: Scripted) -> None:
    """It is logged."""

    def listen(state: str) -> None:
        raise RuntimeError(state)

    async with connect(server.url, on_state=listen) as client:
        assert await client.request("anything") == {}


# ---- rules


async def test_a_slow_reader_is_told_of_what_it_missed(server: Scripted) -> None:
    """The oldest messages give way, and a gap stands in their place."""

    async def write(socket: web.WebSocketResponse) -> None:
        for number in range(4):
            await socket.send_json({"channel": "lobby", "cmd": "n", "param": number})

    server.steps = [write]
    async with connect(server.url) as client:
        inbox, closed = client.messages("lobby", limit=2), client.messages()
        other = client.messages("other")
        closed.close()
        await client.request("go")
        assert client.stats().dropped == inbox.dropped == 2
        assert [(await _next(inbox)).param for _ in range(3)] == [{"since": None, "epoch": None}, 2, 3]
        other.end()
        assert [message async for message in other] == [message async for message in closed] == []


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_jitter_is_full(share: float) -> None:
    """Every pause lies between nothing and the ceiling, at the cap as well."""
    backoff = Backoff(0.5, 20, lambda: share)
    pauses = [backoff.next() for _ in range(2000)]
    assert pauses[:7] == [share * ceiling for ceiling in (0.5, 1, 2, 4, 8, 16, 20)]
    assert pauses[-1] == share * 20
    backoff.reset()
    assert backoff.next() == share * 0.5


def test_the_client_is_installed_and_its_neighbours_are_not(tmp_path: Path) -> None:
    """The wheel holds the Python files of `gateway/client`, and the built browser client, not its sources."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    here = {name for name in names if name.startswith("gateway/client/")}
    python = {f"gateway/client/{path.name}" for path in (root / "gateway" / "client").glob("*.py")}
    assert here == python | {f"gateway/client/dist/gateway.{kind}" for kind in ("js", "mjs", "d.ts")}
