"""What a client's bytes mean (RFC 6455 section 5): every frame, every split, every violation."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.frames import frame as server_frame
from tests.harness import properties  # noqa: F401 (how examples are made)
from tests.harness.fakes import Peer, Received
from tests.harness.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 65537]


@dataclass(frozen=True, slots=True)
class Sent:
    """What a client sends, and what the gateway must make of it."""

    data: bytes
    received: list[Received]
    pongs: list[bytes]


@st.composite
def conversations(draw: st.DrawFn) -> Sent:
    """Messages, whole or fragmented anywhere, with control frames in between, each frame with a mask of its own."""
    data, received, pongs = b"", [], []
    masks = st.binary(min_size=4, max_size=4)
    for _ in range(draw(st.integers(1, 4))):
        opcode = draw(st.sampled_from([TEXT, BINARY]))
        payload = draw(st.text(max_size=60)).encode() if opcode == TEXT else draw(st.binary(max_size=300))
        pieces = split(payload, draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        for number, piece in enumerate(pieces):
            if number and draw(st.booleans()):
                ping = draw(st.binary(max_size=125))
                data += frame(ping, PING, mask=draw(masks)) + frame(ping, PONG, mask=draw(masks))
                pongs.append(ping)
            last = number == len(pieces) - 1
            data += frame(piece, CONTINUATION if number else opcode, fin=last, mask=draw(masks))
        received.append(Received(opcode, payload))
    return Sent(data, received, pongs)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut bytes at these places."""
    places = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(conversations(), st.data())
async def test_any_split_of_any_frames_gives_the_same_messages(sent: Sent, data: st.DataObject) -> None:
    """TCP may cut the stream wherever it likes: messages, order and pongs are the same."""
    peer = Peer()
    peer.feed(*split(sent.data, data.draw(st.lists(st.integers(0, len(sent.data)), max_size=8))))
    assert peer.received == sent.received
    assert [(frame.opcode, frame.payload) for frame in peer.sent] == [(PONG, ping) for ping in sent.pongs]


@given(conversations())
async def test_single_bytes_give_the_same_messages(sent: Sent) -> None:
    """The smallest pieces there are do no harm either."""
    peer = Peer()
    peer.feed(*(bytes((byte,)) for byte in sent.data))
    assert peer.received == sent.received


@given(st.binary(min_size=1, max_size=200), st.data())
async def test_random_bytes_do_no_harm(noise: bytes, data: st.DataObject) -> None:
    """Bytes that mean nothing are waited on, understood or refused: nothing is raised, one close frame at most."""
    peer = Peer(limit=100)
    peer.feed(*split(noise, data.draw(st.lists(st.integers(0, len(noise)), max_size=4))))
    assert peer.close_code is None or 1000 <= peer.close_code <= 4999


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
@pytest.mark.parametrize("size", SIZES)
async def test_every_size_of_length_is_read(size: int, opcode: int) -> None:
    """The three ways to write a length, at both of their ends."""
    payload = (b"0123456789" * (size // 10 + 1))[:size]
    peer = Peer(limit=1 << 20)
    peer.feed(frame(payload, opcode) + frame("behind"))
    assert peer.received == [Received(opcode, payload), Received(TEXT, b"behind")]


@pytest.mark.parametrize("size", SIZES)
async def test_every_size_of_length_is_written(size: int) -> None:
    """What the gateway frames is one whole frame, not masked."""
    peer = Peer(limit=1 << 20)
    peer.feed(frame(b"", PING))
    peer.socket.write(server_frame(TEXT, b"x" * size))
    assert [(sent.opcode, len(sent.payload), sent.fin, sent.rsv) for sent in peer.sent] == [
        (PONG, 0, True, 0),
        (TEXT, size, True, 0),
    ]


VIOLATIONS = {
    "reserved bit 1": frame("x", rsv=4),
    "reserved bit 2": frame("x", rsv=2),
    "reserved bit 3": frame("x", rsv=1),
    "reserved bit on a ping": frame("x", PING, rsv=4),
    **{f"reserved opcode {opcode:X}": frame("x", opcode) for opcode in (*range(3, 8), *range(0xB, 0x10))},
    "not masked": frame("x", mask=None),
    "a ping not masked": frame("x", PING, mask=None),
    "a close not masked": frame(b"\x03\xe8", CLOSE, mask=None),
    "a fragmented ping": frame("x", PING, fin=False),
    "a fragmented pong": frame("x", PONG, fin=False),
    "a fragmented close": frame(b"\x03\xe8", CLOSE, fin=False),
    "a ping of 126 bytes": frame("x" * 126, PING),
    "a pong of 65,536 bytes": frame("x" * 65536, PONG),
    "a close of 126 bytes": frame(b"\x03\xe8" + b"x" * 124, CLOSE),
    "a continuation of nothing": frame("x", CONTINUATION),
    "a continuation of nothing, unfinished": frame("x", CONTINUATION, fin=False),
    "a message inside a message": frame("x", fin=False) + frame("y"),
    "a binary message inside a text": frame("x", fin=False) + frame("y", BINARY, fin=False),
    "a continuation behind the last one": frame("x", fin=False) + frame("y", CONTINUATION) + frame("z", CONTINUATION),
    "125 written in two bytes": b"\x81\xfe\x00\x7d" + b"\0" * 4 + b"x" * 125,
    "65,535 written in eight bytes": b"\x82\xff" + (65535).to_bytes(8, "big") + b"\0" * 4 + b"x" * 65535,
    "a close of one byte": frame(b"\x03", CLOSE),
}


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS)
async def test_a_violation_is_1002(data: bytes) -> None:
    """What RFC 6455 forbids ends the connection, and nothing behind it is looked at."""
    peer = Peer(limit=1 << 20)
    peer.feed(frame("before"), data, frame("behind"))
    assert peer.close_code == 1002
    assert Received(TEXT, b"before") in peer.received
    assert Received(TEXT, b"behind") not in peer.received


@pytest.mark.parametrize("limit", [0, 65536])
async def test_a_length_of_64_bits_is_1002(limit: int) -> None:
    """The highest bit must be 0, and nobody waits for the end of such a frame."""
    peer = Peer(limit=limit)
    peer.feed(b"\x82\xff" + b"\xff" * 8)
    assert peer.close_code == 1002


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2999, 5000, 65535])
async def test_a_close_code_that_may_not_be_sent_is_1002(code: int) -> None:
    """Such a code is a violation itself."""
    peer = Peer()
    peer.feed(frame(code.to_bytes(2, "big"), CLOSE))
    assert peer.close_code == 1002


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999])
async def test_a_close_is_answered_with_its_code(code: int) -> None:
    """The closing handshake ends the connection, with the client's code and reason in the log."""
    peer = Peer()
    peer.feed(frame(code.to_bytes(2, "big") + "gute Nacht, schöne Welt".encode(), CLOSE), frame("behind"))
    peer.socket.connection_lost(None)
    assert peer.close_code == code
    assert peer.transport.closed
    assert [(close.code, close.reason) for close in peer.lost] == [(code, "gute Nacht, schöne Welt")]
    assert peer.received == []


async def test_a_close_without_a_code_is_answered_without_one() -> None:
    """1005 is never sent: it stands for the absence of a code."""
    peer = Peer()
    peer.feed(frame(b"", CLOSE))
    peer.socket.connection_lost(None)
    assert [(sent.opcode, sent.payload) for sent in peer.sent] == [(CLOSE, b"")]
    assert [close.code for close in peer.lost] == [1005]


NOT_UTF8 = [b"\xff", b"a\x80", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0\x9f\x98"]


@pytest.mark.parametrize("payload", NOT_UTF8, ids=ascii)
async def test_text_that_is_not_utf8_is_1007(payload: bytes) -> None:
    """Overlong forms, surrogates and characters cut off at the end included."""
    peer = Peer()
    peer.feed(frame(payload))
    assert peer.close_code == 1007
    assert peer.received == []


@pytest.mark.parametrize("payload", NOT_UTF8, ids=ascii)
async def test_fragmented_text_that_is_not_utf8_is_1007(payload: bytes) -> None:
    """The message counts, not its fragments."""
    peer = Peer()
    peer.feed(frame(b"fine", fin=False), frame(payload[:1], CONTINUATION, fin=False))
    peer.feed(frame(payload[1:], CONTINUATION))
    assert peer.close_code == 1007


@pytest.mark.parametrize("payload", NOT_UTF8, ids=ascii)
async def test_a_close_reason_that_is_not_utf8_is_1007(payload: bytes) -> None:
    """A reason is text too."""
    peer = Peer()
    peer.feed(frame(b"\x03\xe8" + payload, CLOSE))
    assert peer.close_code == 1007


async def test_a_character_may_be_split_over_fragments() -> None:
    """Only the whole message must be UTF-8."""
    peer = Peer()
    peer.feed(frame(b"\xf0\x9f", fin=False), frame(b"", CONTINUATION, fin=False), frame(b"\x98\x80", CONTINUATION))
    assert peer.received == [Received(TEXT, "😀".encode())]


@pytest.mark.parametrize("limit", [1, 100, 125, 126, 1000, 65536])
class TestLimit:
    async def test_a_message_at_the_limit_passes(self, limit: int) -> None:
        """The limit itself is allowed, in one frame or in several."""
        peer = Peer(limit=limit)
        peer.feed(frame(b"x" * limit))
        peer.feed(frame(b"x" * (limit - 1), fin=False), frame(b"x", CONTINUATION, fin=False))
        peer.feed(frame(b"", CONTINUATION))
        assert [len(message.payload) for message in peer.received] == [limit, limit]

    async def test_a_frame_above_the_limit_is_1009_at_its_head(self, limit: int) -> None:
        """Nothing of it is waited for."""
        peer = Peer(limit=limit)
        peer.feed(frame(b"", length=limit + 1)[:10])
        assert peer.close_code == 1009

    async def test_fragments_above_the_limit_are_1009(self, limit: int) -> None:
        """Small fragments do not make a large message small."""
        peer = Peer(limit=limit)
        peer.feed(frame(b"x" * limit, fin=False), frame(b"x", CONTINUATION))
        assert peer.close_code == 1009
        assert peer.received == []

    async def test_control_frames_have_a_limit_of_their_own(self, limit: int) -> None:
        """A limit on messages is none on pings, which RFC 6455 allows 125 bytes."""
        peer = Peer(limit=limit)
        peer.feed(frame(b"x" * 125, PING), frame(b"x"))
        assert [sent.opcode for sent in peer.sent] == [PONG]
        assert len(peer.received) == 1


async def test_no_limit_is_0() -> None:
    """0 switches the limit off."""
    peer = Peer(limit=0)
    peer.feed(frame(b"x" * 1_000_000))
    assert [len(message.payload) for message in peer.received] == [1_000_000]
