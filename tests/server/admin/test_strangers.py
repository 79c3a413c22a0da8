"""No way in to the admin pages but the password or a link, none to stay after the log-out, none to keep others out."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urldefrag

import pytest
from aiohttp import ClientSession, CookieJar, DummyCookieJar, WSServerHandshakeError
from playwright.async_api import expect

from gateway.server.admin.application import PAGES
from tests.harness import http
from tests.harness.admin import ADMIN, PASSWORD, csrf_of, link_of, log_in, log_in_by_link
from tests.harness.node import Node
from tests.harness.wait import eventually

EVIL = "evil.example:8080"
WAYS: dict[str, dict[str, str]] = {
    "as anybody": {},
    "by a foreign name": {"Host": EVIL},
    "led here by its DNS": {"Host": EVIL, "Origin": f"http://{EVIL}"},
    "as nginx rewrites it": {"Host": "127.0.0.1:{port}", "X-Forwarded-For": "203.0.113.9", "X-Real-IP": "203.0.113.9"},
    "as a proxy on this machine": {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", "Via": "1.1 proxy"},
    "as the node's own page": {"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"},
    "with a session nobody signed": {"Cookie": f"gateway_admin={'x' * 32}", "X-CSRF-Token": "x"},
}
SOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
METHODS = ("GET", "POST", "OPTIONS")


def new_session() -> ClientSession:
    return ClientSession(cookie_jar=CookieJar(unsafe=True))


def copy_of(session: ClientSession) -> dict[str, str]:
    """Return the cookie as whoever copied it would send it."""
    return {"Cookie": "; ".join(f"{cookie.key}={cookie.value}" for cookie in session.cookie_jar)}


async def status_of(node: Node, path: str = "", **options: Any) -> int:
    return (await http.get(node.url(ADMIN + path), **options)).status


async def csrf_in(session: ClientSession, node: Node) -> str:
    async with session.get(node.url(ADMIN)) as page:
        assert page.status == 200
        return csrf_of(await page.text())


async def log_out(session: ClientSession, node: Node) -> None:
    form = {"csrf": await csrf_in(session, node)}
    async with session.post(node.url(f"{ADMIN}/logout"), data=form, allow_redirects=False) as answer:
        assert answer.status == 303


@pytest.mark.parametrize("settings", [{}, {"trusted_proxies": "127.0.0.1", "allowed_origins": "*"}], ids=str)
async def test_no_address_and_no_header_is_a_way_in(start_node, settings: dict[str, str]) -> None:
    """Every route and method, without a session, from the node's own machine."""
    node = await start_node(**settings)
    paths = [path.replace("{name}", "x") for path in PAGES]
    paths += ["/", "/nodes", "/socket", "/logout", "/actions/send", "/actions/drain", "/actions/nothing", "/nothing"]

    async def refused(method: str, path: str, headers: dict[str, str]) -> None:
        own = {name: value.format(port=node.port) for name, value in headers.items()}
        url, body = node.url(ADMIN + path), {"kind": "all", "cmd": "x"}
        async with stranger.request(method, url, headers=own, json=body, allow_redirects=False) as answer:
            case = (method, path, headers, answer.status)
            if method == "GET" and "Upgrade" not in headers:
                assert answer.status == 302, case
                assert answer.headers["Location"].startswith(f"{ADMIN}/login?next="), case
            else:
                assert answer.status == 401, case
            assert "picture" not in await answer.text(), case

    async with ClientSession(cookie_jar=DummyCookieJar()) as stranger:
        for way in WAYS.values():
            await asyncio.gather(*(refused(method, path, way) for method in METHODS for path in paths))
            await refused("GET", "/socket", way | SOCKET)
            form = {"token": "x", "csrf": "x"}
            async with stranger.post(node.url(f"{ADMIN}/login"), headers=way, data=form) as login:
                assert login.status == 403
    async with new_session() as session, await log_in_by_link(session, node) as answer:
        assert answer.status == 303


async def test_a_link_logs_in_once(start_node, session) -> None:
    """Only to look at it uses nothing up; used, it is over, and the page says where there is another."""
    node = await start_node()
    link = await link_of(node)
    page, token = urldefrag(link)
    for _ in range(3):
        assert (await http.get(page)).status == 200
    async with await log_in_by_link(session, node, link) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, ADMIN)
    async with session.get(node.url(ADMIN)) as overview:
        assert overview.status == 200
    async with new_session() as second, await log_in_by_link(second, node, link) as answer:
        assert (answer.status, "has been used" in await answer.text()) == (403, True)
    other = await link_of(node, other_than=link)
    assert other.startswith(f"{page}#")
    await http.get(page)
    assert node.output.count("log in once by") == 2, "one that waits is enough"
    assert token not in node.output.replace(link, ""), "it stands in the log as the link alone"
    async with new_session() as second:
        for forged in (f"{other[:-1]}{'0' if other[-1] != '0' else '1'}", f"{page}#{PASSWORD}", f"{page}#"):
            async with await log_in_by_link(second, node, forged) as answer:
                assert answer.status == 403
        async with await log_in_by_link(second, node, other) as answer:
            assert answer.status == 303


async def test_a_link_that_was_used_stays_so_when_redis_loses_its_data(start_node, own_redis, session) -> None:
    """The node that let somebody in by it knows it, too."""
    node = await start_node(own_redis)
    link = await link_of(node)
    async with await log_in_by_link(session, node, link) as answer:
        assert answer.status == 303
    await own_redis.command("FLUSHALL")
    async with new_session() as second, await log_in_by_link(second, node, link) as answer:
        assert answer.status == 403


async def test_two_who_use_a_link_at_the_same_time_are_not_both_let_in(start_node, redis) -> None:
    """One of them is first, on whatever process of the node."""
    node = await start_node(redis, workers=2)
    link = await link_of(node)
    assert node.output.count("log in once by") == 1, "one for all processes"
    sessions = [new_session() for _ in range(8)]
    try:
        answers = await asyncio.gather(*(log_in_by_link(session, node, link) for session in sessions))
        assert sorted(answer.status for answer in answers) == [303] + [403] * 7
        (operator,) = (session for session, answer in zip(sessions, answers, strict=True) if answer.status == 303)

        async def process() -> str:
            async with ClientSession(headers=copy_of(operator)) as fresh, fresh.get(node.url(ADMIN)) as page:
                assert page.status == 200, "a session holds in every process"
                return (await page.text()).split('data-node="')[1].split('"')[0]

        seen: set[str] = set()
        await eventually(lambda: _adds(seen, process), 20)
        await log_out(operator, node)
        for _ in range(12):
            assert await status_of(node, headers=copy_of(operator)) == 302
    finally:
        for session in sessions:
            await session.close()
    secret = json.dumps([part for pid in _processes(node) for part in _command_line(pid)])
    assert "secret" not in secret
    assert urldefrag(link)[1] not in secret


async def _adds(seen: set[str], process: Any) -> bool:
    seen.add(await process())
    return len(seen) == 2


def _processes(node: Node) -> list[int]:
    from tests.cli.test_workers import workers_of

    return [node.process.pid, *workers_of(node)]


def _command_line(pid: int) -> list[str]:
    from pathlib import Path

    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


async def test_without_a_password_a_node_that_others_reach_has_no_pages(start_node) -> None:
    """Who can read its log is not known. (Nor, of an application, where it listens: see test_embedding.)"""
    node = await start_node(host="0.0.0.0")
    assert [await status_of(node, path) for path in ("", "/login", "/socket")] == [404] * 3
    assert "log in once" not in node.output


@pytest.fixture
async def pair(start_nodes, redis):
    """Two nodes with a password, that trust a proxy on this machine."""
    return await start_nodes(2, redis, admin_password=PASSWORD, trusted_proxies="127.0.0.1")


async def test_a_log_out_ends_the_session_everywhere(pair, session, start_node, redis) -> None:
    """Copies of the cookie are over on every node, later ones too, and open pages close; another session goes on."""
    async with await log_in(session, pair[0]) as answer:
        assert answer.status == 303
    copied, socket = copy_of(session), f"{ADMIN}/socket"
    async with new_session() as copy, new_session() as other:
        async with await log_in(other, pair[1]) as answer:
            assert answer.status == 303
        opened = [await copy.ws_connect(node.ws_url(path=socket), headers=copied) for node in pair]
        stays = await other.ws_connect(pair[1].ws_url(path=socket))
        for open in (*opened, stays):
            assert (await open.receive_json(timeout=5))["cmd"] == "$welcome"
        assert [await status_of(node, headers=copied) for node in pair] == [200, 200]
        await log_out(session, pair[0])
        for open in opened:
            await open.receive(timeout=5)
            assert open.close_code == 1012
        later = await start_node(redis, admin_password=PASSWORD)
        for node in (*pair, later):
            assert await status_of(node, headers=copied) == 302
            with pytest.raises(WSServerHandshakeError, match="401"):
                await copy.ws_connect(node.ws_url(path=socket), headers=copied)
        await stays.send_json({"cmd": "$ping", "id": 1})
        assert (await stays.receive_json(timeout=5))["id"] == 1
        assert await status_of(later, headers=copy_of(other)) == 200


async def test_a_log_out_while_redis_is_away_holds_here_and_later_everywhere(own_redis, start_nodes, session) -> None:
    """It is not lost: Redis is told when it is back."""
    nodes = await start_nodes(2, own_redis, admin_password=PASSWORD)
    async with await log_in(session, nodes[0]) as answer:
        assert answer.status == 303
    copied = copy_of(session)
    async with session.get(nodes[0].url(ADMIN)) as page:
        form = {"csrf": csrf_of(await page.text())}
    await own_redis.kill()
    async with session.post(nodes[0].url(f"{ADMIN}/logout"), data=form, allow_redirects=False) as answer:
        assert answer.status == 303
    assert await status_of(nodes[0], headers=copied) == 302
    await own_redis.start()

    async def is_over() -> bool:
        return await status_of(nodes[1], headers=copied) == 302

    await eventually(is_over, 45)


async def test_those_who_guess_lock_nobody_else_out(pair, session) -> None:
    """Sixty wrong passwords from twelve addresses, some of the operator's own network; strangers have no audit."""

    async def guess(address: str, password: str) -> int:
        async with new_session() as guest:
            headers = {"X-Forwarded-For": address}
            async with await log_in(guest, pair[0], password, headers=headers) as answer:
                return answer.status

    addresses = [f"203.0.113.{i}" for i in range(1, 7)] + [f"2001:db8:0:{i}::1" for i in range(1, 7)]
    for address in addresses:
        statuses = [await guess(address, "wrong") for _ in range(5)]
        assert set(statuses) <= {403, 429}
        assert await guess(address, PASSWORD) == 429
    assert await guess("203.0.113.99", PASSWORD) == 303
    assert await guess("2001:db8:0:99::1", PASSWORD) == 303
    assert await guess("198.51.100.7", PASSWORD) == 303
    async with await log_in(session, pair[1]) as answer:
        assert answer.status == 303

    async def shown() -> bool:
        async with session.get(pair[1].url(f"{ADMIN}/audit")) as answer:
            picture = json.loads((await answer.text()).split('id="picture">')[1].split("</script>")[0])
        assert {entry["action"] for entry in picture["items"]} == {"log-in"}
        assert {entry["who"] for entry in picture["refusals"]} >= {"203.0.113.1", "2001:db8:0:6::1"}
        return not any("failed" in entry["details"] for entry in picture["items"])

    await eventually(shown)
    refused = [line for line in pair[0].output.splitlines() if " refused: " in line]
    assert sum("status=429" in line for line in refused) >= 12
    assert 'gateway_connections_refused_total{status="429"}' in (await pair[0].get("/metrics")).text


SAME = [
    ({"Host": "gw.example.org:443", "X-Forwarded-Proto": "https"}, "https://gw.example.org", True),
    ({"X-Forwarded-Host": "gw.example.org", "X-Forwarded-Proto": "https"}, "https://gw.example.org", True),
    ({"Forwarded": "for=203.0.113.9;host=gw.example.org;proto=https"}, "https://gw.example.org", True),
    ({"X-Forwarded-Host": "gw.example.org", "X-Forwarded-Proto": "https"}, "http://gw.example.org", False),
    ({"X-Forwarded-Host": "gw.example.org", "X-Forwarded-Proto": "https"}, "https://gw.example.org:8443", False),
    ({"X-Forwarded-Host": "gw.example.org"}, "https://gw.example.org", False),
    ({}, "https://listed.example", True),
    ({"Host": "rewritten:8080"}, "https://listed.example", True),
    ({}, "https://evil.example", False),
    ({}, "null", False),
    ({"Host": EVIL}, f"http://{EVIL}", False),
]


async def test_pages_actions_and_sockets_have_one_rule_of_what_is_their_own(start_node, session) -> None:
    """Behind a proxy that speaks TLS and rewrites the host, with the port that is the usual one, or listed."""
    node = await start_node(
        admin_password=PASSWORD, trusted_proxies="127.0.0.1", allowed_origins="https://listed.example"
    )
    async with await log_in(session, node) as answer:
        assert answer.status == 303
    csrf, cookie = await csrf_in(session, node), copy_of(session)
    for headers, origin, own in SAME:
        sent = headers | {"Origin": origin}
        asked = {
            "socket": ("GET", "/connect", sent | SOCKET, 101),
            "page's socket": ("GET", f"{ADMIN}/socket", sent | cookie | SOCKET, 101),
            "action": ("POST", f"{ADMIN}/actions/send", sent | cookie | {"X-CSRF-Token": csrf}, 200),
            "log-in": ("POST", f"{ADMIN}/login", sent | cookie | {"X-CSRF-Token": csrf}, 403),
        }
        before = node.output.count(" refused: ")
        for what, (method, path, given, status) in asked.items():
            json = {"kind": "all", "cmd": "x"} if what == "action" else None
            data = {"password": "wrong"} if what == "log-in" else None
            if what == "log-in" and own:
                continue  # that it is heard at all is what the others tell
            async with ClientSession() as client:
                url = node.url(path)
                async with client.request(method, url, headers=given, json=json, data=data) as answer:
                    assert answer.status == (status if own else 403), (what, headers, origin)
        refused = node.output.count(" refused: ") - before
        assert refused == (0 if own else len(asked)), "each is one line"


async def test_all_sites_may_connect_but_none_acts_as_an_operator(start_node, session) -> None:
    """`*` is for sockets, as is `null`, which is a sandboxed frame of any site."""
    node = await start_node(admin_password=PASSWORD, allowed_origins="null,*")
    async with await log_in(session, node) as answer:
        assert answer.status == 303
    url, csrf = node.url(f"{ADMIN}/actions/send"), await csrf_in(session, node)
    for origin in ("https://evil.example", "null"):
        headers = {"X-CSRF-Token": csrf, "Origin": origin}
        async with session.post(url, json={"kind": "all", "cmd": "x"}, headers=headers) as answer:
            assert answer.status == 403
        with pytest.raises(WSServerHandshakeError, match="403"):
            await session.ws_connect(node.ws_url(path=f"{ADMIN}/socket"), origin=origin)


@pytest.mark.browser
async def test_a_link_leaves_no_trace_in_the_browser_and_a_log_out_closes_its_windows(start_node, pages) -> None:
    """The token is out of the address before anything is asked; another window shows the log-in by itself."""
    pages.allow("HTTP Authentication failed")  # the socket of a session that is over
    node = await start_node()
    page = await pages.open(node.url(ADMIN))
    await expect(page.get_by_test_id("hint")).to_contain_text("log-in link")
    await page.goto(await link_of(node))
    button = page.get_by_test_id("log-in")
    await expect(button).to_be_focused()
    assert page.url == node.url(f"{ADMIN}/login")
    await button.click()
    await expect(page.locator("#live")).to_have_attribute("data-state", "open")
    assert page.url == node.url(ADMIN)
    other = await page.context.new_page()
    await other.goto(node.url(f"{ADMIN}/tap"))
    await expect(other.locator("#live")).to_have_attribute("data-state", "open")
    await page.get_by_test_id("log-out").click()
    for window in (page, other):
        await expect(window.get_by_test_id("hint")).to_contain_text("log-in link")
    await page.goto(await link_of(node))
    await page.get_by_test_id("log-in").click()
    await expect(page.locator("#live")).to_have_attribute("data-state", "open")
