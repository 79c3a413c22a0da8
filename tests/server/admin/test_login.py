"""Who gets to see the admin pages: the password, its limits, sessions on every node, forged and foreign requests."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial

import pytest
from aiohttp import ClientSession, CookieJar, WSServerHandshakeError
from yarl import URL

from gateway.access.origin import is_loopback
from gateway.server.admin.attempts import FLOOD, PER_ADDRESS, REMEMBERED, WINDOW, Attempts
from gateway.server.admin.session import IDLE, LONGEST, Session, Signer, begin
from tests.harness.admin import ADMIN, PASSWORD, csrf_of, log_in, log_in_by_link
from tests.harness.wait import eventually

PATHS = ("", "/connections", "/connections/x", "/channels", "/users", "/nodes/x", "/tap", "/broadcast", "/audit")


class TestSessions:
    signer = Signer(PASSWORD, "gateway")

    def test_a_session_is_read_back_on_every_node_with_the_same_password(self) -> None:
        """The cookie that one node writes is valid on another."""
        session = begin(1000, is_operator=True)
        assert Signer(PASSWORD, "gateway").read(self.signer.write(session), 1001) == session

    @pytest.mark.parametrize("other", [Signer("another", "gateway"), Signer(PASSWORD, "other")])
    def test_a_session_of_another_password_or_cluster_is_none(self, other: Signer) -> None:
        """A changed password ends every session."""
        assert other.read(self.signer.write(begin(1000, is_operator=True)), 1001) is None

    def test_no_part_of_a_cookie_can_be_changed(self) -> None:
        """A visitor cannot make themselves an operator, nor the session longer."""
        cookie = self.signer.write(begin(1000, is_operator=False))
        id, began, until, _, signature = cookie.split(".")
        for forged in (f"{id}.{began}.{until}.1.{signature}", f"{id}.{began}.9999999999.0.{signature}", "", "...", "x"):
            assert self.signer.read(forged, 1001) is None
        for forged in ("\udcff.1.2.1.x", "a.1.2.1.\udcff"):  # bytes of a header that are no UTF-8
            assert self.signer.read(forged, 1001) is None

    def test_a_session_ends(self) -> None:
        """It holds an hour unless renewed, and twelve hours at most."""
        session = begin(1000, is_operator=True)
        assert self.signer.read(self.signer.write(session), 1000 + IDLE) is None
        assert not session.is_due(1001)
        assert session.is_due(1000 + IDLE / 2 + 1)
        late = Session(session.id, 1000, 1000 + LONGEST - 10, is_operator=True).renewed(1000 + LONGEST - 20)
        assert late.until == 1000 + LONGEST
        assert not late.is_due(1000 + LONGEST - 1)

    def test_a_token_belongs_to_one_session(self) -> None:
        """The token of another session is refused."""
        mine, theirs = begin(0, is_operator=True), begin(0, is_operator=True)
        assert mine.is_csrf(mine.csrf)
        assert not mine.is_csrf(theirs.csrf)
        assert not mine.is_csrf("")
        assert not mine.is_csrf("\udcff")


class TestTickets:
    signer = Signer("secret", "gateway")

    def test_a_ticket_is_read_back_until_it_is_too_old(self) -> None:
        """By whoever has the secret."""
        ticket = self.signer.ticket(1000)
        token = self.signer.write_ticket(ticket)
        assert Signer("secret", "gateway").read_ticket(token, 1001) == ticket
        assert self.signer.read_ticket(token, ticket.until) is None
        assert Signer("other", "gateway").read_ticket(token, 1001) is None

    def test_a_ticket_is_no_session_and_a_session_no_ticket(self) -> None:
        """Nothing that was signed for one passes for the other."""
        token, cookie = (
            self.signer.write_ticket(self.signer.ticket(1000)),
            self.signer.write(begin(1000, is_operator=True)),
        )
        id, until, signature = token.split(".")
        for forged in (token, f"{id}.1000.{until}.1.{signature}", f"{id}.{until}.{signature}"):
            assert self.signer.read(forged, 1001) is None
        for forged in (cookie, f"{id}.9999999999.{signature}", "", ".", "..", "a.b.c", "\udcff.1.x", f"{token}\udcff"):
            assert self.signer.read_ticket(forged, 1001) is None


class TestAttempts:
    @pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8::9", "::ffff:203.0.113.9", "fe80::1%eth0", "", "x"])
    def test_an_address_may_fail_so_often_and_must_then_wait(self, address: str) -> None:
        """Others may still try; a minute after the first failure there is another try."""
        attempts = Attempts()
        for i in range(PER_ADDRESS):
            assert attempts.wait(address, i) == 0
            attempts.failed(address, i)
        assert attempts.wait(address, PER_ADDRESS) == WINDOW - PER_ADDRESS
        assert attempts.wait("198.51.100.7", PER_ADDRESS) == 0
        assert attempts.wait(address, WINDOW) == 0

    def test_what_one_customer_has_is_one_address(self) -> None:
        """An IPv6 /64, in which there are more addresses than anybody can count."""
        attempts = Attempts()
        for i in range(PER_ADDRESS):
            attempts.failed(f"2001:db8:0:1::{i:x}", 1)
        assert attempts.wait("2001:db8:0:1:ffff::1", 2) > 0
        assert attempts.wait("2001:db8:0:2::1", 2) == 0

    @pytest.mark.parametrize("address", ["203.0.113.{}", "2001:db8:0:{}::1"])
    def test_a_network_may_fail_more_often_and_then_each_address_once(self, address: str) -> None:
        """So guessing from a whole network costs an address for each try, and keeps nobody out who did not fail."""
        attempts, looked_at = Attempts(), 0
        for _ in range(PER_ADDRESS):
            for i in range(200):
                if attempts.wait(address.format(i), 1) == 0:
                    attempts.failed(address.format(i), 1)
                    looked_at += 1
        assert looked_at == 200
        assert attempts.wait(address.format(250), 2) == 0

    def test_a_network_of_one_customer_that_fails_a_thousand_times_is_not_heard(self) -> None:
        """An IPv6 /48; its neighbours are."""
        attempts = Attempts()
        for i in range(FLOOD):
            attempts.failed(f"2001:db8:0:{i:x}::1", 1)
        assert attempts.wait("2001:db8:0:ffff::1", 2) > 0
        assert attempts.wait("2001:db8:1::1", 2) == 0

    def test_however_many_fail_nobody_else_is_kept_out(self) -> None:
        """Nor is more remembered than so much, nor forgotten who failed last."""
        attempts, address = Attempts(), ""
        for i in range(REMEMBERED + 500):
            address = f"{1 + (i >> 16)}.{i >> 8 & 255}.{i & 255}.1"
            assert attempts.wait(address, 1) == 0
            attempts.failed(address, 1)
        assert attempts.wait("198.51.100.7", 2) == 0
        assert len(attempts._addresses._began) == len(attempts._networks._began) == REMEMBERED
        for _ in range(PER_ADDRESS - 1):
            attempts.failed(address, 1)
        assert attempts.wait(address, 2) > 0


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST.", True),
    ]
    + [
        (host, False)
        for host in ("", "0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", "127.0.0.1.nip.io")
    ],
)
def test_loopback_names(host: str, expected: bool) -> None:
    """Only names that are never anything else count."""
    assert is_loopback(host) == expected


@pytest.fixture
async def guarded(start_nodes, redis):
    """Two nodes with a password."""
    return await start_nodes(2, redis, admin_password=PASSWORD)


async def test_a_log_in_holds_on_every_node_until_the_log_out(guarded, session) -> None:
    """Without it every page leads to the form; with it all pages of both nodes answer; after the log-out none does."""
    for path in PATHS:
        async with session.get(guarded[0].url(ADMIN + path), allow_redirects=False) as answer:
            assert answer.status == 302
            assert answer.headers["Location"].startswith(f"{ADMIN}/login?next=")
    async with await log_in(session, guarded[0]) as answer:
        assert answer.status == 303
        cookie = answer.headers["Set-Cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", f"Path={ADMIN}"))
    assert "Secure" not in cookie
    csrf = ""
    for node in guarded:
        async with session.get(node.url(ADMIN), allow_redirects=False) as answer:
            assert answer.status == 200
            csrf = csrf_of(await answer.text())
    async with session.post(guarded[0].url(f"{ADMIN}/logout"), data={"csrf": csrf}, allow_redirects=False) as answer:
        assert answer.status == 303
    async with session.get(guarded[1].url(ADMIN), allow_redirects=False) as answer:
        assert answer.status == 302
    assert PASSWORD not in guarded[0].output


async def test_a_wrong_password_is_told_and_soon_refused_unseen(guarded, session) -> None:
    """After five within a minute even the right one is not looked at; the answer says how long to wait."""
    for _ in range(PER_ADDRESS):
        async with await log_in(session, guarded[0], "wrong") as answer:
            assert answer.status == 403
            assert "not the password" in await answer.text()
    async with await log_in(session, guarded[0], headers={"X-Forwarded-For": "203.0.113.9"}) as answer:
        assert answer.status == 429
        assert 0 < int(answer.headers["Retry-After"]) <= WINDOW + 1
        assert "trusted_proxies" in await answer.text(), "all who come through this proxy are one address"


async def test_passwords_that_all_come_at_once_are_not_all_looked_at(guarded, session) -> None:
    """Whoever holds back the bodies of many requests until the last is there may guess no more often."""
    async with session.get(guarded[1].url(f"{ADMIN}/login")) as page:
        headers = {"X-CSRF-Token": csrf_of(await page.text()), "Content-Type": "application/x-www-form-urlencoded"}
    under_way, held_back = asyncio.Barrier(4 * PER_ADDRESS + 1), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"pass"
        await under_way.wait()
        await held_back.wait()
        yield b"word=wrong"

    async def guess() -> int:
        async with session.post(guarded[1].url(f"{ADMIN}/login"), data=body(), headers=headers) as answer:
            return answer.status

    guesses = [asyncio.create_task(guess()) for _ in range(4 * PER_ADDRESS)]
    await under_way.wait()
    async with session.get(guarded[1].url(f"{ADMIN}/login")) as page:  # by now the node has seen all that came before
        assert page.status == 200
    held_back.set()
    statuses = await asyncio.gather(*guesses)
    assert Counter(statuses) == {403: PER_ADDRESS, 429: 3 * PER_ADDRESS}


async def test_a_log_in_leads_back_but_never_away(guarded, session) -> None:
    """`next` is followed inside the admin pages only."""
    for next, expected in (
        (f"{ADMIN}/tap?cmd=x", f"{ADMIN}/tap?cmd=x"),
        ("//evil.example", ADMIN),
        ("/example", ADMIN),
    ):
        async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as fresh:
            async with fresh.get(guarded[0].url(f"{ADMIN}/login")) as page:
                form = {"csrf": csrf_of(await page.text()), "password": PASSWORD}
            url = guarded[0].url(f"{ADMIN}/login", next=next)
            async with fresh.post(url, data=form, allow_redirects=False) as answer:
                assert answer.headers["Location"] == expected


async def test_the_cookie_is_secure_behind_tls(guarded, session) -> None:
    """Whoever ends TLS in front of the node says so."""
    async with session.get(guarded[0].url(f"{ADMIN}/login"), headers={"X-Forwarded-Proto": "https"}) as answer:
        assert "Secure" in answer.headers["Set-Cookie"]


async def test_forged_and_foreign_requests_do_nothing(guarded, session) -> None:
    """Forms and actions need the page's token and origin; the socket needs the session and the origin."""
    node = guarded[0]
    async with session.post(node.url(f"{ADMIN}/login"), data={"password": PASSWORD}) as answer:
        assert answer.status == 403
    url, message = node.url(f"{ADMIN}/actions/send"), {"kind": "all", "cmd": "x"}
    async with session.post(url, json=message) as answer:
        assert answer.status == 401
    async with await log_in(session, node) as answer:
        assert answer.status == 303
    async with session.get(node.url(ADMIN)) as page:
        csrf = csrf_of(await page.text())
    refused: tuple[dict[str, str], ...] = (
        {},
        {"X-CSRF-Token": "0" * 64},
        {"X-CSRF-Token": csrf, "Origin": "https://evil.example"},
        {"X-CSRF-Token": csrf, "Origin": "null"},
        {"X-CSRF-Token": csrf, "Sec-Fetch-Site": "cross-site"},
    )
    for headers in refused:
        async with session.post(url, json=message, headers=headers) as answer:
            assert answer.status == 403, headers
    async with session.post(url, json=message, headers={"X-CSRF-Token": csrf}) as answer:
        assert answer.status == 200
    socket = node.ws_url(path=f"{ADMIN}/socket")
    for options in ({"origin": "https://evil.example"}, {"headers": {"Cookie": "gateway_admin=x"}, "anew": True}):
        anew = options.pop("anew", False)
        async with ClientSession() as stranger:
            with pytest.raises(WSServerHandshakeError) as refusal:
                await (stranger if anew else session).ws_connect(socket, **options)
        assert refusal.value.status == (401 if anew else 403)


async def test_every_page_has_a_strict_policy_and_is_not_kept(guarded, session) -> None:
    """No inline script or style, nothing from elsewhere, no frame, no cache; errors included."""
    async with await log_in(session, guarded[0]):
        pass
    for path in (*PATHS, "/login", "/socket"):
        async with session.get(guarded[0].url(ADMIN + path), allow_redirects=False) as answer:
            policy = answer.headers["Content-Security-Policy"]
            html = await answer.text()
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert "<style" not in html
        assert " style=" not in html
        assert " onclick=" not in html


async def test_a_query_that_is_not_utf_8_is_named(guarded, session) -> None:
    """Whatever was meant, it is not searched for as something else."""
    async with await log_in(session, guarded[0]):
        pass
    for path, named in (("/connections?text=%ff", "text"), ("/tap?cmd=x&channel=%ed%a0%bd", "channel")):
        async with session.get(URL(guarded[0].url(ADMIN + path), encoded=True)) as answer:
            assert (answer.status, await answer.text()) == (400, f"{named}: expected UTF-8, percent-encoded\n")


async def test_bad_actions_are_named(guarded, session) -> None:
    """What is wrong with an action is said, and the node goes on."""
    async with await log_in(session, guarded[0]):
        pass
    async with session.get(guarded[0].url(ADMIN)) as page:
        csrf = csrf_of(await page.text())
    url = ""
    cases: tuple[tuple[str, object, int, str], ...] = (
        ("send", {"kind": "channel", "name": "no spaces", "cmd": "x"}, 400, "channel name"),
        ("send", {"kind": "nobody", "cmd": "x"}, 400, "expected channel, user"),
        ("send", {"kind": "all"}, 400, "cmd"),
        ("send", [], 400, "JSON object"),
        ("disconnect", {"id": "nobody~1"}, 404, "no connection"),
        ("join", {"id": f"{guarded[1].id}~1", "channel": "x"}, 404, "no connection"),
        ("drain", {"node": "nowhere"}, 400, "nowhere"),
        ("explode", {}, 404, "explode"),
    )
    for action, fields, status, text in cases:
        url = guarded[0].url(f"{ADMIN}/actions/{action}")
        async with session.post(url, json=fields, headers={"X-CSRF-Token": csrf}) as answer:
            assert (answer.status, text in await answer.text()) == (status, True), (action, fields)
    async with session.post(url, data=b"{", headers={"X-CSRF-Token": csrf}) as answer:
        assert answer.status == 400


async def test_without_a_password_a_node_bound_to_all_addresses_has_no_pages(start_node, session) -> None:
    """Not even for this machine: who can reach the port is not known."""
    node = await start_node(host="0.0.0.0")
    async with session.get(node.url(ADMIN)) as answer:
        assert answer.status == 404


async def test_the_socket_refuses_what_it_does_not_know_and_answers_the_rest(guarded, session) -> None:
    """Unknown commands, views and queries are errors with the request's id; the socket goes on."""
    async with await log_in(session, guarded[0]):
        pass
    url = guarded[0].ws_url(path=f"{ADMIN}/socket")
    async with session.ws_connect(url, protocols=["gateway.v1.json"]) as socket, asyncio.timeout(10):
        assert (await socket.receive_json())["cmd"] == "$welcome"
        for id, (cmd, param) in enumerate(
            [("explode", None), ("watch", {"view": "nothing"}), ("look", {"view": "audit", "query": [1]})]
        ):
            await socket.send_json({"cmd": cmd, "param": param, "id": id})
            answer = await socket.receive_json()
            assert (answer["cmd"], answer["id"]) == ("$error", id)
        await socket.send_str("{")
        assert (await socket.receive_json())["param"]["code"] == "bad-message"
        await socket.send_json({"cmd": "look", "param": {"view": "overview", "query": {}}, "id": "now"})
        answer = await socket.receive_json()
        assert {node["id"] for node in answer["param"]["nodes"]} == {node.id for node in guarded}
        async with session.get(guarded[0].url("/healthz")) as healthy:
            assert healthy.status == 200
    overview = answer["param"]["totals"]
    assert overview["connections"] == 0, "an operator who looks is no connection"


async def test_while_redis_is_away_pages_say_so(own_redis, start_node, session) -> None:
    """Each page answers, with what is wrong; the node stays up, and the page is whole again afterwards."""
    node = await start_node(own_redis)
    async with await log_in_by_link(session, node) as answer:
        assert answer.status == 303
    await own_redis.kill()

    async def answers(path: str, status: int) -> str:
        async with session.get(node.url(ADMIN + path), allow_redirects=False) as answer:
            assert answer.status == status, path
            return await answer.text()

    for path in ("", "/connections", "/channels", "/users", "/audit", f"/nodes/{node.id}"):
        assert "Redis" in await eventually(partial(answers, path, 503)), path
    await own_redis.start()
    await eventually(partial(answers, "", 200), 30)
