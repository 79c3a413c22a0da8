"""permessage-deflate (RFC 7692): what is agreed on, what is written, and what a client's compressed bytes mean."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from aiohttp import ClientSession
from hypothesis import given
from hypothesis import strategies as st

from gateway.connections.connection import Connection
from gateway.connections.fanout import Batch, write_all
from gateway.connections.hub import by_dialect
from gateway.protocol.codec import JSON, MSGPACK, PLAIN, Dialect, dialect_of, encode
from gateway.protocol.deflate import WINDOW, WORTHWHILE, chosen_window, deflate, inflate
from gateway.protocol.envelope import Envelope
from gateway.protocol.frames import BINARY, DEFLATED, frame_message
from tests.harness import properties  # noqa: F401 (how examples are made)
from tests.harness.browser import Pages
from tests.harness.fakes import Peer, Received, RecordingSocket, make_connection, server_frames
from tests.harness.node import Node, Nodes
from tests.harness.wire import CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, Wire, Wires, frame

OFFER = "permessage-deflate; client_max_window_bits"
AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
COMPRESSED, SECOND, THIRD = 4, 2, 1
LONG = "to be or not to be, " * 50
LIMIT = 4000
TAIL = b"\x00\x00\xff\xff"


def packed(message: bytes | str, *, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    """Compress as a client does."""
    compressor = zlib.compressobj(wbits=-15)
    data = message.encode() if isinstance(message, str) else message
    return (compressor.compress(data) + compressor.flush(flush)).removesuffix(TAIL)


def unpacked(sent: Frame, window: int = 15) -> bytes:
    """Decompress one frame by itself, as a client does that keeps nothing between two."""
    assert sent.rsv in (0, COMPRESSED)
    return zlib.decompressobj(-window).decompress(sent.payload + TAIL) if sent.rsv else sent.payload


class TestAgreement:
    @pytest.mark.parametrize(
        ("offers", "window"),
        [
            ([], 0),
            (["permessage-deflate"], 15),
            ([OFFER], 15),
            (["permessage-deflate; client_max_window_bits=8"], 15),
            (["permessage-deflate; server_no_context_takeover; client_no_context_takeover"], 15),
            (["permessage-deflate;server_max_window_bits=9"], 9),
            (['permessage-deflate ; server_max_window_bits = "12"'], 12),
            (["x-webkit-deflate-frame, permessage-deflate; server_max_window_bits=10"], 10),
            (["bbf-usp-protocol", "permessage-deflate"], 15),
            (["permessage-deflate; server_max_window_bits=8, permessage-deflate"], 15),
            (["permessage-deflate; server_max_window_bits=8"], 0),
            (["permessage-deflate; server_max_window_bits=16"], 0),
            (["permessage-deflate; server_max_window_bits=09"], 0),
            (["permessage-deflate; server_max_window_bits=-9"], 0),
            (["permessage-deflate; server_max_window_bits=٩"], 0),
            (["permessage-deflate; server_max_window_bits=ten"], 0),
            (["permessage-deflate; server_max_window_bits"], 0),
            (["permessage-deflate; client_max_window_bits=7"], 0),
            (["permessage-deflate; server_no_context_takeover=1"], 0),
            (["permessage-deflate; client_no_context_takeover; client_no_context_takeover"], 0),
            (["permessage-deflate; mode=fast"], 0),
            (["permessage-deflate;"], 0),
            (["permessage-deflate; = "], 0),
            (["PERMESSAGE-DEFLATE-FRAME"], 0),
            ([",;,;=,"], 0),
        ],
        ids=str,
    )
    def test_the_first_offer_that_can_be_honoured_counts(self, offers: list[str], window: int) -> None:
        """Another extension, or parameters that RFC 7692 does not have, decline an offer; nothing is an error."""
        assert chosen_window(offers) == window

    @given(st.lists(st.text(alphabet='permessage-deflate;,= "_019client_max_window_bits', max_size=80), max_size=3))
    def test_no_header_is_an_error(self, offers: list[str]) -> None:
        """Whatever it is."""
        assert chosen_window(offers) in (0, *range(9, 16))


class TestBytes:
    @given(st.binary(max_size=2000), st.integers(9, 15))
    def test_what_is_compressed_is_read_again(self, message: bytes, window: int) -> None:
        """By ourselves and by others, within the window that was agreed on."""
        found = deflate(message, window)
        assert inflate(found, 0) == message
        assert zlib.decompressobj(-window).decompress(found + TAIL) == message

    @given(st.binary(max_size=300))
    def test_noise_is_refused_or_read(self, noise: bytes) -> None:
        """Nothing else is raised, and no more comes out than was asked for."""
        with suppress(ValueError):
            assert len(inflate(noise, 100)) <= 101

    @pytest.mark.parametrize("cut", range(1, 12))
    def test_half_a_message_is_refused(self, cut: int) -> None:
        """Though what there is of it may make sense."""
        with pytest.raises(ValueError, match=r"whole|Error"):
            inflate(packed("Hello, hello, world!")[:-cut], 0)

    @pytest.mark.parametrize("data", [packed("Hello", flush=zlib.Z_FINISH), b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"])
    def test_a_client_may_end_the_stream_with_each_message(self, data: bytes) -> None:
        """As RFC 7692 section 7.2.3.5 shows."""
        assert inflate(data, 5) == b"Hello"

    def test_what_follows_the_end_of_the_stream_is_refused(self) -> None:
        """A message is not cut short without a word."""
        with pytest.raises(ValueError, match="whole"):
            inflate(packed("Hello", flush=zlib.Z_FINISH) + packed("more"), 0)

    def test_of_a_bomb_no_more_is_decompressed_than_to_see_that_it_is_one(self) -> None:
        """One byte beyond the limit."""
        assert len(inflate(packed(b"\0" * 10_000_000), 65536)) == 65537

    def test_only_what_gets_shorter_is_compressed(self) -> None:
        """Short messages and noise go out as they are."""
        text, noise = b"x" * WORTHWHILE, random.Random(1).randbytes(1000)
        assert frame_message(TEXT, text, WINDOW)[0] & DEFLATED
        assert not frame_message(TEXT, text[1:], WINDOW)[0] & DEFLATED
        assert not frame_message(BINARY, noise, WINDOW)[0] & DEFLATED
        assert not frame_message(TEXT, text, 0)[0] & DEFLATED


class TestFanOut:
    def test_a_message_is_compressed_once_for_all_of_a_dialect(self) -> None:
        """The same bytes object goes to each of them, and every frame of a batch can be read by itself."""
        sockets: dict[Dialect, list[RecordingSocket]] = {}
        connections: list[Connection] = []
        for protocol in (PLAIN, JSON, MSGPACK):
            for window in (0, 9, 15):
                for number in range(2):
                    connection, socket = make_connection(f"n~{protocol}{window}{number}")
                    connection.dialect = dialect_of(protocol, window)
                    sockets.setdefault(connection.dialect, []).append(socket)
                    connections.append(connection)
        texts = [LONG, "short", LONG]
        batch = Batch([Envelope(encode("say", text, "lobby")) for text in texts])
        assert write_all(by_dialect(connections), batch) == 3 * len(connections)
        for dialect, (one, other) in sockets.items():
            assert len(one.writes) == 1
            assert one.writes[0] is other.writes[0]
            frames = server_frames(one.writes[0])
            assert [sent.rsv for sent in frames] == ([COMPRESSED, 0, COMPRESSED] if dialect.window else [0, 0, 0])
            read = msgpack.unpackb if dialect.protocol == MSGPACK else json.loads
            assert [read(unpacked(sent, dialect.window or 15))["param"] for sent in frames] == texts


class TestFrames:
    @given(st.text(max_size=200), st.lists(st.integers(0, 400), max_size=4), st.booleans())
    async def test_a_compressed_message_may_come_in_any_fragments(
        self, text: str, cuts: list[int], is_compressed: bool
    ) -> None:
        """Only its first frame says that it is compressed; a ping may come between; the next one may be in clear."""
        peer = Peer(window=WINDOW)
        data = packed(text) if is_compressed else text.encode()
        places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        pieces = [data[start:end] for start, end in itertools.pairwise(places)]
        for number, piece in enumerate(pieces):
            rsv = COMPRESSED if is_compressed and not number else 0
            opcode, fin = CONTINUATION if number else TEXT, number == len(pieces) - 1
            peer.feed(frame(piece, opcode, fin=fin, rsv=rsv), frame("?", PING))
        peer.feed(frame("clear"), frame(packed(b"\xff\x00"), BINARY, rsv=COMPRESSED))
        assert peer.received == [
            Received(TEXT, text.encode()),
            Received(TEXT, b"clear"),
            Received(BINARY, b"\xff\x00"),
        ]
        assert [sent.opcode for sent in peer.sent] == [PONG] * len(pieces)

    @pytest.mark.parametrize(
        "data",
        {
            "on a ping": frame("x", PING, rsv=COMPRESSED),
            "on a pong": frame("x", PONG, rsv=COMPRESSED),
            "on a close": frame(b"\x03\xe8", CLOSE, rsv=COMPRESSED),
            "on a continuation": frame(packed("x")[:1], fin=False, rsv=COMPRESSED)
            + frame(packed("x")[1:], CONTINUATION, rsv=COMPRESSED),
            "on the continuation alone": frame("x", fin=False) + frame(packed("x"), CONTINUATION, rsv=COMPRESSED),
            "on a reserved opcode": frame(packed("x"), 3, rsv=COMPRESSED),
            "with the second reserved bit": frame(packed("x"), rsv=COMPRESSED | SECOND),
            "with the third reserved bit": frame(packed("x"), rsv=COMPRESSED | THIRD),
            "a message inside a message": frame("x", fin=False) + frame(packed("x"), rsv=COMPRESSED),
            "what is not compressed": frame("hello", rsv=COMPRESSED),
            "nothing": frame(b"", rsv=COMPRESSED),
            "half a message": frame(packed(LONG)[:-3], rsv=COMPRESSED),
            "two streams": frame(packed("x", flush=zlib.Z_FINISH) + packed("y"), rsv=COMPRESSED),
            "zlib's own head": frame(zlib.compress(b"hello"), rsv=COMPRESSED),
        }.items(),
        ids=lambda item: item[0],
    )
    async def test_a_violation_is_1002(self, data: tuple[str, bytes]) -> None:
        """And ends the connection."""
        peer = Peer(window=WINDOW)
        peer.feed(data[1], frame("behind"))
        assert (peer.close_code, peer.received) == (1002, [])

    async def test_without_an_agreement_it_is_1002(self) -> None:
        """As if there were no such extension."""
        peer = Peer()
        peer.feed(frame(packed("hello"), rsv=COMPRESSED))
        assert (peer.close_code, peer.received) == (1002, [])

    async def test_text_must_be_utf8(self) -> None:
        """Once it is decompressed: 1007."""
        peer = Peer(window=WINDOW)
        peer.feed(frame(packed(b"fine"), rsv=COMPRESSED), frame(packed(b"\xc3\x28"), rsv=COMPRESSED))
        assert (peer.close_code, peer.received) == (1007, [Received(TEXT, b"fine")])

    @pytest.mark.parametrize("parts", [1, 3])
    async def test_the_limit_holds_for_what_comes_out(self, parts: int) -> None:
        """At it a message passes, above it is 1009, in one frame or in several."""
        peer = Peer(window=WINDOW, limit=LIMIT)
        for size in (LIMIT - 1, LIMIT, LIMIT + 1):
            data = packed(b"x" * size)
            pieces = [data] if parts == 1 else [data[:5], data[5:9], data[9:]]
            for number, piece in enumerate(pieces):
                opcode, rsv = (CONTINUATION, 0) if number else (BINARY, COMPRESSED)
                peer.feed(frame(piece, opcode, fin=number == parts - 1, rsv=rsv))
        assert [len(message.payload) for message in peer.received] == [LIMIT - 1, LIMIT]
        assert peer.close_code == 1009

    async def test_the_limit_holds_for_what_comes_in(self) -> None:
        """Nothing above it is collected, whatever may come out of it."""
        peer = Peer(window=WINDOW, limit=LIMIT)
        peer.feed(frame(b"x" * 10, fin=False, rsv=COMPRESSED), frame(b"", CONTINUATION, length=LIMIT + 1)[:10])
        assert peer.close_code == 1009


# ---- real nodes


@pytest.fixture(scope="module")
def _compressing() -> Iterator[Nodes]:
    nodes = Nodes(1, compression=True, max_message_bytes=LIMIT, api_key="key", abuse_limit=0)
    try:
        with asyncio.Runner() as runner:
            runner.run(nodes.start())
        yield nodes
    finally:
        nodes.close()


@pytest.fixture
def node(_compressing: Nodes) -> Node:
    """A node that compresses; it lives as long as the module."""
    _compressing[0].process.assert_running()
    return _compressing[0]


async def agreed(wire: Wires, to: Node, offer: str) -> str | None:
    """Return what a node answers to an offer, None for nothing."""
    client = await wire.open(to)
    await client.write(client.upgrade(headers={"Sec-WebSocket-Extensions": offer}))
    head = await client.read_head()
    assert head.status == 101
    return head.headers.get("sec-websocket-extensions")


async def heard(client: Wire, cmd: str, *, window: int = WINDOW) -> tuple[Frame, Any]:
    """Return the next message with a command, as it came and as it reads."""
    while True:
        sent = await client.read_frame()
        if sent.opcode in (TEXT, BINARY):
            data = unpacked(sent, window)
            message = msgpack.unpackb(data) if sent.opcode == BINARY else json.loads(data)
            if message["cmd"] == cmd:
                return sent, message["param"]


async def member(wire: Wires, node: Node, channel: str, *protocols: str, offer: str = OFFER) -> Wire:
    """Connect a client that is known to be in a channel."""
    client = await wire(node, channel, protocols=protocols, headers={"Sec-WebSocket-Extensions": offer})
    if not protocols:
        await client.send('{"cmd": "?"}')
    await heard(client, "$welcome" if protocols else "$error")
    return client


async def say(node: Node, session: ClientSession, channel: str, param: object) -> None:
    address = node.url(f"/api/channels/{channel}/messages")
    async with session.post(
        address, json={"cmd": "say", "param": param}, headers={"Authorization": "Bearer key"}
    ) as it:
        assert it.status == 202


class TestNode:
    @pytest.mark.parametrize(
        ("offer", "answer"),
        [
            (OFFER, AGREED),
            ("permessage-deflate; server_max_window_bits=10", f"{AGREED}; server_max_window_bits=10"),
            ("permessage-deflate; server_max_window_bits=8", None),
            ("permessage-deflate; nonsense", None),
            (";;==,,", None),
        ],
    )
    async def test_an_offer_is_taken_or_declined(self, node, wire, offer, answer) -> None:
        """Never refused: the connection is made all the same."""
        assert await agreed(wire, node, offer) == answer

    async def test_it_is_off_unless_asked_for(self, nodes, wire) -> None:
        """By default a node declines every offer, and a compressed frame is a violation."""
        assert await agreed(wire, nodes[0], OFFER) is None
        client = await wire(nodes[0], headers={"Sec-WebSocket-Extensions": OFFER})
        await client.write(frame(packed("{}"), rsv=COMPRESSED))
        assert (await client.read_close()).close_code == 1002

    async def test_every_member_gets_every_message(self, node, wire, session) -> None:
        """Compressed for those that offered it, where that makes it shorter, and in clear for the others."""
        clients = [
            (await member(wire, node, "mixed", *protocols, offer=offer), protocols, offer)
            for protocols in ((), (JSON,), (MSGPACK,))
            for offer in (OFFER, "permessage-deflate; server_max_window_bits=9", "")
        ]
        for param in (LONG, "short", LONG):
            await say(node, session, "mixed", param)
            for client, protocols, offer in clients:
                sent, found = await heard(client, "say", window=9 if "=9" in offer else WINDOW)
                assert (sent.opcode, found) == (BINARY if MSGPACK in protocols else TEXT, param)
                assert sent.rsv == (COMPRESSED if offer and param is LONG else 0)

    async def test_a_compressed_command_is_carried_out(self, node, wire) -> None:
        """As one in clear is, and the answer comes compressed."""
        client = await member(wire, node, "echo", JSON)
        await client.write(frame(packed(json.dumps({"cmd": "chat", "param": {"text": LONG}})), rsv=COMPRESSED))
        sent, found = await heard(client, "chat")
        assert (sent.rsv, found["text"]) == (COMPRESSED, LONG)

    async def test_a_bomb_is_1009(self, node, wire) -> None:
        """The others on the node do not notice."""
        other, bomber = await member(wire, node, "quiet"), await member(wire, node, "quiet")
        await bomber.write(frame(packed(b"\0" * 2_000_000), rsv=COMPRESSED))
        assert (await bomber.read_close()).close_code == 1009
        await other.send('{"cmd": "ping"}')
        await heard(other, "pong")

    async def test_another_client_s_compression_works(self, node, session) -> None:
        """aiohttp's, both ways."""
        async with session.ws_connect(node.ws_url("ours"), protocols=[JSON], compress=15) as client:
            assert client.compress
            assert (await client.receive_json())["cmd"] == "$welcome"
            for text in (LONG, "short", LONG):
                await client.send_json({"cmd": "chat", "param": {"text": text}})
                assert (await client.receive_json())["param"]["text"] == text

    async def test_a_browser_agrees_and_reads(self, node: Node, pages: Pages) -> None:
        """Chromium says that messages are compressed, and shows them as they were sent."""
        page = await pages.open(node.url("/example"))
        found = await page.evaluate(
            """async ([url, text]) => {
                const socket = new WebSocket(url, ["gateway.v1.json"]);
                const texts = [];
                for (let sent = 0; texts.length < 3;) {
                    const event = await new Promise((resolve) => (socket.onmessage = resolve));
                    const { cmd, param } = JSON.parse(event.data);
                    if (cmd === "chat") texts.push(param.text === text);
                    if (sent++ < 3) socket.send(JSON.stringify({ cmd: "chat", param: { text } }));
                }
                return [socket.extensions, texts];
            }""",
            [node.ws_url("browsers"), LONG],
        )
        assert "permessage-deflate" in found[0]
        assert found[1] == [True, True, True]
