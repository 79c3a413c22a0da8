"""How one WebSocket writes, waits and ends; what it reads is in test_frames.py."""

from __future__ import annotations

import asyncio
import time
import tracemalloc

import pytest

from gateway.connections.websocket import HIGH_WATER
from gateway.errors import Close
from gateway.protocol.frames import frame as server_frame
from tests.harness.fakes import Peer
from tests.harness.wait import eventually
from tests.harness.wire import BINARY, CLOSE, PING, PONG, TEXT, frame


def text(number: int, size: int = 0) -> bytes:
    """Frame a message that can be told from others, of at least `size` bytes."""
    return server_frame(TEXT, str(number).encode().rjust(size, b"-"))


def numbers(peer: Peer) -> list[int]:
    """Say which messages were written to the client."""
    return [int(sent.payload.lstrip(b"-")) for sent in peer.sent if sent.opcode == TEXT]


class TestClosing:
    async def test_a_close_is_the_last_that_is_written(self) -> None:
        """Code and reason are sent once; whatever is written later is dropped."""
        peer = Peer()
        peer.socket.write(text(1))
        peer.socket.close(Close(4410, "ended"))
        peer.socket.write(text(2))
        peer.socket.close(Close(1001))
        assert (peer.close_code, peer.sent[-1].close_reason, numbers(peer)) == (4410, "ended", [1])

    @pytest.mark.parametrize("reason", ["x" * 500, "😀" * 100, "é" * 62])
    async def test_a_long_reason_is_cut_between_characters(self, reason: str) -> None:
        """A control frame has 125 bytes, and the reason in it is text."""
        peer = Peer()
        peer.socket.close(Close(4000, reason))
        payload = peer.sent[-1].payload
        assert 120 <= len(payload) <= 125
        assert reason.startswith(payload[2:].decode())

    async def test_a_message_behind_the_gateway_s_close_is_not_handled(self) -> None:
        """The client's answer ends the connection, with the gateway's code; what came before it is too late."""
        peer = Peer()
        peer.socket.close(Close(4410))
        peer.feed(frame("late"), frame(b"", PING))
        assert not peer.transport.closed
        peer.feed(frame((4410).to_bytes(2, "big"), CLOSE))
        peer.socket.connection_lost(None)
        assert peer.transport.closed
        assert (peer.received, [close.code for close in peer.lost], peer.close_code) == ([], [4410], 4410)

    async def test_a_connection_that_breaks_is_1006(self) -> None:
        """The owner hears, once, that there was no closing handshake."""
        peer = Peer()
        peer.feed(frame("half")[:3])
        peer.socket.connection_lost(ConnectionResetError())
        assert [close.code for close in peer.lost] == [1006]
        peer.socket.write(text(1))
        assert numbers(peer) == []

    async def test_who_breaks_the_protocol_is_told_that_nothing_more_comes(self) -> None:
        """By the end of the stream behind the close frame, so that it need not wait; it may still send."""
        peer = Peer()
        peer.feed(frame("x", mask=None), frame("late"))
        assert (peer.close_code, peer.transport.finished, peer.transport.closed) == (1002, True, False)
        assert peer.received == []

    async def test_the_stream_does_not_end_before_what_waits_is_written(self) -> None:
        """A client that does not read gets its close frame behind everything else."""
        peer = Peer()
        peer.transport.room = 1
        for number in range(5):
            peer.socket.write(text(number))
        peer.feed(frame("x", mask=None))
        assert not peer.transport.finished
        peer.transport.drain()
        assert (peer.close_code, numbers(peer)) == (1002, list(range(5)))


class TestDeadline:
    """Of an end: set by its first reason, brought forward by others, and never put off."""

    async def test_who_does_not_answer_is_cut_off(self) -> None:
        """And the owner hears of it even where the transport would not tell."""
        peer = Peer(patience=0.02)
        peer.socket.close(Close(4410))
        assert not peer.transport.closed
        await eventually(lambda: peer.transport.aborted)
        assert [close.code for close in peer.lost] == [4410]
        peer.socket.connection_lost(None)
        assert len(peer.lost) == 1

    @pytest.mark.parametrize("then", ["breaks", "closes", "is missed", "ends", "is closed again"])
    async def test_a_later_reason_does_not_put_it_off(self, then: str) -> None:
        """Nor does it close the transport a second time, which takes abort() from one of asyncio's."""
        peer = Peer(patience=0.1)
        peer.transport.room = 1
        peer.socket.write(text(1))
        began = time.monotonic()
        peer.socket.close(Close(4410))
        while not peer.transport.aborted:
            match then:
                case "breaks":
                    peer.feed(frame("x", mask=None))
                case "closes":
                    peer.feed(frame(b"", CLOSE))
                case "is missed":
                    assert peer.socket.ping()
                    peer.socket.end(Close(4408))
                case "ends":
                    peer.socket.eof_received()
                case "is closed again":
                    peer.socket.close(Close(4408))
            assert time.monotonic() < began + 10
            await asyncio.sleep(0.01)
        assert ([close.code for close in peer.lost], peer.transport.closes) == ([4410], 0)

    async def test_a_later_reason_may_bring_it_forward(self) -> None:
        """A node that ends does not wait for those who were closed a moment ago."""
        peer = Peer(patience=60)
        peer.transport.room = 1
        peer.socket.write(text(1))
        peer.socket.close(Close(1012))
        peer.socket.end(Close(1001), within=0.01)
        await eventually(lambda: [close.code for close in peer.lost] == [1012])

    async def test_what_waits_is_written_before_the_transport_is_closed(self) -> None:
        """Once: the client that closed reads on, and gets the answer to its close behind everything else."""
        peer = Peer()
        peer.transport.room = 1
        for number in range(5):
            peer.socket.write(text(number))
        peer.feed(frame(b"", CLOSE))
        peer.socket.end(Close(1001))
        assert not peer.transport.closed
        peer.transport.drain()
        await eventually(lambda: peer.transport.closes == 1)
        assert (numbers(peer), peer.sent[-1].opcode) == (list(range(5)), CLOSE)

    async def test_a_client_that_was_not_read_is_heard_when_it_answers(self) -> None:
        """Its close frame comes behind messages that wait for its handler, and that nobody will handle any more."""
        peer = Peer()
        peer.pause_after = 1
        peer.feed(frame("0") + frame("1") + frame(b"", CLOSE))
        assert not peer.transport.reading
        peer.socket.close(Close(4410))
        await eventually(lambda: peer.transport.closed)
        assert [message.payload for message in peer.received] == [b"0"]

    @pytest.mark.parametrize("limit", [0, 65536])
    async def test_no_more_is_kept_of_what_comes_behind_an_end(self, limit: int) -> None:
        """However large a message a client begins, and where a message may be as large as it likes."""
        peer = Peer(limit=limit)
        peer.feed(frame("x" * 60_000, fin=False))
        peer.socket.close(Close(4410))
        tracemalloc.start()
        try:
            peer.feed(frame(b"", BINARY, length=1 << 40))
            for _ in range(100):
                peer.feed(bytes(100_000))
            assert tracemalloc.get_traced_memory()[0] < 1_000_000
        finally:
            tracemalloc.stop()
        peer.socket.connection_lost(None)
        assert peer.received == []


class TestPings:
    @pytest.mark.parametrize("payload", [b"", b"hello", b"\xff" * 125])
    async def test_a_ping_is_answered_with_its_payload(self, payload: bytes) -> None:
        """Whatever the bytes are."""
        peer = Peer()
        peer.feed(frame(payload, PING))
        assert [(sent.opcode, sent.payload) for sent in peer.sent] == [(PONG, payload)]

    async def test_a_client_is_missed_when_it_was_silent_since_the_last_ping(self) -> None:
        """A pong counts as a sign of life, and so does anything else."""
        peer = Peer()
        assert peer.socket.ping()
        assert not peer.socket.ping()
        for sign in (frame(b"", PONG), frame("hello"), frame("half")[:2]):
            peer.feed(sign)
            assert peer.socket.ping()
        assert [sent.opcode for sent in peer.sent] == [PING] * 5


class TestReading:
    async def test_who_is_not_read_is_not_silent(self) -> None:
        """Its pongs wait behind what its handler has not come to yet."""
        peer = Peer()
        assert peer.socket.ping()
        peer.socket.pause_reading()
        assert peer.socket.ping()
        assert peer.socket.ping()
        peer.socket.resume_reading()
        assert peer.socket.ping()
        assert not peer.socket.ping()

    async def test_a_paused_socket_hands_on_nothing(self) -> None:
        """What had come already waits, in order, and the client is no longer read from."""
        peer = Peer()
        peer.pause_after = 2
        peer.feed(*[b"".join(frame(str(number)) for number in range(5))])
        assert ([message.payload for message in peer.received], peer.transport.reading) == ([b"0", b"1"], False)
        peer.feed(frame("5")[:3])
        assert len(peer.received) == 2
        peer.socket.resume_reading()
        peer.feed(frame("5")[3:])
        assert peer.transport.reading
        assert [message.payload for message in peer.received] == [b"%d" % number for number in range(6)]

    async def test_a_socket_may_be_paused_again_while_it_resumes(self) -> None:
        """Each resumption takes as many as its owner lets in."""
        peer = Peer()
        peer.pause_after = 1
        peer.feed(b"".join(frame(str(number)) for number in range(10)))
        for expected in range(1, 10):
            assert (len(peer.received), peer.transport.reading) == (expected, False)
            peer.pause_after = 1
            peer.socket.resume_reading()
        assert [message.payload for message in peer.received] == [b"%d" % number for number in range(10)]

    async def test_a_violation_found_when_resuming_ends_the_connection(self) -> None:
        """What waited is judged like everything else."""
        peer = Peer()
        peer.pause_after = 1
        peer.feed(frame("0") + frame("1", mask=None))
        peer.socket.resume_reading()
        assert peer.close_code == 1002


class TestOutbox:
    async def test_what_a_full_transport_does_not_take_waits_in_order(self) -> None:
        """Everything is written, and in order, however often the client stops reading."""
        peer = Peer()
        peer.transport.room = 100
        for number in range(100):
            peer.socket.write(text(number, 20))
        assert len(numbers(peer)) == 5
        while len(before := numbers(peer)) < 100:
            peer.transport.drain(room=200)
            peer.socket.write(text(100 + len(before), 20))
        peer.transport.drain()
        assert [number for number in numbers(peer) if number < 100] == list(range(100))
        assert [number for number in numbers(peer) if number >= 100] == sorted(
            number for number in numbers(peer) if number >= 100
        )

    async def test_a_full_outbox_is_4008(self) -> None:
        """A client that does not read is closed, and gets nothing more than what was on its way."""
        peer = Peer(outbox=1000)
        peer.transport.room = 1
        for number in range(100):
            peer.socket.write(text(number, 100))
        assert numbers(peer) == [0]
        peer.transport.drain()
        assert (peer.close_code, numbers(peer)) == (4008, [0])

    async def test_an_outbox_at_its_limit_is_not_full(self) -> None:
        """Exactly as many bytes as allowed may wait."""
        peer = Peer(outbox=10 * len(text(1, 100)))
        peer.transport.room = 1
        for number in range(11):
            peer.socket.write(text(number, 100))
        peer.transport.drain()
        assert (peer.close_code, numbers(peer)) == (None, list(range(11)))

    async def test_an_outbox_without_a_limit_takes_everything(self) -> None:
        """0 switches the limit off."""
        peer = Peer(outbox=0)
        peer.transport.room = 1
        for number in range(100):
            peer.socket.write(text(number, 10_000))
        peer.transport.drain()
        assert numbers(peer) == list(range(100))

    async def test_a_close_waits_behind_what_was_written_before(self) -> None:
        """The client reads everything up to the close frame, and nothing behind it."""
        peer = Peer()
        peer.transport.room = 1
        for number in range(10):
            peer.socket.write(text(number))
        peer.socket.close(Close(1012, "restart"))
        peer.socket.write(text(10))
        peer.transport.drain(room=1)
        assert (peer.close_code, numbers(peer)) == (1012, list(range(10)))

    async def test_a_pong_waits_in_the_outbox_too(self) -> None:
        """A client that pings and never reads cannot make the node keep more than the outbox allows."""
        peer = Peer(outbox=1000)
        peer.transport.room = 1
        for _ in range(100):
            peer.feed(frame(b"x" * 125, PING))
        peer.transport.drain()
        assert peer.close_code == 4008


class TestHolding:
    """Until the client is welcomed its messages wait, and nothing else does."""

    async def test_messages_wait_for_the_first_one(self) -> None:
        peer = Peer()
        peer.socket.hold()
        peer.socket.write(text(2))
        assert peer.sent == []
        peer.socket.release(text(1))
        peer.socket.write(text(3))
        assert numbers(peer) == [1, 2, 3]

    async def test_pings_and_pongs_do_not_wait(self) -> None:
        """A client that a node lets wait, while Redis is away, is there all the same, and so is the node."""
        peer = Peer()
        peer.socket.hold()
        peer.socket.write(text(1))
        peer.feed(frame(b"there?", PING))
        peer.socket.ping()
        assert [(sent.opcode, sent.payload) for sent in peer.sent] == [(PONG, b"there?"), (PING, b"")]

    async def test_pongs_for_a_client_that_reads_nothing_are_left_out(self) -> None:
        """They are bounded, and do not let out what waits."""
        peer = Peer()
        peer.socket.hold()
        peer.socket.write(text(1))
        peer.transport.room = HIGH_WATER
        for _ in range(2000):
            peer.feed(frame(b"x" * 125, PING))
        assert len(peer.transport.written) < HIGH_WATER + 200
        peer.transport.drain()
        assert numbers(peer) == []
        peer.socket.release()
        assert numbers(peer) == [1]

    async def test_a_close_does_not_wait(self) -> None:
        """The client learns why, and does not come back when it must not."""
        peer = Peer()
        peer.socket.hold()
        peer.socket.write(text(1))
        peer.socket.close(Close(4410, "ended"))
        peer.socket.release(text(0))
        assert (peer.close_code, numbers(peer)) == (4410, [])
