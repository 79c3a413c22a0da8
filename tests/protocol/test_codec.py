"""Between a client and its node: bytes to messages and back. Nothing that a client writes raises anything unforeseen.

What travels between nodes is in test_envelopes.py.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadMessage, InvalidEnvelope, InvalidParam
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope, is_envelope, pack, stored, to_client, unpack
from gateway.protocol.frames import BINARY, TEXT, frame
from gateway.protocol.message import Message, Position
from tests.harness.properties import json_values

envelopes = st.builds(
    Envelope,
    st.builds(codec.encode, st.text(max_size=99), json_values),
    st.frozensets(st.text(), max_size=5),
    st.none() | st.text(),
    st.none(),
)


class TestDecode:
    def test_all_parts_of_a_message_are_read(self) -> None:
        """Channel, command, parameter and id arrive as they were sent."""
        text = '{"channel": "lobby", "cmd": "chat", "param": {"text": "hi"}, "id": 7}'
        assert codec.decode(text.encode()) == Message("lobby", "chat", {"text": "hi"}, id=7)

    def test_what_is_left_out_has_its_default(self) -> None:
        """Without a channel and a parameter they are "" and None, and there is no id."""
        assert codec.decode(b'{"cmd": "ping"}') == Message("", "ping", None, sender=None, id=None)

    def test_a_spoofed_sender_and_unknown_keys_are_ignored(self) -> None:
        """`from` and `offset` are the server's to say; what nobody knows does no harm."""
        text = b'{"cmd": "ping", "from": "root", "offset": 9, "exclude": 1, "__proto__": {}, "sender": "root"}'
        assert codec.decode(text) == Message("", "ping")

    @given(json_values)
    def test_a_parameter_is_any_json_value(self, param: Any) -> None:
        """Whatever JSON can say arrives unchanged."""
        text = json.dumps({"cmd": "x", "param": param}).encode()
        assert codec.decode(text).param == json.loads(text)["param"]

    @pytest.mark.parametrize("id", ["a", "", 0, -1, 2**53])
    def test_an_id_is_a_string_or_an_integer(self, id: str | int) -> None:
        """Both come back as they were sent, the falsy ones too."""
        found = codec.decode(json.dumps({"cmd": "x", "id": id}).encode()).id
        assert (found, type(found)) == (id, type(id))

    @pytest.mark.parametrize("length", [1, 127, 128])
    def test_a_command_has_up_to_128_characters(self, length: int) -> None:
        """Characters count, not bytes."""
        assert codec.decode(json.dumps({"cmd": "😀" * length}).encode()).cmd == "😀" * length

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b" ",
            b"chat",
            b"{",
            b"{}",
            b'{"cmd": "x"',
            b'{"cmd": "x"} {"cmd": "y"}',
            b"{'cmd': 'x'}",
            b'{"cmd": "x",}',
            b'{"cmd": "x", "param": NaN}',
            b'{"cmd": "x", "param": Infinity}',
            b'{"cmd": "x", "param": -Infinity}',
            b'{"cmd": "x", "param": 18446744073709551616}',
            b'{"cmd": "x", "param": "\xff"}',
            b'\xef\xbb\xbf{"cmd": "x"}',
            b'{"cmd": "x", "param": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"\x00",
            b'{"cmd": "x", "param": 01}',
            b'{"cmd": "a\nb"}',
        ],
        ids=lambda data: ascii(data[:40]),
    )
    def test_what_is_not_json_is_refused(self, data: bytes) -> None:
        """NaN, lone surrogates and bottomless nesting are no JSON, like any other garbage."""
        with pytest.raises(BadMessage):
            codec.decode(data)

    @pytest.mark.parametrize("value", [None, True, 1, 1.5, "chat", [], ["cmd", "x"]], ids=repr)
    def test_what_is_no_object_is_refused(self, value: Any) -> None:
        """A message is an object."""
        with pytest.raises(BadMessage, match="object"):
            codec.decode(json.dumps(value).encode())

    @pytest.mark.parametrize("cmd", [None, True, 1, 1.5, [], {}, "", "x" * 129, ["x"]], ids=lambda cmd: repr(cmd)[:9])
    def test_a_wrong_command_is_refused_with_the_id(self, cmd: Any) -> None:
        """A command of another type, an empty one and one too long are refused; the request can be told."""
        with pytest.raises(BadMessage, match="cmd") as raised:
            codec.decode(json.dumps({"cmd": cmd, "id": "r1"}).encode())
        assert raised.value.fields == {"id": "r1"}

    @pytest.mark.parametrize("channel", [None, False, 0, 1.5, [], {}, ["lobby"]], ids=repr)
    def test_a_channel_of_a_wrong_type_is_refused_with_the_id(self, channel: Any) -> None:
        """A channel is a string."""
        with pytest.raises(BadMessage, match="channel") as raised:
            codec.decode(json.dumps({"cmd": "x", "channel": channel, "id": 3}).encode())
        assert raised.value.fields == {"id": 3}

    @pytest.mark.parametrize("id", [True, False, 1.5, [], {}, [1], 10**30], ids=repr)
    def test_an_id_of_a_wrong_type_is_refused(self, id: Any) -> None:
        """An id that could not be told from another is none."""
        with pytest.raises(BadMessage, match="id"):
            codec.decode(json.dumps({"cmd": "x", "id": id}).encode())

    @given(st.binary(max_size=100))
    def test_any_bytes_are_a_message_or_refused(self, data: bytes) -> None:
        """Nothing else is ever raised."""
        with suppress(BadMessage):
            assert codec.decode(data).cmd


class TestEncode:
    def test_a_message_has_exactly_the_contract_s_keys(self) -> None:
        """`channel`, `cmd` and `param` always; `from` only where there is a sender."""
        assert json.loads(codec.encode("chat", {"n": 1}, "lobby")) == {
            "channel": "lobby",
            "cmd": "chat",
            "param": {"n": 1},
        }
        assert json.loads(codec.encode("x", sender="ada")) == {"channel": "", "cmd": "x", "param": None, "from": "ada"}

    @given(json_values)
    def test_a_parameter_is_any_json_value(self, param: Any) -> None:
        """Python's JSON reads what was written."""
        assert json.loads(codec.encode("x", param))["param"] == param

    @pytest.mark.parametrize(
        "param",
        [{1, 2}, object(), "\ud800", 2**64, -(2**63) - 1, {1: "a"}, b"bytes", 1j],
        ids=lambda param: type(param).__name__,
    )
    def test_what_json_cannot_say_is_refused(self, param: Any) -> None:
        """The caller learns of it; no client gets half a message."""
        with pytest.raises(InvalidParam):
            codec.encode("x", param)

    def test_a_parameter_inside_itself_is_refused(self) -> None:
        """A cycle ends in an error, not in the end of the stack."""
        cycle: list[Any] = []
        cycle.append(cycle)
        with pytest.raises(InvalidParam):
            codec.encode("x", cycle)

    def test_an_error_says_to_which_request_it_belongs(self) -> None:
        """`$error` has the code, the text, further fields, and the `id` only if there was one."""
        assert json.loads(codec.encode_error("rate-limited", "slow down", 5, "lobby", retry_after=1.5)) == {
            "channel": "lobby",
            "cmd": "$error",
            "id": 5,
            "param": {"code": "rate-limited", "message": "slow down", "retry_after": 1.5},
        }
        assert "id" not in json.loads(codec.encode_error("bad-message", "no"))

    @given(json_values, st.text(min_size=1), st.text(), st.none() | st.text())
    def test_a_tap_reads_what_was_encoded(self, param: Any, cmd: str, channel: str, sender: str | None) -> None:
        """Looking inside a payload gives the message that was written."""
        assert codec.read(codec.encode(cmd, param, channel, sender)) == Message(channel, cmd, param, sender)


class TestForClients:
    @given(st.binary(max_size=50))
    def test_a_stranger_s_payload_is_framed_or_left_out(self, payload: bytes) -> None:
        """What an envelope carries is a node's own JSON, or anything at all."""
        for protocol in (codec.PLAIN, codec.JSON, codec.MSGPACK):
            framed = to_client(Envelope(payload), codec.dialect_of(protocol))
            assert framed == b"" or framed[0] in (0x81, 0x82)
        with suppress(InvalidEnvelope):
            codec.read(payload)

    @given(json_values)
    def test_a_binary_client_is_told_the_same(self, param: Any) -> None:
        """JSON and msgpack say one thing."""
        payload = codec.encode("x", param, "lobby")
        text, binary = map(codec.dialect_of, (codec.JSON, codec.MSGPACK))
        assert codec.frame_for(text, payload) == frame(TEXT, payload)
        assert codec.frame_for(binary, payload) == frame(BINARY, msgpack.packb(json.loads(payload)))


class TestHistory:
    @given(envelopes, st.text(min_size=1, max_size=64), st.integers(1, 10**13 - 1), st.integers(0, 10**13 - 1))
    def test_a_kept_envelope_survives_the_road(self, envelope: Envelope, epoch: str, offset: int, time: int) -> None:
        """Wrapped in its position."""
        kept = envelope._replace(position=Position(epoch, offset, time))
        found = unpack(pack(kept))
        assert (found.payload, found.position, found.connection) == (kept.payload, kept.position, kept.connection)
        assert set(found.exclude) == set(kept.exclude)
        assert is_envelope(pack(kept))

    @pytest.mark.parametrize("protocol", [codec.JSON, codec.MSGPACK])
    def test_the_offset_is_for_v1_clients(self, protocol: str) -> None:
        """It is one more field, and plain clients have none."""
        plain, v1 = codec.dialect_of(codec.PLAIN), codec.dialect_of(protocol)
        kept = Envelope(codec.encode("x", {"a": "}"}, "lobby"), position=Position("e", 17))
        assert to_client(kept, plain) == to_client(Envelope(kept.payload), plain)
        with_offset = codec.encode("x", {"a": "}"}, "lobby")[:-1] + b',"offset":17}'
        assert to_client(kept, v1) == codec.frame_for(v1, with_offset)
        assert codec.read(with_offset).offset == 17

    def test_what_is_stored_is_an_envelope_again(self) -> None:
        """With its position."""
        at, payload = Position("e", 1, 2), codec.encode("x", 1, "lobby")
        assert stored(payload, b'["n~1"]', at) == Envelope(payload, frozenset({"n~1"}), position=at)

    @pytest.mark.parametrize(
        ("payload", "exclude"),
        [
            *[(payload, b"[]") for payload in (b"", b"nonsense", b"[]", b"1", b"{}", b'{"cmd":1}', b'{"cmd":"x"')],
            *[(b'{"cmd":"x"}', exclude) for exclude in (b"", b"{}", b"[1]", b"null", b'"n~1"')],
        ],
    )
    def test_what_nobody_can_have_stored_is_refused(self, payload: bytes, exclude: bytes) -> None:
        """A person put it there."""
        with pytest.raises(InvalidEnvelope):
            stored(payload, exclude, Position("e", 1))


class TestDecodeMsgpack:
    @given(st.text(min_size=1, max_size=20), json_values, st.none() | st.text() | st.integers(0, 2**32))
    def test_all_parts_of_a_message_are_read(self, cmd: str, param: Any, id: Any) -> None:
        """As from JSON."""
        fields = {"channel": "lobby", "cmd": cmd, "param": param, "id": id}
        assert codec.decode_msgpack(msgpack.packb(fields)) == Message("lobby", cmd, param, id=id)

    @given(st.binary(max_size=60))
    def test_random_bytes_are_a_message_or_refused(self, data: bytes) -> None:
        """Nothing but `BadMessage` is raised."""
        with suppress(BadMessage):
            codec.decode_msgpack(data)

    @pytest.mark.parametrize("param", [b"bytes", msgpack.Timestamp(1), msgpack.ExtType(5, b"x"), {b"key": 1}])
    def test_what_json_cannot_say_is_refused_when_it_is_written(self, param: object) -> None:
        """No client gets it."""
        message = codec.decode_msgpack(msgpack.packb({"cmd": "x", "param": param}))
        with pytest.raises(InvalidParam):
            codec.encode("x", message.param)
