"""What is believed of the headers that proxies write: only what a trusted one wrote, and nothing malformed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from aiohttp import ClientSession, UnixConnector, WSServerHandshakeError, web

from gateway import Handler, Profile, setup
from gateway.access.proxies import Client, read
from gateway.config import load
from gateway.errors import InvalidSettings
from tests.harness.node import Node
from tests.harness.wire import Head, Wires

TRUSTED = tuple(map(ip_network, ("10.0.0.0/8", "192.0.2.7", "2001:db8::/32")))

FOR = "X-Forwarded-For"
FOR_ = "X_Forwarded_For"
TLS = {"X_Forwarded_Proto": "https"}
ADDRESSES = {
    "": "",
    "203.0.113.9": "203.0.113.9",
    " 203.0.113.9 ": "203.0.113.9",
    "203.0.113.9:4711": "203.0.113.9",
    "2001:dead::1": "2001:dead::1",
    "[2001:dead::1]:4711": "2001:dead::1",
    "::ffff:203.0.113.9": "203.0.113.9",
    # The rightmost one that is no proxy of ours; what stands before it anybody may have written.
    "1.1.1.1, 203.0.113.9": "203.0.113.9",
    "1.1.1.1, 203.0.113.9, 10.1.2.3, 192.0.2.7": "203.0.113.9",
    "10.9.9.9, 203.0.113.9, 2001:db8::5": "203.0.113.9",
    "10.0.0.1, 10.0.0.2": "10.0.0.1",
    # As far as it makes sense.
    "203.0.113.9, nonsense, 10.0.0.2": "10.0.0.2",
    "203.0.113.9, unknown": "",
    "203.0.113.9,": "",
    "203.0.113.9, , 10.0.0.2": "10.0.0.2",
    "203.0.113.999": "",
    "203.0.113.9 evil": "",
    "\x1b[31m": "",
    "<script>": "",
    "1" * 5000: "",
}


@pytest.mark.parametrize(("header", "address"), ADDRESSES.items(), ids=lambda value: ascii(value)[:40])
def test_the_address_is_the_last_one_that_is_no_proxy_of_ours(header: str, address: str) -> None:
    """Seen from the proxy that sent it, of which the header says nothing."""
    assert read({FOR: header}, TRUSTED) == Client(address)


SCHEMES = {"https": "https", "HTTPS": "https", "http": "http", "wss": "https", "ws": "http", "http, https": "https"}


@pytest.mark.parametrize(("header", "scheme"), [*SCHEMES.items(), ("ftp", ""), ("", ""), ("https,", ""), ("\n", "")])
def test_the_scheme_is_the_nearest_proxy_s(header: str, scheme: str) -> None:
    """One of two, whatever the proxy calls it."""
    assert read({"X-Forwarded-Proto": header}, TRUSTED).scheme == scheme


HOSTS = ["example.com", "example.com:8443", "EXAMPLE.com", "[2001:db8::1]:443", "127.0.0.1", "a_b.example"]
NO_HOSTS = ["", "a b", "a/b", "user@example.com", "example.com\r\nX: y", "exämple", "a:b", "a:123456", "<x>", "x" * 300]


@pytest.mark.parametrize(("header", "host"), [(host, host) for host in HOSTS] + [(no_host, "") for no_host in NO_HOSTS])
def test_the_host_is_a_host(header: str, host: str) -> None:
    """A name or an address, with a port or without."""
    assert read({"X-Forwarded-Host": header}, TRUSTED).host == host
    assert read({"X-Forwarded-Host": f"evil.example, {header}"}, TRUSTED).host == host


STANDARD = {
    "for=203.0.113.9": Client("203.0.113.9"),
    "For=203.0.113.9; Proto=https; By=10.0.0.1": Client("203.0.113.9", "https"),
    'for="203.0.113.9:4711";host=example.com;proto=https': Client("203.0.113.9", "https", "example.com"),
    'for="[2001:dead::1]:4711"': Client("2001:dead::1"),
    'for="203.0.1\\13.9"': Client("203.0.113.9"),
    "for=1.1.1.1;host=evil.example, for=203.0.113.9;host=good.example, for=10.0.0.1;host=inner": Client(
        "203.0.113.9", "", "good.example"
    ),
    "for=1.1.1.1, for=10.0.0.1;proto=https": Client("1.1.1.1"),
    "for=unknown;proto=https": Client(),
    "for=_hidden, for=10.0.0.1": Client("10.0.0.1"),
    "proto=https": Client(),
    "for=203.0.113.9;;": Client(),
    'for="203.0.113.9': Client(),
    "for=203.0.113.9 evil": Client(),
    "nonsense": Client(),
    "=": Client(),
    ", ,": Client(),
}


@pytest.mark.parametrize(("header", "client"), STANDARD.items(), ids=ascii)
def test_the_standard_header_says_the_same(header: str, client: Client) -> None:
    """Scheme and host are those of the proxy that saw the address; of a malformed header nothing counts."""
    assert read({"Forwarded": header}, TRUSTED) == client


HIDING = ["for=6.6.6.6;proto=https;host=evil.example", "for=unknown", 'for="', ";;", "for=10.0.0.1", "proto=https"]


@pytest.mark.parametrize("forwarded", HIDING)
def test_nobody_hides_behind_a_header_that_the_proxy_passed_on(forwarded: str) -> None:
    """Proxies that write `X-Forwarded-For` leave `Forwarded` as it came: it changes nothing that they say."""
    headers = {FOR: "203.0.113.9", "X-Forwarded-Host": "chat.example", "Forwarded": forwarded}
    assert read(headers, TRUSTED) == Client("203.0.113.9", "", "chat.example")


def test_the_standard_header_adds_to_the_others_what_they_do_not_say() -> None:
    """Where both name the same address."""
    headers = {FOR: "203.0.113.9", "Forwarded": "for=203.0.113.9;proto=https"}
    assert read(headers, TRUSTED) == Client("203.0.113.9", "https")


@pytest.mark.parametrize("scope", ["eth0", "1", "anything%at all", "<script>", "\x1b[31m"])
def test_an_address_has_no_text_behind_it(scope: str) -> None:
    """The scope of a local address means nothing on another machine."""
    assert read({FOR: f"fe80::1%{scope}"}, TRUSTED).address == "fe80::1"
    assert read({"Forwarded": f'for="[fe80::1%{scope}]"'}, TRUSTED).address == "fe80::1"
    assert read({FOR: f"203.0.113.9, 2001:db8::5%{scope}"}, TRUSTED).address == "203.0.113.9"


@pytest.mark.parametrize(
    "value",
    ["unix", "10.0.0.0/8,unix", "10.0.0.0/8", "10.0.0.1", "::1", '["10.0.0.0/8", "::1"]', "10.0.0.0/8, ::1", ""],
)
def test_proxies_are_addresses_or_networks(value: str) -> None:
    """In a list, as lists are written."""
    load(trusted_proxies=value)


@pytest.mark.parametrize("value", ["10.0.0.0/33", "10.0.0.1/8", "localhost", "*", "10.0.0.0/8;::1"])
def test_what_is_no_network_is_one_clear_line(value: str) -> None:
    """It names the setting and the value."""
    with pytest.raises(InvalidSettings) as refused:
        load(trusted_proxies=value)
    line = str(refused.value)
    assert line.startswith("trusted_proxies: ")
    assert value in line
    assert "\n" not in line


@pytest.fixture(scope="module")
def _pair() -> Iterator[tuple[Node, Node]]:
    trusting, distrustful = Node(trusted_proxies=["127.0.0.1", "10.0.0.0/8"]), Node(trusted_proxies=["10.0.0.0/8"])
    try:
        with asyncio.Runner() as runner:
            runner.run(trusting.start())
            runner.run(distrustful.start())
        yield trusting, distrustful
    finally:
        trusting.close()
        distrustful.close()


@pytest.fixture
def node(_pair: tuple[Node, Node]) -> Node:
    """A node that trusts whoever connects to it in these tests."""
    return _pair[0]


@pytest.fixture
def distrustful(_pair: tuple[Node, Node]) -> Node:
    """A node that trusts only others."""
    return _pair[1]


async def upgrade(wire: Wires, node: Node, **headers: str) -> Head:
    client = await wire.open(node)
    await client.write(client.upgrade(headers={name.replace("_", "-"): value for name, value in headers.items()}))
    return await client.read_head()


async def test_a_connection_is_where_its_client_is(node: Node, distrustful: Node, wire: Wires) -> None:
    """In the log, in Redis and for handlers; unless the proxy is not one of ours."""
    for behind, remote in ((node, "203.0.113.9"), (distrustful, "127.0.0.1")):
        assert (await upgrade(wire, behind, X_Forwarded_For="6.6.6.6, 203.0.113.9, 10.0.0.1")).status == 101
        await behind.answers("/healthz", 200)
        assert f" remote={remote} " in behind.output
        assert "6.6.6.6" not in behind.output


@pytest.mark.parametrize(
    ("headers", "trusting", "other"),
    [
        ({"Origin": "https://chat.example"}, 403, 403),
        ({"Origin": "https://chat.example", "X_Forwarded_Host": "chat.example"}, 403, 403),  # it came by http
        ({"Origin": "http://chat.example", "X_Forwarded_Host": "chat.example"}, 101, 403),
        ({"Origin": "https://chat.example", "X_Forwarded_Host": "chat.example:443", **TLS}, 101, 403),
        ({"Origin": "https://chat.example", "Host": "chat.example:443", **TLS}, 101, 403),
        ({"Origin": "https://chat.example", "Host": "CHAT.example", **TLS}, 101, 403),
        ({"Origin": "http://chat.example:443", "Host": "chat.example", **TLS}, 403, 403),
        ({"Origin": "https://chat.example", "X_Forwarded_Host": "CHAT.example", "X_Forwarded_Proto": "wss"}, 101, 403),
        ({"Origin": "https://chat.example", "Forwarded": "for=203.0.113.9;host=chat.example;proto=https"}, 101, 403),
        ({"Origin": "https://chat.example:8443", "X_Forwarded_Host": "chat.example"}, 403, 403),
        ({"Origin": "http://chat.example", "X_Forwarded_Host": "chat.example", "X_Forwarded_Proto": "https"}, 403, 403),
        ({"Origin": "https://evil.example", "X_Forwarded_Host": "chat.example"}, 403, 403),
        ({"Origin": "https://chat.example", "Host": "chat.example"}, 403, 403),
        ({"Origin": "http://chat.example", "Host": "chat.example:80", FOR_: "203.0.113.9"}, 101, 403),
        # Led here by its DNS: a page has its own name for ours, and cannot have its socket say where it came through.
        ({"Origin": "http://evil.example:8080", "Host": "evil.example:8080"}, 403, 403),
        ({"Origin": "http://127.0.0.1.nip.io:8080", "Host": "127.0.0.1.nip.io:8080"}, 403, 403),
        ({"Origin": "http://localhost:8080", "Host": "LOCALHOST:8080"}, 101, 101),
        ({"Origin": "http://app.localhost:80", "Host": "app.localhost"}, 101, 101),
        ({"Origin": "http://[::1]:8080", "Host": "[::1]:8080"}, 101, 101),
        ({"Origin": "https://localhost:8080", "Host": "localhost:8080"}, 403, 403),
        ({"Host": "evil.example:8080"}, 101, 101),  # no page at all
        ({"Origin": "http://chat.example", "Host": "chat.example:443"}, 403, 403),
        ({"Origin": "null", "Host": "chat.example"}, 403, 403),
        ({"Origin": "http://localhost/", "Host": "localhost"}, 403, 403),
        ({"Origin": "http://user@localhost", "Host": "localhost"}, 403, 403),
        ({"Origin": "https://[", "Host": "chat.example"}, 403, 403),
        ({"Origin": "http://", "Host": " "}, 403, 403),
        ({"Origin": "http://", "Host": ""}, 400, 400),
    ],
    ids=str,
)
async def test_a_page_s_own_site_is_what_the_browser_asked_for(
    node: Node, distrustful: Node, wire: Wires, headers: dict[str, str], trusting: int, other: int
) -> None:
    """Behind a proxy that speaks TLS and another host name, too."""
    assert (await upgrade(wire, node, **headers)).status == trusting
    assert (await upgrade(wire, distrustful, **headers)).status == other


@pytest.mark.parametrize(("trusted", "remote", "status"), [("unix", "203.0.113.9", 101), ("10.0.0.0/8", "", 403)])
async def test_a_proxy_on_a_socket_file_can_be_trusted(tmp_path: Path, trusted: str, remote: str, status: int) -> None:
    """It has no address that could be named."""

    async def socket(request: web.Request) -> web.StreamResponse:
        connection = await service.upgrade(request, "", Profile(), Handler())
        return await service.read_loop(connection)

    app = web.Application()
    service = setup(app, trusted_proxies=trusted)
    app.router.add_get("/socket", socket)
    runner, path = web.AppRunner(app), str(tmp_path / "gateway")
    await runner.setup()
    try:
        await web.UnixSite(runner, path).start()
        headers = {FOR: "6.6.6.6, 203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "chat.example"}
        async with ClientSession(connector=UnixConnector(path)) as session:
            try:
                async with session.ws_connect("ws://x/socket", headers=headers, origin="https://chat.example"):
                    seen = [connection.remote async for connection in service.get_connections()]
                    assert (status, seen) == (101, [remote])
            except WSServerHandshakeError as refused:
                assert refused.status == status
    finally:
        await runner.cleanup()
