"""The sample of the contract, word for word: what an application may rely on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiohttp import web

from gateway import SERVICE, Connection, Handler, InvalidSettings, Profile, Service, Settings, setup
from tests.harness.client import Client, Clients
from tests.harness.ports import HOST
from tests.harness.wait import eventually

# fmt: off

class ChatHandler(Handler):
    async def on(self, service: Service, connection: Connection, cmd: str, param) -> object:  # type: ignore[return]
        match cmd:
            case "ping":
                await service.write_channel("pong", {"timestamp": time.time_ns() // 1_000_000}, connection.channel)
            case "join-room":
                await service.join(connection.id, param["room"])


async def socket(request: web.Request) -> web.WebSocketResponse:
    service = request.app[SERVICE]                     # an aiohttp AppKey
    conn_id = await service.upgrade(request, "lobby", Profile(id="42", name="Ada"), ChatHandler())
    return await service.read_loop(conn_id)            # returns when the connection has closed

# fmt: on


@dataclass(frozen=True, slots=True)
class Sample:
    """The sample, served."""

    service: Service
    address: str


@pytest.fixture
async def sample(backplane_url: str) -> AsyncIterator[Sample]:
    """The sample's application."""
    app = web.Application()
    setup(app, redis_url=backplane_url)
    app.router.add_get("/chat/socket", socket)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    yield Sample(app[SERVICE], f"ws://{HOST}:{runner.addresses[0][1]}/chat/socket")
    await runner.cleanup()


@pytest.fixture
async def client(sample: Sample, connect: Clients) -> AsyncIterator[Client]:
    """A client of the sample, in the lobby."""
    yield await connect(sample.address)
    await connect.close()


async def test_a_ping_is_answered_in_the_channel(client: Client) -> None:
    """The handler's write comes back as a message of the lobby, with the time of the node."""
    before = time.time_ns() // 1_000_000
    await client.send("ping")
    pong = await client.receive()
    assert before <= pong["param"]["timestamp"] <= time.time_ns() // 1_000_000
    assert pong == {"channel": "lobby", "cmd": "pong", "param": {"timestamp": pong["param"]["timestamp"]}}


async def test_a_room_is_joined(client: Client, sample: Sample, connect: Clients) -> None:
    """Both tabs of one user are members then, which the whole cluster can see."""
    second_tab = await connect(sample.address)
    for tab in (client, second_tab):
        await tab.send("join-room", {"room": "side"})

    async def both_are_there() -> bool:
        found = [connection async for connection in sample.service.get_connections_by_channel("side")]
        assert [(connection.user, connection.name) for connection in found] == [("42", "Ada")] * 2
        return True

    await eventually(both_are_there)


async def test_an_error_in_the_handler_is_internal(client: Client) -> None:
    """`param["room"]` of nothing is a KeyError, which is the application's affair."""
    await client.send("join-room", {})
    error = await client.expect("$error")
    assert error["param"]["code"] == "internal"
    assert "room" not in error["param"]["message"]
    await client.send("ping")
    await client.expect("pong")


async def test_what_a_handler_does_not_know_is_not_answered(client: Client) -> None:
    """The sample's `on` says nothing to other commands, and nobody says it in its place."""
    await client.send("dance")
    await client.expect_nothing_but()


def test_setup_returns_the_service_that_the_application_finds() -> None:
    """`app[SERVICE]` is there at once, with the settings given and the defaults."""
    app = web.Application()
    service = setup(app, Settings(prefix="other"))
    assert app[SERVICE] is service
    assert (service.settings.prefix, service.settings.redis_url) == ("other", "memory://")


def test_settings_are_given_in_one_way() -> None:
    """Settings and fields of settings at once would leave open which counts."""
    with pytest.raises(InvalidSettings):
        setup(web.Application(), Settings(), prefix="other")


def test_a_wrong_field_is_named() -> None:
    """An application learns of its mistake when it is put together."""
    with pytest.raises(InvalidSettings, match="publish_timeout"):
        setup(web.Application(), publish_timeout="soon")
