"""Fixtures over the harness.

Everything is imported where it is used: a test that asks for no fixture loads nothing and starts in milliseconds.
Servers that outlive one test belong to no event loop, and are started by fixtures that are plain functions.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from playwright.async_api import Browser, Page

    from tests.harness.browser import Pages
    from tests.harness.client import Clients
    from tests.harness.cluster import RedisCluster
    from tests.harness.crowd import Crowd
    from tests.harness.haproxy import Haproxy
    from tests.harness.node import Node, Nodes
    from tests.harness.proxy import Proxy
    from tests.harness.redis import RedisServer
    from tests.harness.sentinel import Sentinels
    from tests.harness.wire import Wires


TEST_SECONDS = 110.0


def pytest_configure() -> None:
    """Let one test open as many sockets as the system allows, and Ctrl-C end what tests start; children inherit it.

    A shell that runs the tests in the background has them ignore SIGINT, and what they start would ignore it, too.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a test that waits too long fail by itself: pytest-timeout could only end the whole run."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _limited(item.obj)


def _limited(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    @functools.wraps(test)
    async def limited(*arguments: Any, **fixtures: Any) -> None:
        async with asyncio.timeout(TEST_SECONDS):
            await test(*arguments, **fixtures)

    return limited


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test on the product's event loop."""
    return {"uvloop": _new_loop}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Show the last output of every process that a failed test had."""
    report: Any = yield
    if report.failed:
        from tests.harness.process import open_processes

        report.sections += [(f"output of {process.name}", process.tail()) for process in open_processes()]
    return report


def _new_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, between tests, in a loop of its own."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(coroutine)


# --- Redis


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Let no test, and nothing a test imports, decide what the tests after it may read in the log."""
    logging.disable(logging.NOTSET)
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    root.setLevel(logging.WARNING)
    for name, logger in logging.root.manager.loggerDict.items():
        if name.partition(".")[0] == "gateway" and isinstance(logger, logging.Logger):
            logger.disabled, logger.propagate = False, True
            logger.setLevel(logging.NOTSET)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for all tests; ask for `redis`, which is the same one emptied."""
    from tests.harness.redis import RedisServer

    server = RedisServer()
    try:
        _run(server.start())
        yield server
    finally:
        server.close()


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisServer:
    """A Redis without data, for tests that leave it running and configured as they found it."""
    _run(redis_server.reset())
    return redis_server


@pytest.fixture
def redis_url(redis: RedisServer) -> str:
    """The address of `redis`."""
    return redis.url


@pytest.fixture
async def start_redis() -> AsyncIterator[Callable[..., Awaitable[RedisServer]]]:
    """Starts Redis servers of the test's own, each with the options of `RedisServer`."""
    from tests.harness.redis import RedisServer

    servers: list[RedisServer] = []

    async def start(**options: Any) -> RedisServer:
        servers.append(RedisServer(**options))
        await servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
async def own_redis(start_redis: Callable[..., Awaitable[RedisServer]]) -> RedisServer:
    """A Redis that the test may kill, freeze, restart and configure."""
    return await start_redis()


@pytest.fixture(scope="module")
def _sentinels() -> Iterator[Sentinels]:
    from tests.harness.sentinel import Sentinels

    sentinels = Sentinels()
    try:
        _run(sentinels.start())
        yield sentinels
    finally:
        sentinels.close()


@pytest.fixture
async def sentinels(_sentinels: Sentinels) -> Sentinels:
    """A master, two replicas and three sentinels: whole and empty, whatever the test before did to them."""
    await _sentinels.heal()
    await (await _sentinels.master()).reset()
    return _sentinels


def _running_cluster(replicas: int) -> Iterator[RedisCluster]:
    from tests.harness.cluster import RedisCluster

    cluster = RedisCluster(replicas=replicas)
    try:
        _run(cluster.start())
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def _cluster() -> Iterator[RedisCluster]:
    yield from _running_cluster(replicas=1)


@pytest.fixture
async def cluster(_cluster: RedisCluster) -> RedisCluster:
    """Three masters and three replicas: whole and empty, whatever the test before did to them."""
    await _cluster.heal()
    await _cluster.reset()
    return _cluster


@pytest.fixture(scope="module")
def _small_cluster() -> Iterator[RedisCluster]:
    yield from _running_cluster(replicas=0)


@pytest.fixture
async def small_cluster(_small_cluster: RedisCluster) -> RedisCluster:
    """Three masters without replicas, for tests that let them live: quicker to have than `cluster`."""
    await _small_cluster.heal()
    await _small_cluster.reset()
    return _small_cluster


@pytest.fixture(params=["memory", *(pytest.param(kind, marks=pytest.mark.redis) for kind in ("redis", "cluster"))])
def any_url(request: pytest.FixtureRequest) -> str:
    """The address of every kind of backplane, each empty."""
    if request.param == "memory":
        return "memory://"
    return str(request.getfixturevalue("redis" if request.param == "redis" else "small_cluster").url)


@pytest.fixture
def start_proxy() -> Iterator[Callable[[RedisServer | int], Proxy]]:
    """Starts proxies before a server or port; whoever connects to the proxy's port is at its mercy."""
    from tests.harness.proxy import Proxy

    proxies: list[Proxy] = []

    def start(target: RedisServer | int) -> Proxy:
        proxies.append(Proxy(target if isinstance(target, int) else target.port))
        proxies[-1].start()
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()


# --- Nodes


@pytest.fixture
async def start_nodes() -> AsyncIterator[Callable[..., Awaitable[Nodes]]]:
    """Starts nodes: `await start_nodes(3, redis, presence_grace=1)`, with what `Node` takes.

    After the test they are killed; one that had ended by itself, unasked, fails it.
    """
    from tests.harness.node import Nodes

    started: list[Nodes] = []

    async def start(count: int, /, *arguments: Any, **settings: Any) -> Nodes:
        started.append(Nodes(count, *arguments, **settings))
        await started[-1].start()
        return started[-1]

    yield start
    crashed = [node.process.tail() for nodes in started for node in nodes if node.process.crashed]
    for nodes in started:
        nodes.close()
    if crashed:
        pytest.fail("a node ended that nobody had asked to:\n" + "\n".join(crashed))


@pytest.fixture
async def start_node(start_nodes: Callable[..., Awaitable[Nodes]]) -> Callable[..., Awaitable[Node]]:
    """Starts one node: `await start_node(redis, presence_grace=1)`, with what `Node` takes."""

    async def start(*arguments: Any, **settings: Any) -> Node:
        return (await start_nodes(1, *arguments, **settings))[0]

    return start


@pytest.fixture(scope="module")
def _nodes() -> Iterator[Nodes]:
    from tests.harness.node import Nodes
    from tests.harness.redis import RedisServer

    server = RedisServer()
    nodes = Nodes(2, server)
    try:
        _run(server.start())
        _run(nodes.start())
        yield nodes
    finally:
        nodes.close()
        server.close()


@pytest.fixture
def nodes(_nodes: Nodes) -> Nodes:
    """Two nodes with the demo handler on a Redis of their own, `nodes.redis`, which live as long as the module.

    For tests that use them as clients do, in channels of their own; what harms a node needs `start_nodes`.
    """
    for node in _nodes:
        node.process.assert_running()
    return _nodes


@pytest.fixture
async def start_haproxy() -> AsyncIterator[Callable[[Iterable[Node]], Awaitable[Haproxy]]]:
    """Starts haproxy before nodes: `await start_haproxy(nodes)`."""
    from tests.harness.haproxy import Haproxy

    balancers: list[Haproxy] = []

    async def start(nodes: Iterable[Node], **options: Any) -> Haproxy:
        balancers.append(Haproxy(nodes, **options))
        await balancers[-1].start()
        return balancers[-1]

    yield start
    for balancer in balancers:
        balancer.close()


# --- Clients


@pytest.fixture
async def connect() -> AsyncIterator[Clients]:
    """Connects clients: `await connect(node, "lobby")`, `await connect.many(1000, node, "lobby")`."""
    from tests.harness.client import Clients

    clients = Clients()
    yield clients
    await clients.close()


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    """Connects thousands that only count: `await crowd.join([node.ws_url("lobby")] * 5000)`."""
    from tests.harness.crowd import Crowd

    crowd = Crowd()
    yield crowd
    crowd.close()


@pytest.fixture
def wire() -> Iterator[Wires]:
    """Connects clients that send raw bytes: `await wire(node, "lobby")`, or `await wire.open(node)` for TCP alone."""
    from tests.harness.wire import Wires

    wires = Wires()
    yield wires
    wires.close()


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    """An HTTP session that keeps cookies as a browser does."""
    from aiohttp import CookieJar

    from tests.harness.http import open_session

    async with open_session(cookie_jar=CookieJar(unsafe=True)) as session:
        yield session


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium. One for each test: playwright belongs to an event loop, and each test has its own."""
    from tests.harness.browser import open_browser

    async with open_browser() as browser:
        yield browser


@pytest.fixture
async def pages(browser: Browser) -> AsyncIterator[Pages]:
    """Opens pages: `await pages.open(node.url("/example"))`; an error in one fails the test unless allowed."""
    from tests.harness.browser import Pages

    pages = Pages(browser)
    yield pages
    pages.assert_clean()


@pytest.fixture
async def page(pages: Pages) -> Page:
    """One page, empty; see `pages`."""
    return await pages.open()
