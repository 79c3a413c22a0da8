"""What an aiohttp application that takes the gateway in may rely on, and what it is told when it is mistaken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from gateway import (
    SERVICE,
    ConnectionNotFound,
    Forbidden,
    Handler,
    InvalidSettings,
    Profile,
    Settings,
    Unauthorized,
    Unavailable,
    add_routes,
    setup,
)
from gateway.application.loading import load_handler
from gateway.server.connect import NODE
from tests.harness.ports import HOST
from tests.harness.wait import eventually
from tests.harness.wire import CLOSE, Wires

Page = Callable[[web.Request], Any]
Application = TestClient[web.Request, web.Application]

HEADERS = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}


class Chat(Handler):
    """Answers nothing."""


class Pair(Chat):
    """Not to be made without both."""

    def __init__(self, one: int, other: int) -> None: ...


@asynccontextmanager
async def running(app: web.Application) -> AsyncIterator[Application]:
    """Run an application for the length of a `with`."""
    client: Application = TestClient(TestServer(app))
    async with client:
        yield client


def answering(page: Page, **settings: Any) -> AbstractAsyncContextManager[Application]:
    """Run an application of one page."""
    app = web.Application()
    setup(app, **settings)
    app.router.add_get("/", page)
    return running(app)


def socket_of(channel: Any, profile: Any, handler: Any) -> Page:
    """Make the page that upgrades every request so."""

    async def socket(request: web.Request) -> web.StreamResponse:
        service = request.app[SERVICE]
        return await service.read_loop(await service.upgrade(request, channel, profile, handler))

    return socket


async def shake(client: Application, **headers: str) -> ClientResponse:
    """Ask for a WebSocket."""
    return await client.get("/", headers={**HEADERS, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", **headers})


class TestRefusals:
    @pytest.mark.parametrize(
        ("error", "status"), [(Unauthorized("who?"), 401), (Forbidden("not you"), 403), (Unavailable("away"), 503)]
    )
    async def test_what_a_page_lets_through_has_its_status(self, error: Exception, status: int) -> None:
        async def page(request: web.Request) -> web.Response:
            raise error

        async with answering(page) as client:
            response = await client.get("/")
            assert (response.status, await response.text()) == (status, f"{error}\n")

    async def test_an_illegal_channel_in_an_address_is_400(self) -> None:
        async with answering(socket_of("a b", Profile("ada"), Chat())) as client:
            response = await shake(client)
            assert (response.status, "' ' is not allowed" in await response.text()) == (400, True)

    @pytest.mark.parametrize(
        ("headers", "status"),
        [({"Origin": "https://evil.example"}, 403), ({"Sec-WebSocket-Protocol": "gateway.token.x"}, 400)],
        ids=["foreign", "lone token"],
    )
    async def test_a_foreign_page_and_a_lone_token_are_refused_here_too(
        self, headers: dict[str, str], status: int
    ) -> None:
        async with answering(socket_of("lobby", Profile("ada"), Chat())) as client:
            assert (await shake(client, **headers)).status == status
            assert (await client.app[SERVICE].status()).counters.refusals == {status: 1}

    async def test_a_middleware_of_the_application_sees_the_refusal(self) -> None:
        """As what aiohttp itself raises: it need not know the gateway's errors."""
        seen: list[int] = []

        @web.middleware
        async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
            try:
                return await handler(request)
            except web.HTTPException as error:
                seen.append(error.status)
                raise

        app = web.Application(middlewares=[middleware])
        setup(app)
        app.router.add_get("/", socket_of("", Profile("a b"), Chat()))
        async with running(app) as client:
            await shake(client)
        assert seen == [400]


class TestMistakes:
    @pytest.mark.parametrize(
        ("profile", "handler", "said"),
        [
            pytest.param("ada", Chat(), "expected a gateway.Profile, got 'ada'", id="profile"),
            pytest.param(None, Chat(), "expected a gateway.Profile, got None", id="nobody"),
            pytest.param(Profile(), Chat, "not the class", id="class"),
            pytest.param(Profile(), print, "expected a gateway.Handler, got <built-in", id="function"),
        ],
    )
    async def test_what_is_of_another_type_is_named(
        self, profile: Any, handler: Any, said: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Before the upgrade, in the traceback of the application's own page."""
        async with answering(socket_of("lobby", profile, handler)) as client:
            assert (await shake(client)).status == 500
        assert said in caplog.text

    async def test_a_user_without_a_name_is_no_mistake(self) -> None:
        profile: Any = Profile(id="ada", name=None)  # type: ignore[arg-type]
        async with answering(socket_of("lobby", profile, Chat())) as client, client.ws_connect("/") as socket:
            await socket.send_str("{")
            assert "bad-message" in await socket.receive_str(timeout=10)

    def test_a_url_in_the_place_of_settings_is_named(self) -> None:
        with pytest.raises(InvalidSettings, match=r"expected gateway\.Settings, got str: fields are given by name"):
            setup(web.Application(), "redis://localhost")  # type: ignore[arg-type]

    async def test_before_it_runs_a_service_tells_of_itself_and_does_nothing(self) -> None:
        service = setup(web.Application(), prefix="staging")
        assert (service.settings.prefix, service.counters.received, service.readiness.serves) == ("staging", 0, False)
        assert service.readiness.status == "starting"
        assert not service.crashed.is_set()
        for verb in (service.write_all("hello", 1), service.write_connection("hello", 1, "a~1"), service.status()):
            with pytest.raises(Unavailable, match="this node has not started"):
                await verb
        await service.drain()

    def test_one_application_takes_in_one_gateway(self) -> None:
        app = web.Application()
        setup(app)
        with pytest.raises(InvalidSettings, match="has a gateway already"):
            setup(app)

    def test_a_misspelled_variable_is_named(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("GATEWAY_REDIS_UR", "redis://localhost")
        setup(web.Application())
        assert "GATEWAY_REDIS_UR: no such setting; did you mean GATEWAY_REDIS_URL?" in caplog.text

    @pytest.mark.parametrize("name", ["Pair", "Page", "HEADERS"])
    def test_what_can_be_no_handler_is_one_line(self, name: str) -> None:
        with pytest.raises(InvalidSettings, match=rf"handler: expected .*, got '{__name__}:{name}'"):
            load_handler(f"{__name__}:{name}")


class TestEnds:
    """A request handler that ends without `read_loop` ends its connection, and leaves nothing behind."""

    @pytest.fixture(params=["raises", "returns", "gives up", "finds it gone"])
    def page(self, request: pytest.FixtureRequest) -> Page:
        async def page(asked: web.Request) -> web.StreamResponse:
            service = asked.app[SERVICE]
            id = await service.upgrade(asked, "lobby", Profile("ada"), Chat())
            match request.param:
                case "raises":
                    raise RuntimeError("the database is away")
                case "gives up":
                    raise asyncio.CancelledError
                case "finds it gone":
                    await asked.app[SERVICE].disconnect(id, code=1011, reason="internal error")
                    await eventually(lambda: not asked.app[NODE].held.connections)
                    await service.join(id, "kitchen")
            return web.Response()

        return page

    async def test_without_read_loop(self, page: Page) -> None:
        async with answering(page) as client:
            server: Any = client.server
            async with client.ws_connect("/") as socket:
                message = await socket.receive(timeout=10)
                assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 1011, "internal error")
            await eventually(lambda: not server.app[NODE].held.connections)
            await eventually(lambda: not server.handler.connections)

    @pytest.mark.parametrize("cancelling", [True, False], ids=["handlers are cancelled", "handlers are left alone"])
    @pytest.mark.parametrize("end", ["client closes", "client resets", "server closes", "node ends"])
    async def test_what_follows_read_loop_is_done(self, wire: Wires, end: str, *, cancelling: bool) -> None:
        """To its last line, even where aiohttp cancels the handlers of clients that are gone; then it is forgotten."""
        app, done, ids = web.Application(), asyncio.Event(), asyncio.Queue[str]()
        service = setup(app, drain_seconds=1)

        async def page(request: web.Request) -> web.StreamResponse:
            id = await service.upgrade(request, "lobby", Profile("ada"), Chat())
            ids.put_nowait(id)
            response = await service.read_loop(id)
            await asyncio.sleep(0.01)  # as long as it takes to note that somebody has left
            await service.write_channel("left", None, "lobby")
            done.set()
            return response

        app.router.add_get("/", page)
        runner = web.AppRunner(app, handler_cancellation=cancelling)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            client = await wire(f"ws://{HOST}:{runner.addresses[0][1]}/")
            id = await ids.get()
            match end:
                case "client closes":
                    await client.send((1000).to_bytes(2, "big"), CLOSE)
                case "client resets":
                    client.reset()
                case "server closes":
                    await service.disconnect(id)
                    await client.send((await client.read_close()).payload, CLOSE)
                case "node ends":
                    await service.drain()
            async with asyncio.timeout(10):
                await done.wait()
            await eventually(lambda: runner.server is not None and not runner.server.connections, deadline=5)
        finally:
            await runner.cleanup()


async def test_who_writes_when_it_is_over_is_told_at_once() -> None:
    """aiohttp ends the gateway before `on_cleanup`, and after what came into `cleanup_ctx` later."""
    written: list[str] = []
    app = web.Application()

    async def write(app: web.Application) -> None:
        service = app[SERVICE]
        for writing in (service.write_all("x", 1), service.write_connection("x", 1, "elsewhere~1")):
            try:
                await writing
                written.append("yes")
            except (Unavailable, ConnectionNotFound) as error:
                written.append(str(error))

    async def task(app: web.Application) -> AsyncIterator[None]:
        yield
        await write(app)

    setup(app)
    app.cleanup_ctx.append(task)
    app.on_cleanup.append(write)
    async with running(app):
        pass
    assert written == ["yes", "no connection 'elsewhere~1': no node 'elsewhere'", *2 * ["this node has stopped"]]


class TestRoutes:
    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("/static/gateway.js", "javascript"),
            ("/static/gateway.mjs", "javascript"),
            ("/static/gateway.d.ts", ""),
            ("/static/admin/admin.css", "css"),
            ("/static/gateway.tokens.css", "css"),
            ("/admin/websocket", "html"),
            ("/api/openapi.json", "json"),
            ("/healthz", "json"),
            ("/readyz", "json"),
            ("/metrics", "plain"),
        ],
    )
    async def test_an_application_may_have_what_a_node_has(self, path: str, kind: str) -> None:
        """Beside files and pages of its own under the same paths."""
        app = web.Application()
        setup(app, admin_password="secret")
        app.router.add_static("/static/", ".")
        add_routes(app)
        async with running(app) as client:
            response = await client.get(path)
            assert (response.status, kind in response.headers["Content-Type"]) == (200, True)

    async def test_files_of_its_own_are_served_as_it_likes(self, tmp_path: Path) -> None:
        """Ours are for every site, and asked for again each time."""
        (tmp_path / "own.js").write_text("")
        app = web.Application()
        setup(app)
        app.router.add_static("/static/", tmp_path)
        add_routes(app)
        async with running(app) as client:
            own, ours = await client.get("/static/own.js"), await client.get("/static/gateway.mjs")
        assert [response.headers.get("Cache-Control") for response in (own, ours)] == [None, "no-cache"]
        assert "Access-Control-Allow-Origin" not in own.headers

    async def test_a_page_of_its_own_comes_first(self) -> None:
        async def page(request: web.Request) -> web.Response:
            return web.Response(text="well")

        app = web.Application()
        setup(app)
        app.router.add_get("/healthz", page)
        add_routes(app)
        async with running(app) as client:
            assert await (await client.get("/healthz")).text() == "well"

    async def test_without_a_password_there_are_no_admin_pages(self) -> None:
        """Nobody knows here to which addresses the application listens."""
        app = web.Application()
        setup(app)
        add_routes(app)
        async with running(app) as client:
            assert (await client.get("/admin/websocket")).status == 404

    def test_they_are_a_gateways(self) -> None:
        with pytest.raises(InvalidSettings, match="call setup first"):
            add_routes(web.Application())


def test_settings_can_be_made_of_a_few_for_type_checkers_too() -> None:
    """They read the defaults that are given by name, as `Field(default=...)`, and no others."""
    assert all("default" in field._attributes_set or field.default_factory for field in Settings.model_fields.values())
