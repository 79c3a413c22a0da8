"""The programs in the README, run as they stand there; only addresses are the test's own."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import ClientError, WSServerHandshakeError

from tests.harness.client import Client, Clients
from tests.harness.embedded import Embedded, Member
from tests.harness.ports import HOST, free_port, release_port
from tests.harness.process import Process, output_of
from tests.harness.redis import RedisServer, injection
from tests.harness.wait import eventually

Examples = Callable[..., dict[str, str]]
Starts = Callable[..., Process]

ROOT = Path(__file__).parents[2]
REDIS, BROKER = "redis://localhost:6379/0", "redis://localhost:6379/1"

CALL_DJANGO = """
import sys
import django
from django.conf import settings
from django.test import Client

settings.configure(ROOT_URLCONF="example", ALLOWED_HOSTS=["testserver"], GATEWAY_REDIS_URL=sys.argv[1])
django.setup()
print(Client().post("/articles/7/comments", {"text": "well said"}).status_code)
"""
CALL_CELERY = "import example; example.report.delay('ada', 2026)"

RULES = {
    "GATEWAY_CHANNELS": json.dumps(
        [{"match": "news", "send": "nobody"}, {"match": "secret", "join": "nobody"}, {"match": "lobby"}]
    )
}
WRONG: tuple[object, ...] = (None, {}, [], "x")
Attempt = tuple[str, object, str | None, str]
# What a hostile client sends, to which channel, and where that arrives or with which code it is refused.
ATTEMPTS: dict[str, list[Attempt]] = {
    "router": [
        ("chat", {"text": "hello"}, "lobby", "lobby"),
        ("chat", {"text": "hello"}, "news", "forbidden"),
        ("chat", {"text": "hello"}, None, "forbidden"),
        ("chat", {"text": "hello"}, "secret", "forbidden"),
        ("chat", {"text": "hello"}, "elsewhere", "forbidden"),
        *(("chat", wrong, "lobby", "invalid-param") for wrong in (*WRONG, {"text": 5}, {"text": None})),
        ("chat", {"text": "hello"}, "a b", "invalid-channel"),
        ("$join", None, "secret", "forbidden"),
        ("dance", None, "lobby", "unknown-command"),
    ],
    "application": [
        ("ping", None, None, "lobby"),
        ("ping", None, "secret", "lobby"),
        ("join-room", {"room": "news"}, None, ""),
        ("ping", None, "news", "forbidden"),
        ("ping", ["x"], "lobby", "lobby"),
        ("join-room", {"room": "secret"}, None, "forbidden"),
        ("join-room", {"room": "secret"}, "secret", "forbidden"),
        ("join-room", {"room": "a b"}, None, "invalid-channel"),
        *(("join-room", wrong, None, "invalid-param") for wrong in (*WRONG, {"room": 5}, {"room": None})),
        ("$join", None, "secret", "forbidden"),
    ],
}


def example(about: str) -> str:
    """Return the one program of the README that has this in it."""
    programs = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    (found,) = (program for program in programs if about in program)
    return found


@pytest.fixture
def write_example(tmp_path: Path) -> Examples:
    """Makes an example a module called `example`; returns the environment in which it is found."""

    def write(about: str, **replaced: str) -> dict[str, str]:
        program = example(about)
        for old, new in replaced.items():
            assert old in program
            program = program.replace(old, new)
        (tmp_path / "example.py").write_text(program)
        return {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}

    return write


@pytest.fixture
def start() -> Iterator[Starts]:
    """Starts programs in Python: `start(environment, "-m", "celery")`."""
    started: list[Process] = []

    def start(environment: dict[str, str], *arguments: str) -> Process:
        started.append(Process([sys.executable, *arguments], name="example", environment=environment))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def port() -> Iterator[int]:
    """One that nobody listens on."""
    port = free_port()
    yield port
    release_port(port)


@pytest.fixture
async def ada(redis: RedisServer, connect: Clients) -> AsyncIterator[Member]:
    """A user at a node, in the channel that the examples write to."""
    async with Embedded(redis.url) as node:
        member = await node.connect(connect, "article-7", user="ada", protocols=["gateway.v1.json"])
        await member.client.expect("$welcome")
        yield member
        await connect.close()


@pytest.fixture
async def witness(redis: RedisServer, connect: Clients) -> AsyncIterator[Client]:
    """Somebody whom the server put into the channels that clients may not send to, or not join."""
    async with Embedded(redis.url) as node:
        member = await node.connect(connect, "news", protocols=["gateway.v1.json"])
        await node.service.join(member.id, "secret")
        yield member.client
        await connect.close()


async def attempt(client: Client, attempts: list[Attempt]) -> None:
    """Send what a hostile client sends; fail where it arrives in another channel, or is answered otherwise."""
    for cmd, param, channel, expected in attempts:
        before = len(client.received)
        answer = await client.request(cmd, param, channel)
        await client.request("$ping")
        if expected in ("", "lobby"):
            assert answer["cmd"] == "$reply", answer
        else:
            assert answer["param"].get("code") == expected, (cmd, param, channel, answer)
        if expected == "lobby":
            arrived = await client.expect("pong" if cmd == "ping" else cmd)
            assert arrived["channel"] == "lobby"
        said = [message for message in client.received[before:] if message["cmd"] in ("chat", "pong")]
        assert len(said) == (expected == "lobby"), said


async def hears_nothing(witness: Client, redis: RedisServer) -> None:
    """Fail if a client was written anything but who comes and goes."""
    await witness.expect_nothing_but(
        *("$welcome", "online-update"),
        marker=lambda cmd: redis.command("PUBLISH", "gateway:channel:news", injection(cmd)),
    )


async def arrive(process: Process, connect: Clients, url: str) -> Client:
    """Connect to a program as soon as it listens."""

    async def arrived() -> Client:
        process.assert_running()
        return await connect(url, protocols=["gateway.v1.json"])

    client = await eventually(arrived, 30, tolerating=(OSError, ClientError), what=url)
    await client.expect("$welcome")
    return client


class TestHandlers:
    async def test_a_router_is_served(
        self, write_example: Examples, start: Starts, connect: Clients, port: int
    ) -> None:
        """`gateway serve --handler` finds it, and its command is answered."""
        environment = write_example('@router.command("chat")')
        process = start(environment, "-m", "gateway", "serve", "--port", str(port), "--handler", "example:router")
        client = await arrive(process, connect, f"ws://{HOST}:{port}/connect?ch=lobby")
        assert (await client.request("chat", {"text": "hello"}))["param"] == 5
        assert (await client.expect("chat"))["param"]["text"] == "hello"

    async def test_an_application_takes_the_gateway_in(
        self, write_example: Examples, start: Starts, connect: Clients, redis: RedisServer, port: int
    ) -> None:
        """It runs by itself, and its commands are carried out."""
        own = {REDIS: redis.url, "web.run_app(app)": f"web.run_app(app, host={HOST!r}, port={port})"}
        process = start(write_example("class ChatHandler", **own), "-m", "example")
        client = await arrive(process, connect, f"ws://{HOST}:{port}/chat/socket")
        await client.send("ping")
        assert (await client.expect("pong"))["channel"] == "lobby"


class TestStrangers:
    """The samples let nothing into a channel where it may not go, whatever a client sends."""

    async def test_the_router(
        self, write_example: Examples, start: Starts, connect: Clients, redis: RedisServer, witness: Client, port: int
    ) -> None:
        """Its client is in a channel to which nobody may send, first, and in the lobby."""
        environment = write_example('@router.command("chat")') | RULES
        serve = ("--port", str(port), "--redis-url", redis.url, "--handler", "example:router")
        process = start(environment, "-m", "gateway", "serve", *serve)
        client = await arrive(process, connect, f"ws://{HOST}:{port}/connect?ch=news&ch=lobby")
        with pytest.raises(WSServerHandshakeError, match="403"):
            await connect(f"ws://{HOST}:{port}/connect?ch=lobby&ch=secret")
        await attempt(client, ATTEMPTS["router"])
        await hears_nothing(witness, redis)

    async def test_the_application(
        self, write_example: Examples, start: Starts, connect: Clients, redis: RedisServer, witness: Client, port: int
    ) -> None:
        """Its client is in the lobby, and asks for more."""
        own = {REDIS: redis.url, "web.run_app(app)": f"web.run_app(app, host={HOST!r}, port={port})"}
        process = start(write_example("class ChatHandler", **own) | RULES, "-m", "example")
        client = await arrive(process, connect, f"ws://{HOST}:{port}/chat/socket")
        await attempt(client, ATTEMPTS["application"])
        await hears_nothing(witness, redis)


class TestProducers:
    async def test_a_django_view_writes_to_a_channel(
        self, write_example: Examples, ada: Member, redis: RedisServer
    ) -> None:
        """Under Django's own test client."""
        environment = write_example("from django")
        call = ["env", *(f"{name}={value}" for name, value in environment.items()), sys.executable, "-c", CALL_DJANGO]
        assert await output_of([*call, redis.url]) == "204"
        assert (await ada.client.expect("comment"))["param"] == {"text": "well said"}

    async def test_a_celery_task_writes_to_a_user(
        self, write_example: Examples, start: Starts, ada: Member, redis: RedisServer
    ) -> None:
        """In a worker that has forked, and by way of a real broker."""
        broker = redis.url.removesuffix("/0") + "/1"
        environment = write_example("from celery", **{BROKER: broker, REDIS: redis.url})
        start(environment, "-m", "celery", "--app", "example", "worker", "--concurrency", "1")
        assert await start(environment, "-c", CALL_CELERY).wait(30) == 0
        assert (await ada.client.expect("report-ready", 30))["param"] == {"year": 2026}
