"""What a command, a name and a pattern are is decided in one place, and said in the same words everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from gateway import Router
from gateway.access.tokens import profile_of
from gateway.application.writing import Writing
from gateway.config import Settings
from gateway.config.rules import Rule
from gateway.errors import InvalidParam
from gateway.protocol import codec, envelope
from gateway.protocol.envelope import Envelope, Target
from gateway.protocol.message import CMD_LENGTH, CMD_RULE, NAME_RULE, PATTERN_RULE, is_cmd, is_pattern
from gateway.server.api.wire import ConnectionsQuery, MessageBody

Place = Callable[[str], object]

LONG = "x" * (CMD_LENGTH + 1)


def _claiming(pattern: str) -> object:
    return profile_of({"sub": "ada", "channels": [pattern]}, time.time())


COMMANDS: dict[str, Place] = {
    "a client": lambda cmd: codec.decode(b'{"cmd":"%b"}' % cmd.encode()),
    "a person, by Redis": lambda cmd: envelope.unpack(b'{"cmd":"%b"}' % cmd.encode()),
    "a router": lambda cmd: Router().command(cmd),
    "an event": lambda cmd: Router().event(cmd),
    "the API": lambda cmd: MessageBody.model_validate({"cmd": cmd}),
}
PATTERNS: dict[str, Place] = {"a rule": lambda pattern: Rule(match=pattern), "a token": _claiming}
NAMES: dict[str, Place] = {
    "the node": lambda name: Settings(node_id=name),
    "the prefix": lambda name: Settings(prefix=name),
    "the API": lambda name: ConnectionsQuery.model_validate({"channel": name}),
}


def _each(places: dict[str, Place]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", places.values(), ids=places)


def _refusal(place: Place, value: str) -> str:
    with pytest.raises(Exception, match="expected") as raised:
        place(value)
    return str(raised.value)


@_each(COMMANDS)
def test_a_command_has_1_to_128_characters(place: Place) -> None:
    place("x")
    place("é" * CMD_LENGTH)
    for wrong in ("", LONG):
        assert CMD_RULE in _refusal(place, wrong)


class Unsent(Writing):
    """Sends nothing."""

    async def _publish(self, target: Target, envelope: Envelope) -> None:
        raise AssertionError

    async def _write_direct(self, payload: bytes, conn_id: str) -> None:
        raise AssertionError


@pytest.mark.parametrize("cmd", ["", LONG])
async def test_who_writes_is_told_the_same(cmd: str) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidParam, match=CMD_RULE):
        await Unsent().write_all(cmd, None)


@pytest.mark.parametrize("value", [None, 1, b"x", ["x"], {}], ids=repr)
def test_what_is_no_string_is_neither(value: object) -> None:
    assert not is_cmd(value)
    assert not is_pattern(value)


@_each(PATTERNS)
def test_a_pattern_is_a_name_with_stars(place: Place) -> None:
    for right in ("*", "room-*", "a*b*c", "lobby", "é" * 100):
        place(right)
    for wrong in ("", "a b", "room-?", "[a]", "x" * 201):
        assert PATTERN_RULE in _refusal(place, wrong)


@_each(NAMES)
def test_a_name_is_told_in_the_same_words(place: Place) -> None:
    place("lobby")
    for wrong in ("", "a b", "room-*", "x" * 201):
        if wrong or place is not NAMES["the node"]:  # without one it makes its own up
            assert NAME_RULE in _refusal(place, wrong)
