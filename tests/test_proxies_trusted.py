"""What is believed of the headers that proxies write: only what a trusted one wrote, and nothing malformed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from gateway.config import load
from gateway.errors import InvalidSettings
from gateway.proxies import Client, read
from tests.harness.node import Node
from tests.harness.wire import Head, Wires

TRUSTED = tuple(map(ip_network, ("10.0.0.0/8", "192.0.2.7", "2001:db8::/32")))

FOR = "X-Forwarded-For"
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


def test_headers_that_contradict_each_other_do_not_count() -> None:
    """One of them was passed on by a proxy that writes the other one only."""
    headers = {FOR: "203.0.113.9", "Forwarded": "for=203.0.113.9;proto=https"}
    assert read(headers, TRUSTED) == Client("203.0.113.9", "https")
    assert read(headers | {"Forwarded": "for=6.6.6.6;proto=https"}, TRUSTED) == Client()


@pytest.mark.parametrize("value", ["10.0.0.0/8", "10.0.0.1", "::1", '["10.0.0.0/8", "::1"]', "10.0.0.0/8, ::1", ""])
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
        ({"Origin": "https://chat.example", "X_Forwarded_Host": "chat.example"}, 101, 403),
        ({"Origin": "https://chat.example", "X_Forwarded_Host": "chat.example:443"}, 101, 403),
        ({"Origin": "https://chat.example", "X_Forwarded_Host": "CHAT.example", "X_Forwarded_Proto": "wss"}, 101, 403),
        ({"Origin": "https://chat.example", "Forwarded": "for=203.0.113.9;host=chat.example;proto=https"}, 101, 403),
        ({"Origin": "https://chat.example:8443", "X_Forwarded_Host": "chat.example"}, 403, 403),
        ({"Origin": "http://chat.example", "X_Forwarded_Host": "chat.example", "X_Forwarded_Proto": "https"}, 403, 403),
        ({"Origin": "https://evil.example", "X_Forwarded_Host": "chat.example"}, 403, 403),
        ({"Origin": "https://chat.example", "Host": "chat.example"}, 101, 101),
        ({"Origin": "https://chat.example", "Host": "Chat.Example:443"}, 101, 101),
        ({"Origin": "http://chat.example", "Host": "chat.example:80"}, 101, 101),
        ({"Origin": "http://chat.example", "Host": "chat.example:443"}, 403, 403),
        ({"Origin": "null", "Host": "chat.example"}, 403, 403),
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
