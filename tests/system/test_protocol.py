"""The plain protocol on the wire: what is refused, how, and that nobody else notices."""

from __future__ import annotations

import json

import pytest

from tests.harness import http
from tests.harness.client import Client, Clients
from tests.harness.node import Nodes
from tests.harness.wire import BINARY, frame

WRONG: dict[str, tuple[str | bytes, str]] = {
    "not JSON": ("rubbish", "bad-message"),
    "not an object": ("[1]", "bad-message"),
    "a string": ('"chat"', "bad-message"),
    "no cmd": ("{}", "bad-message"),
    "an empty cmd": ('{"cmd":""}', "bad-message"),
    "a cmd of the wrong type": ('{"cmd":5}', "bad-message"),
    "a cmd too long": (json.dumps({"cmd": "x" * 129}), "bad-message"),
    "a channel of the wrong type": ('{"cmd":"chat","channel":5}', "bad-message"),
    "an id of the wrong type": ('{"cmd":"chat","id":1.5}', "bad-message"),
    "an illegal channel": ('{"cmd":"chat","channel":"a b"}', "invalid-channel"),
    "a pattern as channel": ('{"cmd":"chat","channel":"a*"}', "invalid-channel"),
    "a channel too long": (json.dumps({"cmd": "chat", "channel": "x" * 201}), "invalid-channel"),
    "deep nesting": ('{"cmd":"chat","param":' + "[" * 30_000 + "]" * 30_000 + "}", "bad-message"),
    "NaN": ('{"cmd":"chat","param":NaN}', "bad-message"),
    "an integer beyond 64 bits": ('{"cmd":"chat","param":{"n":18446744073709551616}}', "bad-message"),
    "an unknown command": ('{"cmd":"nothing"}', "unknown-command"),
    "a command of the gateway": ('{"cmd":"$join","channel":"protocol"}', "unknown-command"),
    "a binary frame": (b'{"cmd":"chat"}', "bad-message"),
}


async def _two(connect: Clients, nodes: Nodes, channel: str) -> tuple[Client, Client]:
    """Connect two clients to two nodes; return once both are members."""
    ada = await connect(nodes[0], channel)
    await ada.send("ping")
    await ada.expect("pong")  # a member now: commands are carried out after the first joins
    bob = await connect(nodes[1], channel)
    await ada.expect("online-update")
    return ada, bob


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_message_is_answered_and_nobody_else_notices(nodes, connect, what):
    """Each kind of bad input gets its code; the connection lives, and other clients see nothing of it."""
    sent, code = WRONG[what]
    channel = "wrong-" + str(list(WRONG).index(what))
    ada, bob = await _two(connect, nodes, channel)
    await ada.send_raw(sent)
    assert (await ada.expect("$error"))["param"]["code"] == code
    await ada.send("ping")
    await bob.expect("pong")
    assert {m["cmd"] for m in bob.received} <= {"online-update", "pong"}


async def test_an_error_carries_the_id_of_its_request(nodes, connect):
    """`$error` names the request, even on a plain connection; nothing else is sent unasked there."""
    ada = await connect(nodes[0], "ids")
    for id in (1, "one"):
        await ada.send("nothing", id=id)
        assert (await ada.expect("$error"))["id"] == id
    await ada.send_raw('{"id":2}')
    assert (await ada.expect("$error"))["id"] == 2
    await ada.send("chat", {"text": "fine"}, id=3)
    await ada.expect("chat")
    assert {m["cmd"] for m in ada.received} == {"$error", "chat"}


async def test_a_spoofed_sender_is_ignored(nodes, connect):
    """What a client claims as `from` reaches nobody."""
    ada, bob = await _two(connect, nodes, "spoof")
    await ada.send("chat", {"text": "I am the boss"}, **{"from": "boss"})
    assert (await bob.expect("chat")).get("from") != "boss"


async def test_a_message_too_big_is_told_and_ends_only_that_connection(nodes, connect):
    """65,536 bytes pass; one more closes with 1009, which the client really reads."""
    ada, bob = await _two(connect, nodes, "big")
    message = json.dumps({"cmd": "chat", "param": {"text": ""}})
    room = 65_536 - len(message)
    await ada.send_raw(message.replace('""', '"' + "x" * room + '"'))
    assert len((await bob.expect("chat"))["param"]["text"]) == room
    await ada.send_raw(message.replace('""', '"' + "x" * (room + 1) + '"'))
    await ada.expect_close(1009)
    await bob.send("ping")
    await bob.expect("pong")


async def test_invalid_utf8_closes_with_1007(nodes, wire):
    """A text frame that is no UTF-8 ends its connection as RFC 6455 says."""
    client = await wire(nodes[0], "utf8")
    await client.send(b'{"cmd":"\xff"}')
    assert (await client.read_close()).close_code == 1007


async def test_bytes_that_come_with_the_handshake_are_not_lost(nodes, wire):
    """A message sent in the same packet as the upgrade is handled."""
    client = await wire.open(nodes[0], "eager")
    await client.write(client.upgrade() + frame(b'{"cmd":"ping"}'))
    assert (await client.read_head()).status == 101
    assert (await client.read_frame()).json["cmd"] == "pong"


async def test_repeated_abuse_ends_the_connection(redis, start_node, connect):
    """After `abuse_limit` refused messages in a minute the next one closes with 1008."""
    node = await start_node(redis, abuse_limit=5)
    ada = await connect(node)
    for _ in range(6):
        await ada.send("nothing")
    await ada.expect_close(1008)
    assert sum(m["cmd"] == "$error" for m in ada.received) == 6


async def test_fragments_pings_and_binary_are_rfc_6455(nodes, wire):
    """A message in fragments with a ping between them is one message, and the ping is answered first."""
    client = await wire(nodes[0], "fragments")
    await client.write(frame(b'{"cmd":', fin=False) + frame(b"hello", 0x9) + frame(b'"ping"}', 0x0))
    pong = await client.read_frame()
    assert (pong.opcode, pong.payload) == (0xA, b"hello")
    assert (await client.read_frame()).json["cmd"] == "pong"
    await client.send(b"\x81", BINARY)
    assert (await client.read_frame()).json["param"]["code"] == "bad-message"


REFUSED = {
    "/connect?ch=a+b": 400,
    "/connect?ch=" + "x" * 201: 400,
    "/connect?ch=%7Ba%7D": 400,
    "/connect?" + "&".join(f"ch=c{i}" for i in range(129)): 400,
    "/connect?ch=lobby": 101,
    "/connect?ch=": 101,
    "/connect?" + "&".join(f"ch=c{i}" for i in range(128)): 101,
}


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path[:40])
async def test_what_is_wrong_with_a_request_is_said_before_the_upgrade(nodes, wire, path):
    """Bad channel names and too many of them are 400; an empty `ch` counts as none."""
    client = await wire.open(nodes[0].ws_url().removesuffix("/connect") + path)
    await client.write(client.upgrade())
    assert (await client.read_head()).status == REFUSED[path]


async def test_a_foreign_origin_is_refused(nodes, wire):
    """A page of another site may not connect with this site's cookies; one of this site may."""
    for origin, status in (("https://evil.example", 403), (nodes[0].url().rstrip("/"), 101)):
        client = await wire.open(nodes[0], "origin")
        await client.write(client.upgrade(headers={"Origin": origin}))
        assert (await client.read_head()).status == status


async def test_a_full_node_says_so(redis, start_node, connect, wire):
    """Beyond `max_connections` a node answers 503 with `Retry-After`."""
    node = await start_node(redis, max_connections=1)
    await connect(node)
    client = await wire.open(node)
    await client.write(client.upgrade())
    head = await client.read_head()
    assert (head.status, "retry-after" in {name.lower() for name in head.headers}) == (503, True)


async def test_plain_http_is_answered_as_such(nodes):
    """Health, the browser client and the demo page are there; `/connect` without an upgrade is refused."""
    health = await http.get(nodes[0].url("/healthz"))
    assert (health.status, health.json["status"]) == (200, "ok")
    for path, status in (
        ("/static/gateway.js", 200),
        ("/static/gateway.mjs", 200),
        ("/static/gateway.d.ts", 200),
        ("/example", 200),
        ("/metrics", 200),
        ("/readyz", 200),
        ("/connect", 426),
        ("/nothing", 404),
    ):
        assert (await http.get(nodes[0].url(path))).status == status, path


async def test_pages_of_any_site_may_import_the_browser_client(nodes):
    """A module from elsewhere is taken only from a server that says so, and a script with a checksum as well."""
    answer = await http.get(nodes[0].url("/static/gateway.mjs"))
    assert {name.lower(): value for name, value in answer.headers.items()}["access-control-allow-origin"] == "*"


async def test_welcome_is_first_and_requests_are_answered(nodes, connect):
    """With a subprotocol the first message is `$welcome`; `$join`, `$presence` and `$leave` are answered by id."""
    ada = await connect(nodes[0], "v1-a", "v1-b", protocols=["gateway.v1.json"])
    welcome = ada.received[0] if ada.received else await ada.receive()
    assert welcome["cmd"] == "$welcome"
    assert welcome["param"]["channels"] == ["v1-a", "v1-b"]
    bob = await connect(nodes[1], "v1-a", protocols=["gateway.v1.json"])
    await bob.expect("$welcome")
    joined = await ada.request("$join", channel="v1-c")
    assert (joined["cmd"], joined["param"]) == ("$reply", {"epoch": None, "offset": None, "recovered": False})
    assert (await ada.request("$presence", channel="v1-a"))["param"]["count"] == 2
    assert (await ada.request("$presence", channel="v1-z"))["param"]["code"] == "forbidden"
    assert (await ada.request("$leave", channel="v1-c"))["cmd"] == "$reply"
    await bob.close()


async def test_a_probe_is_answered_while_the_handler_is_busy(redis, start_node, connect):
    """`$ping` with an id is answered at once, whatever the handler is waiting for; it counts as no abuse."""
    node = await start_node(redis, handler="busy:Busy")
    ada = await connect(node, protocols=["gateway.v1.json"])
    await ada.send("wait")
    for _ in range(3):
        assert (await ada.request("$ping"))["cmd"] == "$reply"
    await ada.send("$ping", {"text": "$ping"})
    assert not any(message["cmd"] == "$error" for message in ada.received)
