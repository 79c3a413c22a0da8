"""Values that JSON, orjson and Python do not share (half characters, large integers, NaN), and what becomes of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import islice
from math import isfinite

import msgpack
import orjson
from pydantic import BaseModel

_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
"""Pairs of surrogates, halves of one, every other escape: read from the left, none begins within another."""
_DIGITS = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else ord(" ") for byte in range(256))
_LONG = b"0" * 19
"""Digits in a row that an integer too large has at least. Found so in a tenth of the time that a pattern takes."""
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|-?[0-9]++(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?', re.DOTALL)
"""Strings and numbers of a text that is known to be JSON."""
_MARKS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[{\[]++|[}\]]++', re.DOTALL)
"""Strings and brackets of a text that may be anything: a string without an end is looked through once, too."""
_ID = re.compile(rb'\s*+:\s*+("(?:[^"\\]++|\\.)*+"|-?[0-9]{1,20})\s*+[,}]', re.DOTALL)
"""What stands behind the key of a request's id."""
MOST_SEARCHED = 1 << 16
"""Bytes in which an id is looked for; by default no message is longer."""
MOST_MARKS = 2000
"""Strings and brackets that are looked at for it, in up to a millisecond: who sends rubbish must not be worth more."""
_SMALLEST, _LARGEST = -(1 << 63), (1 << 64) - 1
"""Integers that can be written again: beyond, orjson reads a float."""
_INSTEAD = {
    "Decimal": "str() keeps all its digits, float() rounds",
    "set": "write list() of it",
    "frozenset": "write list() of it",
    "bytes": "write base64.b64encode() of it, decoded",
    "bytearray": "write base64.b64encode() of it, decoded",
    "memoryview": "write base64.b64encode() of it, decoded",
    "timedelta": "write its total_seconds()",
    "time": "write its isoformat()",
    "int": "beyond 64 bits, write str() of it",
    "str": 'half a character, write text.encode(errors="replace").decode()',
}
"""By the name of a type, or of one that it is derived from."""
_OTHERWISE = "expected dict, list, str, int, float, bool, None, a dataclass, a pydantic model, a date, UUID or enum"
DEEPEST = 254
"""Levels that orjson writes."""
_NULL = re.compile(rb"null")
_INFINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
"""In msgpack: a double whose exponent is that of NaN and Infinity, or something in a text that looks so."""
_SCALARS = frozenset((str, int, bool, type(None)))
LONG = 4096
"""Bytes from which it is quicker to look at the values of an object than at its text."""


def parse(text: bytes) -> object:
    r"""Read JSON; raise `ValueError` that says what was wrong.

    Half a character (`\ud83d` alone, as cutting a string in JavaScript leaves it) is legal JSON, but no Unicode: it
    is read as U+FFFD, as a browser would write it to UTF-8. Refused is what JSON does not have, such as NaN, and
    nesting deeper than 1024.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        whole = _ESCAPES.sub(_replaced, text)
        if whole == text:
            raise ValueError(str(error)) from None
    try:
        return orjson.loads(whole)
    except orjson.JSONDecodeError as error:
        raise ValueError(str(error)) from None


def check_integers(text: bytes) -> None:
    """Raise `ValueError` for an integer beyond 64 bits in what `parse` has read: it would go on as a rounded float."""
    if _LONG not in text.translate(_DIGITS):
        return
    for token in _TOKENS.findall(text):
        if _is_integer(token) and not (len(token) <= 20 and _SMALLEST <= int(token) <= _LARGEST):
            shown = token.decode() if len(token) <= 40 else f"{len(token)} digits"
            raise ValueError(f"expected integers of at most 64 bits, got {shown}: send it as a string")


def id_in(text: bytes) -> str | int | None:
    """Find the `id` of a request that `parse` has refused, so that its client learns which one it was.

    JSON allows more than can be read here: a number like 1e999, thousands of levels. Behind thousands of other strings
    and brackets it is not found.
    """
    if len(text) > MOST_SEARCHED or b'"id"' not in text:
        return None
    depth, found = 0, None
    for mark in islice(_MARKS.finditer(text), MOST_MARKS):
        token = mark[0]
        if token[0] in b"{[":
            depth += len(token)
        elif token[0] in b"}]":
            depth -= len(token)
        elif depth == 1 and token == b'"id"':
            found = _ID.match(text, mark.end()) or found
    try:
        id = parse(found[1]) if found else None
    except ValueError:
        return None
    return id if isinstance(id, str | int) else None


def _replaced(escape: re.Match[bytes]) -> bytes:
    return b"\\ufffd" if escape["lone"] else escape[0]


def _is_integer(token: bytes) -> bool:
    return token.removeprefix(b"-").isdigit()


def is_changed(value: object, written: bytes) -> bool:
    """Tell whether orjson wrote null for a number that JSON does not have: NaN, Infinity.

    Costs hardly more than looking for a null, which is most often not there.
    """
    if type(value) in _SCALARS:
        return False
    if len(written) > LONG and isinstance(value, dict) and _SCALARS.issuperset(map(type, value.values())):
        return False
    if _NULL.search(written) is None:
        return False
    try:  # msgpack writes every float as it is, in a seventh of the time that looking at each takes here
        return _INFINITE.search(msgpack.packb(value)) is not None and _has_infinite(value)
    except (TypeError, ValueError, OverflowError):
        return _has_infinite(value)


def _has_infinite(value: object) -> bool:
    if type(value) in _SCALARS:
        return False
    if isinstance(value, float):
        return not isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_infinite, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_infinite, value))
    return any(_has_infinite(below) for _, below in _inside(value))


def unsayable(named: Mapping[str, object]) -> str:
    """Say which of these values cannot be written as it is, where in it that stands, and what to write instead."""
    for where, found, depth in _walk(named, "", 0):
        if depth > DEEPEST:
            return f"{where[:80]}... is nested deeper than {DEEPEST} levels, or contains itself"
        if isinstance(found, dict) and (wrong := [key for key in found if not _is_key(key)]):
            return f"{where} has the key {wrong[0]!a:.80}: expected a string of whole characters, write str() of others"
        if isinstance(found, float) and not isfinite(found):
            return f"{where} is {found}: JSON has no such number, write None where null is meant"
        if (instead := _instead_of(found)) is not None:
            return f"{where} is of type {type(found).__name__}: {instead}"
    return f"one of {', '.join(named)}: {_OTHERWISE}"


def _walk(value: object, place: str, depth: int) -> Iterator[tuple[str, object, int]]:
    """Yield a value and all that is in it, with its place and depth; nothing below what is too deep."""
    yield place, value, depth
    if depth > DEEPEST:
        return
    for name, below in _inside(value):
        yield from _walk(below, f"{place}{name}" if place else name.removeprefix("."), depth + 1)


def _inside(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((f".{key}", below) for key, below in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{index}]", below) for index, below in enumerate(value))
    elif isinstance(value, BaseModel):
        yield from _inside(_dumped(value))
    elif isinstance(value, Enum):
        yield "", value.value
    elif is_dataclass(value):
        names = dict.fromkeys((*(field.name for field in fields(value)), *getattr(value, "__dict__", ())))
        yield from ((f".{name}", getattr(value, name, None)) for name in names if not name.startswith("_"))


def _dumped(model: BaseModel) -> object:
    try:
        return model.model_dump(mode="json")
    except Exception:  # an application's serializer may raise anything
        return None


def _instead_of(value: object) -> str | None:
    """Say what to write for a value that orjson cannot, None for one that it can."""
    if isinstance(value, dict | list | tuple | BaseModel) or is_dataclass(value) or _is_written(value):
        return None
    return next((_INSTEAD[kind.__name__] for kind in type(value).__mro__ if kind.__name__ in _INSTEAD), _OTHERWISE)


def _is_key(key: object) -> bool:
    return isinstance(key, str) and _is_written(key)


def _is_written(value: object) -> bool:
    try:
        orjson.dumps(value)
    except (TypeError, RecursionError):
        return False
    return True


def kind_of(value: object) -> str:
    """Name the kind of a value, as JSON has it."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
    return "an object"


def shown(value: object) -> str:
    """Show what came, in a few words that a log can bear."""
    if not isinstance(value, str):
        return kind_of(value)
    return ascii(value) if len(value) <= 40 else f"{len(value)} characters"
