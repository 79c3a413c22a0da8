"""Whose pages may connect and act: one rule of what is the same origin, wherever it is asked."""

from __future__ import annotations

import pytest

from tests.harness.node import Node
from tests.harness.wire import Head, Wires

PROXY = "203.0.113.9"


async def upgrade(wire: Wires, node: Node, *origins: str, path: str = "/connect", **headers: str) -> tuple[Head, str]:
    """Shake hands with so many `Origin` lines; return the answer and what it says."""
    client = await wire.open(node, path=path)
    request = client.upgrade(headers={name.replace("_", "-"): value for name, value in headers.items()})
    lines = "".join(f"Origin: {origin}\r\n" for origin in origins).encode()
    await client.write(request.removesuffix(b"\r\n") + lines + b"\r\n")
    head = await client.read_head()
    length = int(head.headers.get("content-length", "0"))
    return head, (await client.read_exactly(length)).decode()


@pytest.mark.parametrize("allowed", ["", "*", "https://a.example"])
async def test_of_several_origins_none_counts(start_node, wire: Wires, allowed: str) -> None:
    """Whichever of them somebody before us looked at; twice the same one is no better."""
    node = await start_node(allowed_origins=allowed)
    own = f"http://127.0.0.1:{node.port}"
    for origins in ((own, "https://evil.example"), (own, own), (own, ""), ("https://a.example", "https://a.example")):
        head, said = await upgrade(wire, node, *origins)
        assert (head.status, "one Origin" in said) == (403, True)
    assert (await upgrade(wire, node, own))[0].status == 101
    assert (await upgrade(wire, node, ""))[0].status == (101 if allowed == "*" else 403)


async def test_a_refusal_says_what_to_set_in_one_line(start_node, wire: Wires) -> None:
    """To the client, in the log, and counted."""
    node = await start_node()
    cases = {
        ("https://evil.example", "localhost"): "see allowed_origins",
        ("https://localhost", "localhost"): "trusted_proxies and have it send X-Forwarded-Proto",
        ("https://localhost:8443", "localhost:8443"): "trusted_proxies and have it send X-Forwarded-Proto",
        ("http://chat.example", "chat.example"): "name the origin in allowed_origins, or the proxy",
    }
    for (origin, host), advice in cases.items():
        head, said = await upgrade(wire, node, origin, Host=host)
        assert (head.status, advice.lower() in said.lower()) == (403, True), said
    refused = [line for line in node.output.splitlines() if " refused: " in line]
    assert len(refused) == len(cases)
    for (origin, _), advice in cases.items():
        assert any(origin in line and advice.lower() in line.lower() for line in refused)
    metrics = (await node.get("/metrics")).text
    assert f'gateway_connections_refused_total{{status="403"}} {len(cases)}.0' in metrics


async def test_a_name_in_other_letters_is_what_browsers_send(start_node, wire: Wires) -> None:
    """They send what DNS has for it."""
    node = await start_node(allowed_origins="https://bücher.example")
    assert (await upgrade(wire, node, "https://xn--bcher-kva.example"))[0].status == 101
    assert (await upgrade(wire, node, "https://bucher.example"))[0].status == 403


async def test_an_allowed_name_is_a_name_of_this_machine(start_node, wire: Wires) -> None:
    """A node on loopback that people know by a name of their own."""
    node = await start_node(allowed_origins="https://chat.example")
    assert (await upgrade(wire, node, "http://chat.example", Host="chat.example"))[0].status == 101
    assert (await upgrade(wire, node, "http://evil.example", Host="evil.example"))[0].status == 403


async def test_a_node_for_everybody_is_known_by_any_name(start_node, wire: Wires) -> None:
    """Which of them are its own nobody can tell."""
    node = await start_node(host="0.0.0.0")
    assert (await upgrade(wire, node, "http://chat.example", Host="chat.example"))[0].status == 101
    assert (await upgrade(wire, node, "http://other.example", Host="chat.example"))[0].status == 403
