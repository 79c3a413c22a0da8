"""Which names are legal, and what a message is."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given

from gateway.errors import GatewayError, InvalidChannel, InvalidUser
from gateway.protocol.message import Message, check_channel, check_user, is_name
from tests.harness.properties import texts

# The property White_Space of Unicode's PropList.txt, written down here so that Python's own idea of it is checked.
WHITE_SPACE = {
    *range(0x09, 0x0E),
    *(0x20, 0x85, 0xA0, 0x1680),
    *range(0x2000, 0x200B),
    *(0x2028, 0x2029, 0x202F, 0x205F, 0x3000),
}
FORBIDDEN = frozenset("{}*?[]\\")

CHECKS = [pytest.param(check_channel, InvalidChannel, id="channel"), pytest.param(check_user, InvalidUser, id="user")]
both_kinds = pytest.mark.parametrize(("check", "refusal"), CHECKS)

Check = Callable[[object], str]


def is_legal(character: str) -> bool:
    """Say, by the contract's own words, whether a name may contain this."""
    return (
        ord(character) not in WHITE_SPACE
        and character not in FORBIDDEN
        and unicodedata.category(character) not in ("Cc", "Cs")
    )


def test_every_character_is_judged_as_the_contract_says() -> None:
    """Control characters, Unicode's white space, lone surrogates and `{}*?[]` with the backslash: nothing else."""
    wrong = [
        f"U+{code:04X}" for code in range(sys.maxunicode + 1) if is_name(f"a{chr(code)}b") is not is_legal(chr(code))
    ]
    assert wrong == []


@pytest.mark.parametrize("place", ["{}b", "a{}", "{}"], ids=["first", "last", "alone"])
@pytest.mark.parametrize("character", ["\x00", "\n", "\x1f", "\x7f", "\x85", "\x9f", " ", "\u2028", "\u3000", "*", "]"])
def test_an_illegal_character_is_found_anywhere(character: str, place: str) -> None:
    """It is refused at the front and at the end as in the middle."""
    assert not is_name(place.format(character))


@both_kinds
@pytest.mark.parametrize(
    "name",
    ["a", "lobby", "a:b/c%d~e", "größe", "日本", "😀", "-", ".", "None", "0", "<script>", "'\"", "a\u200bb"],
)
def test_a_legal_name_is_returned_as_it_is(check: Check, refusal: type[GatewayError], name: str) -> None:
    """Nothing is trimmed, folded or normalised."""
    assert check(name) == name


@both_kinds
@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("a" * 200, True),
        ("a" * 201, False),
        ("é" * 100, True),
        ("é" * 100 + "a", False),
        ("€" * 66 + "aa", True),
        ("€" * 67, False),
        ("😀" * 50, True),
        ("😀" * 51, False),
    ],
    ids=lambda value: f"{len(value)} characters" if isinstance(value, str) else "",
)
def test_the_length_is_counted_in_bytes(check: Check, refusal: type[GatewayError], name: str, legal: bool) -> None:
    """1 to 200 bytes of UTF-8, however many characters these are."""
    if legal:
        assert check(name) == name
    else:
        with pytest.raises(refusal, match=r"201|203|204|205"):
            check(name)


@both_kinds
@pytest.mark.parametrize("name", [None, True, 1, 1.5, b"lobby", [], ["lobby"], {}], ids=repr)
def test_what_is_no_string_is_no_name(check: Check, refusal: type[GatewayError], name: object) -> None:
    """A name of another type is refused, never converted."""
    with pytest.raises(refusal):
        check(name)


@both_kinds
@pytest.mark.parametrize("name", ["", "\ud800", "ok\ud83d", "a b", "a\nb" * 1000, "x" * 10_000])
def test_a_refusal_shows_the_name_in_one_short_line(check: Check, refusal: type[GatewayError], name: str) -> None:
    """What was wrong can be read in a log or an `$error`, however the name was made."""
    with pytest.raises(refusal) as raised:
        check(name)
    message = raised.value.message
    assert message.isprintable()
    assert message.isascii()
    assert len(message) < 200


@given(texts)
def test_a_name_is_legal_or_refused(name: str) -> None:
    """Any text at all is either returned as it is or `InvalidChannel`, and `is_name` agrees."""
    try:
        assert check_channel(name) == name
    except InvalidChannel:
        assert not is_name(name)
    else:
        assert is_name(name)


def test_a_message_is_a_value() -> None:
    """Two messages with the same parts are equal, and neither can be changed."""
    message = Message("lobby", "chat", {"text": "hi"})
    assert message == Message("lobby", "chat", {"text": "hi"}, sender=None, id=None, offset=None)
    with pytest.raises(AttributeError):
        message.channel = "other"  # type: ignore[misc]
