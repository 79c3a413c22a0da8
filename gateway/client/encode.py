"""What an application sends, as JSON: what would arrive as something else is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from math import isfinite
from typing import Any

import orjson

LEAST, MOST = -(2**63), 2**64 - 1
"""Integers that orjson writes; the node refuses larger ones, too, since they would be read as rounded floats."""
DEEPEST = 200
"""Levels; orjson goes a little further (254). What is deeper is most likely an object that holds itself."""


def encoded(param: object) -> orjson.Fragment:
    """Write `param` as JSON, to be put in a message.

    A lone surrogate, which no UTF-8 can hold, becomes U+FFFD. Raises a `TypeError` that names the place of what
    JSON cannot carry: bytes, a set, NaN.
    """
    return orjson.Fragment(orjson.dumps(_carried(param, "param", 0)))


def well_formed(text: str) -> str:
    """Return a text without lone surrogates."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _carried(value: Any, place: str, depth: int) -> Any:
    """Return a value as orjson takes it."""
    if depth > DEEPEST:
        raise TypeError(f"{place[:100]}...: JSON cannot carry more than {DEEPEST} levels, or an object within itself")
    match value:
        case None | bool():
            return value
        case int() if LEAST <= value <= MOST:
            return value
        case Enum():
            return _carried(value.value, place, depth + 1)
        case str():
            return well_formed(value)
        case float() if isfinite(value):
            return value
        case list() | tuple():
            return [_carried(item, f"{place}.{index}", depth + 1) for index, item in enumerate(value)]
        case Mapping():
            return {_key(key, place): _carried(item, f"{place}.{key}", depth + 1) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return _carried({field.name: getattr(value, field.name) for field in fields(value)}, place, depth)
    return _known(value, place)


def _key(key: object, place: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{place}: JSON cannot carry a key that is no string, got {key!r}")
    return well_formed(key)


def _known(value: object, place: str) -> object:
    """Return what orjson itself writes as a string, dates and UUIDs."""
    try:
        orjson.dumps(value)
    except TypeError:
        pass
    else:
        if not isinstance(value, float):
            return value
    what = value if isinstance(value, int | float) else type(value).__name__
    raise TypeError(f"{place}: JSON cannot carry {what}; expected strings, numbers, lists and objects") from None
