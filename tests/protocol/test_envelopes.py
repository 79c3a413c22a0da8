"""Between nodes: envelopes, and what a person writes with redis-cli instead. Nothing raises anything unforeseen."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidEnvelope
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope, pack, unpack
from tests.harness.properties import json_values

payloads = st.builds(codec.encode, st.text(max_size=99), json_values, st.text(), st.none() | st.text())
envelopes = st.builds(
    Envelope,
    payloads,
    st.frozensets(st.text(), max_size=5),
    st.none() | st.text(),
    st.none(),
    st.none() | st.text(min_size=1),
)


class TestEnvelope:
    @given(envelopes)
    def test_an_envelope_survives_the_road(self, envelope: Envelope) -> None:
        """What is packed is unpacked, with whom to skip, whom it is for and its trace."""
        found = unpack(pack(envelope))
        assert found == envelope._replace(exclude=found.exclude)
        assert set(found.exclude) == set(envelope.exclude)

    @given(envelopes)
    def test_an_envelope_is_told_from_json_by_its_first_byte(self, envelope: Envelope) -> None:
        """A node's envelope never begins with a brace, whatever is in it."""
        assert pack(envelope)[:1] != b"{"

    @given(st.binary(max_size=200))
    def test_random_bytes_are_an_envelope_or_refused(self, data: bytes) -> None:
        """Nothing but `InvalidEnvelope` is ever raised."""
        assert_unpacked_or_refused(data)

    @given(json_values.map(msgpack.packb))
    def test_any_other_msgpack_is_refused(self, data: bytes) -> None:
        """Well-formed msgpack that is no envelope is no envelope."""
        with pytest.raises(InvalidEnvelope):
            unpack(data)

    @given(envelopes, st.data())
    def test_a_truncated_envelope_is_refused(self, envelope: Envelope, data: st.DataObject) -> None:
        """An envelope that was cut is never taken for a shorter one."""
        packed = pack(envelope)
        cut = data.draw(st.integers(0, len(packed) - 1))
        with pytest.raises(InvalidEnvelope):
            unpack(packed[:cut])

    @given(envelopes, st.binary(min_size=1, max_size=20))
    def test_bytes_behind_an_envelope_are_refused(self, envelope: Envelope, behind: bytes) -> None:
        """One publication is one envelope."""
        with pytest.raises(InvalidEnvelope):
            unpack(pack(envelope) + behind)

    @pytest.mark.parametrize(
        "parts",
        [
            [],
            ["text"],
            [1],
            [b"{}", "not a list"],
            [b"{}", [1]],
            [b"{}", [b"bytes"]],
            [b"{}", None],
            [b"{}", [], 1],
            [b"{}", [], b"id"],
            [b"{}", [], "id", 1],
            [b"{}", [], 1, "trace"],
            [b"{}", [], "id", "trace", "more"],
            {"payload": b"{}"},
        ],
        ids=repr,
    )
    def test_an_envelope_of_wrong_parts_is_refused(self, parts: Any) -> None:
        """Every part has one type."""
        with pytest.raises(InvalidEnvelope):
            unpack(msgpack.packb(parts))

    @pytest.mark.parametrize("depth", [1_000, 100_000])
    def test_nested_msgpack_is_refused(self, depth: int) -> None:
        """A bottomless array ends in an error, not in the end of the stack."""
        with pytest.raises(InvalidEnvelope):
            unpack(b"\x91" * depth + b"\xc0")


class TestInjection:
    def test_a_message_by_hand_is_a_message(self) -> None:
        """It is given the shape that clients read, and the channel it was written to."""
        assert injected({"cmd": "chat", "param": {"text": "hi"}}, "lobby") == (
            {"channel": "lobby", "cmd": "chat", "param": {"text": "hi"}},
            set(),
            None,
        )

    def test_all_keys_by_hand_count(self) -> None:
        """`from`, `exclude`, `channel` and `connection` say what they say."""
        fields = {"cmd": "x", "from": "ada", "exclude": ["n~1", "n~2"], "channel": "side", "connection": "n~3"}
        message = {"channel": "side", "cmd": "x", "param": None, "from": "ada"}
        assert injected(fields) == (message, {"n~1", "n~2"}, "n~3")

    def test_the_channel_written_to_wins(self) -> None:
        """What is published to a channel is a message of that channel."""
        assert injected({"cmd": "x", "channel": "other"}, "lobby")[0]["channel"] == "lobby"

    def test_unknown_keys_by_hand_are_ignored(self) -> None:
        """They reach nobody."""
        assert injected({"cmd": "x", "id": 1, "offset": 2, "else": 3})[0] == {"channel": "", "cmd": "x", "param": None}

    @pytest.mark.parametrize(
        ("key", "values"),
        [
            ("cmd", [None, True, 1, 1.5, [], {}, "", "x" * 129, "$", "$left", "$error"]),
            ("from", [None, False, 0, 1.5, [], {}, "a b", "*", "x" * 201]),
            ("exclude", [None, True, 1, 1.5, "n~1", {}, [1], [None], [[]], ["n~1", 2]]),
            ("channel", [None, False, 0, 1.5, [], {}, "a b", "x" * 201]),
            ("connection", [None, False, 0, 1.5, [], {}]),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_key_of_a_wrong_type_is_refused(self, key: str, values: list[Any]) -> None:
        """The message is dropped as a whole; the refusal names the key."""
        for value in values:
            with pytest.raises(InvalidEnvelope, match=key):
                injected({"cmd": "x"} | {key: value})

    @pytest.mark.parametrize(
        "text",
        [
            b"{",
            b"{}",
            b'{"param": 1}',
            b'{"cmd": "x"',
            b'{"cmd": "x"}}',
            b'{"cmd": NaN}',
            b'{"cmd": "x", "param": 18446744073709551616}',
            b'{"cmd": "x", "param": "\xff"}',
            b'{"cmd": "x", "param": ' + b"[" * 100_000,
            b'{"a":' * 100_000,
        ],
        ids=lambda text: ascii(text[:40]),
    )
    def test_broken_json_by_hand_is_refused(self, text: bytes) -> None:
        """A brace in front does not make it JSON."""
        with pytest.raises(InvalidEnvelope):
            unpack(text, "lobby")

    @given(st.dictionaries(st.sampled_from(["cmd", "param", "from", "exclude", "channel", "connection"]), json_values))
    def test_any_object_by_hand_is_a_message_or_refused(self, fields: dict[str, Any]) -> None:
        """Whatever the values are, nothing but `InvalidEnvelope` is raised."""
        assert_unpacked_or_refused(json.dumps(fields).encode())

    @given(st.binary(max_size=100))
    def test_any_bytes_behind_a_brace_are_a_message_or_refused(self, data: bytes) -> None:
        """The same for what only looks like JSON."""
        assert_unpacked_or_refused(b"{" + data)


def injected(fields: dict[str, Any], channel: str = "") -> tuple[Any, set[str], str | None]:
    """Unpack what a person wrote; return the message as clients read it, whom to skip, whom it is for."""
    envelope = unpack(json.dumps(fields).encode(), channel)
    return json.loads(envelope.payload), set(envelope.exclude), envelope.connection


def assert_unpacked_or_refused(data: bytes) -> None:
    with suppress(InvalidEnvelope):
        envelope = unpack(data, "lobby")
        assert isinstance(envelope.payload, bytes)
        assert all(isinstance(id, str) for id in envelope.exclude)
        assert isinstance(envelope.connection, str | None)
