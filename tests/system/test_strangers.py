"""Whatever a stranger asks for, it is his fault and not ours: no 500, no traceback, and no secret of his in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.harness.node import Node, Nodes, lasting
from tests.harness.wire import Wires

KEY = "key"
SECRET = "hunter2"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PRI", "get", "FOO")
ROUTES = (
    *("/", "/connect", "/example", "/example/socket", "/static/gateway.js", "/static/admin/admin.css", "/healthz"),
    *("/metrics", "/api", "/api/openapi.json", "/api/channels/x/messages", "/admin/websocket/login"),
    *("/admin/websocket", "/admin/websocket/logout", "/admin/websocket/channels/x", "/admin/websocket/live"),
    "/admin/websocket/actions/send",
)
# {r} is a route.
TARGETS = (
    *(
        "{r}",
        "http://x{r}",
        "http://x:80{r}",
        "{r}%00",
        "{r}%",
        "{r}/%ff%fe",
        "{r}/../x",
        "{r}//",
        "{r}\xff",
        "{r}/" + "a" * 300,
    ),
    "{r}?ch=%ff%00&%",
)
OTHER_TARGETS = (
    *("*", "x:443", "", "//", "http://[::1/", "http://x:99999/", "http://u:{s}@h/", "http://x:port/", "x" * 20_000),
    *(
        "/static/" + "\xe9" * 200,
        "/static/" + "a" * 5000,
        "/static/" + "/a" * 3000,
        "/static/%00",
        "/static/gateway.js/x",
    ),
)
FORM, JSON, PARTS = "application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=x"
PART = b"--x\r\nContent-Disposition: form-data; name=csrf\r\n"
BODIES: tuple[tuple[dict[str, str], bytes], ...] = (
    *(({"Content-Encoding": name, "Content-Type": FORM}, b"\xffnone") for name in ("gzip", "deflate", "br", "zstd")),
    *(({"Content-Type": f"{FORM}; charset={name}"}, b"csrf=\xff\xfe\x00a") for name in ("none", "utf-8", "utf-16")),
    *(({"Content-Type": f"{JSON}; charset={name}"}, b"{\xff\xfe}") for name in ("none", "utf-8", "\xff")),
    ({"Content-Type": JSON}, b"[" * 50_000),
    ({"Content-Type": "multipart/form-data"}, b"--\r\n\r\na"),
    ({"Content-Type": PARTS}, b"--x\r\n\r\na"),
    ({"Content-Type": PARTS + "x" * 80}, b"--x\r\n\r\na"),
    ({"Content-Type": PARTS}, PART + b"Content-Transfer-Encoding: a\r\n\r\na\r\n--x--"),
    ({"Content-Type": PARTS}, PART + b"Content-Encoding: gzip\r\n\r\na\r\n--x--"),
    ({"Transfer-Encoding": "chunked"}, b"zz\r\n\r\n"),
    ({"Content-Length": "10"}, b"short"),
)
HEADERS = (
    *({"Host": host} for host in ("", "\xff", "[::", "a:b:c")),
    *({"Cookie": cookie} for cookie in ('gateway_admin=\xff;;="', 'gateway_admin="\\777\\000"')),
    {"X-Forwarded-For": "\xff, 1.2.3.4", "X-Forwarded-Host": "a b", "Forwarded": "for=\xff"},
    {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "a:99999"},
    {"Range": "bytes=9-1", "If-None-Match": "\xff", "If-Modified-Since": "Sun, 99 Foo 99999 99:99:99 GMT"},
    {"Range": "bytes=99999999999999999999-", "If-Modified-Since": "Mon, 01 Jan 0000 00:00:00 GMT"},
    {"Origin": "http://[::", "Sec-Fetch-Site": "\xff", "X-CSRF-Token": "\xff", "traceparent": "\xff"},
    {"Upgrade": "h2c, websocket", "Connection": "upgrade", "Sec-WebSocket-Version": "\xff"},
)


def request(method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b"") -> bytes:
    every = {"Host": "x", "Cookie": f"gateway_token={SECRET}", "Authorization": f"Bearer {KEY}"} | (headers or {})
    if body and "Transfer-Encoding" not in every:
        every.setdefault("Content-Length", str(len(body)))
    mark = "&" if "?" in target else "?"
    target = target.format(s=SECRET) + f"{mark}token={SECRET}"
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in every.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def odd_addresses() -> Iterator[bytes]:
    """Ask for everything in all ways, and for what is no address."""
    for method in METHODS:
        for route in ROUTES:
            for target in TARGETS if method in ("GET", "CONNECT") else TARGETS[:2]:
                yield request(method, target.replace("{r}", route))
        for target in OTHER_TARGETS:
            yield request(method, target, HEADERS[7])
    for route in ROUTES:
        for headers in HEADERS:
            yield request("GET", route, headers)


def odd_bodies() -> Iterator[bytes]:
    """Send what is not what it says."""
    for route in ROUTES[10:]:
        for headers, body in BODIES:
            yield request("POST", route, headers, body)


@pytest.fixture(scope="module")
def _node() -> Iterator[Nodes]:
    settings: dict[str, Any] = {"api_key": KEY, "log_level": "debug", "admin_password": "password"}
    with lasting(Nodes(1, handshake_timeout=0.5, trusted_proxies="127.0.0.1", **settings)) as nodes:
        yield nodes


@pytest.fixture
def node(_node: Nodes) -> Node:
    """A node that takes us for a proxy; it lives as long as the module."""
    _node[0].process.assert_running()
    return _node[0]


@pytest.mark.parametrize("everything", [odd_addresses, odd_bodies])
async def test_whatever_is_asked_for_no_fault_is_logged(
    node: Node, wire: Wires, everything: Callable[[], Iterator[bytes]]
) -> None:
    """Every route, with methods, addresses, headers and bodies that are none."""
    requests, faults = everything(), []

    async def ask() -> None:
        for data in requests:
            client = await wire.open(node)
            with suppress(EOFError, ConnectionError):  # it may be ended without an answer
                await client.write(data)
                if (await client.read_head(deadline=20)).status >= 500:
                    faults.append(data)
            client.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(ask())
    assert not faults
    log = node.output.lower()
    assert "traceback" not in log
    assert SECRET not in log
    await node.answers("/healthz", 200)
