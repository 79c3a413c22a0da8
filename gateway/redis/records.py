"""Checks all that is read from Redis keys: whoever may write there may have written anything.

What no node can have written is dropped, counted and named in the log, and nothing here raises. A number has 15 digits
at most, so that it is exact as a double, which is what JSON in browsers and Lua have (2^53 has 16 digits).
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence

import orjson

from gateway.connections.counters import Counters
from gateway.protocol.message import is_connection_id, is_name

logger = logging.getLogger(__name__)

LOG_PERIOD = 1.0
"""Seconds between two lines in the log, whatever was found: a stranger must not fill it."""
AGAIN = 60.0
"""Seconds after which what still stands under a key is counted again: pages look at it every few seconds."""
KEYS_REMEMBERED = 1000
"""Keys with something wrong, so that a stranger who spoils many does not fill the memory."""
DIGITS = 15
"""Digits of a number that is read, at most."""
MOST_NAMES = 10_000
"""Names in one list."""
TEXT_BYTES = 512
"""Bytes of a name, or of any text for which the caller names no other bound."""
SHOWN_BYTES = 80
"""How much of what was found is shown in the log."""
Entry = tuple[bytes, Mapping[bytes, bytes]]
"""An entry of a stream: its id, and its fields with their values."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Rejections:
    """Counts what was found in Redis and no node can have written; the log shows one of these a second at most."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._logged = -math.inf
        self._known: dict[str, float] = {}
        """Keys with something wrong in them, and when (monotonic) that was counted last."""

    def published(self, where: str, why: object, data: bytes) -> None:
        """Count a published payload that was dropped; `where` is its topic, `why` what was expected."""
        self._note(f"what was published to {where}", why, data)

    def stands(self, key: str, why: object, value: object) -> None:
        """Count what a key holds: once in `AGAIN` seconds, however often it is met."""
        now = time.monotonic()
        if self._known.get(key, -math.inf) + AGAIN > now:
            return
        if len(self._known) >= KEYS_REMEMBERED:
            self._known.clear()
        self._known[key] = now
        self._note(f"what stands in {key[:200]}", why, value)

    def fault(self, where: str, error: Exception) -> None:
        """Count a payload on which our own code failed; the log shows the traceback."""
        self._note(f"what was published to {where}", f"{type(error).__name__}: {error}", b"", fault=error)

    def _note(self, what: str, why: object, value: object, *, fault: Exception | None = None) -> None:
        self._counters.rejected += 1
        now = time.monotonic()
        if now - self._logged < LOG_PERIOD:
            return
        self._logged = now
        self._counters.rejection = f"{what}: {str(why)[:200]}: {_head(value)}"
        logger.warning("rejected %s", self._counters.rejection, exc_info=fault)


def _head(value: object) -> str:
    return repr(value[:SHOWN_BYTES] if isinstance(value, bytes | str) else value)[: 4 * SHOWN_BYTES]


class Record:
    """The fields of a hash, each read as what it should be.

    A field that is absent, or holds something else, reads as empty (`""`, 0, `()`); the latter is counted.
    """

    def __init__(self, key: str, fields: Mapping[str, bytes | None], rejections: Rejections) -> None:
        self._key = key
        self._fields = fields
        self._rejections = rejections
        self.is_spoiled = False
        """Whether anything read so far was none of ours."""

    @classmethod
    def of_flat(cls, key: str, flat: object, rejections: Rejections) -> Record:
        """Read the answer to HGETALL, in which names and values alternate."""
        parts = flat if isinstance(flat, list) else []
        names = [name.decode(errors="replace") if isinstance(name, bytes) else "" for name in parts[::2]]
        return cls(key, dict(zip(names, parts[1::2], strict=False)), rejections)

    def __contains__(self, field: str) -> bool:
        return self._fields.get(field) is not None

    def __bool__(self) -> bool:
        return bool(self._fields)

    def text(self, field: str, *, most: int = TEXT_BYTES) -> str:
        """Read what people wrote: any UTF-8 text of at most so many bytes."""
        value = self._fields.get(field) or b""
        found = _text(value, most)
        if found is None:
            self._refuse(field, f"expected text of at most {most} bytes", value)
        return found or ""

    def line(self, field: str, *, most: int = TEXT_BYTES) -> str:
        """Read what a program wrote: text without control characters other than the ends of lines."""
        found = self.text(field, most=most)
        if _CONTROL.search(found.replace("\n", "")):
            self._refuse(field, "expected text without control characters", found)
            return ""
        return found

    def name(self, field: str) -> str:
        """Read the name of a channel, a user, a node or a connection."""
        value = self._fields.get(field) or b""
        found = _name(value) if value else ""
        if found is None:
            self._refuse(field, "expected a name", value)
        return found or ""

    def number(self, field: str) -> int:
        """Read a whole number that is not negative, such as a count or a time."""
        value = self._fields.get(field) or b""
        if not value:
            return 0
        if value.isdigit() and len(value) <= DIGITS:
            return int(value)
        self._refuse(field, f"expected a number of at most {DIGITS} digits", value)
        return 0

    def real(self, field: str) -> float:
        """Read a finite number, which may have a fraction."""
        value = self._fields.get(field) or b"0"
        try:  # bounded before it is read: any number of digits makes a float
            found = float(value) if len(value) <= 32 else math.nan
        except ValueError:
            found = math.nan
        if math.isfinite(found) and abs(found) < 10**DIGITS:
            return found
        self._refuse(field, "expected a number", value)
        return 0.0

    def names(self, field: str) -> tuple[str, ...]:
        """Read a JSON array of names; what is no name is left out."""
        value = self._fields.get(field) or b"[]"
        try:
            found = orjson.loads(value)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, list) or len(found) > MOST_NAMES:
            self._refuse(field, f"expected a JSON array of at most {MOST_NAMES} names", value)
            return ()
        legal = tuple(name for name in found if is_name(name))
        if len(legal) < len(found):
            self._refuse(field, "expected a JSON array of names", value)
        return legal

    def _refuse(self, field: str, why: str, value: object) -> None:
        self.is_spoiled = True
        self._rejections.stands(self._key, f"{field}: {why}", value)


def names_in(key: str, members: object, rejections: Rejections) -> list[str]:
    """Return those members of a set that are names of channels, users, nodes or connections."""
    return sorted_out(key, members, rejections)[0]


def sorted_out(key: str, members: object, rejections: Rejections) -> tuple[list[str], list[bytes]]:
    """Return the members of a set in two lists: those that are names, and what else was among them."""
    names: list[str] = []
    others: list[bytes] = []
    for member in members if isinstance(members, list | set) else ():
        if isinstance(member, bytes) and (name := _name(member)) is not None:
            names.append(name)
        elif isinstance(member, bytes):
            others.append(member)
    if others:
        rejections.stands(key, f"expected names, found {len(others)} that are none, the first", others[0])
    return names, others


def objects_in(key: str, text: object, rejections: Rejections, *, most: int) -> list[dict[str, object]] | None:
    """Return the objects in a JSON array of at most so many; None for anything else. What is no object is left out."""
    try:
        found = orjson.loads(text) if isinstance(text, bytes) else None
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, list) or len(found) > most:
        rejections.stands(key, f"expected a JSON array of at most {most} objects", text)
        return None
    objects = [each for each in found if isinstance(each, dict)]
    if len(objects) < len(found):
        rejections.stands(key, "expected a JSON array of objects", text)
    return objects


def entries_in(answer: object) -> Iterator[Entry]:
    """Yield the entries in the answer to XRANGE or XREVRANGE, in its order."""
    for entry in answer if isinstance(answer, list) else ():
        match entry:
            case [bytes(id), [*flat]]:
                yield id, dict(zip(flat[::2], flat[1::2], strict=False))


def place_of(id: bytes) -> tuple[int, int] | None:
    """Read an entry's id, OFFSET-TIME, as offset and time (ms); None for an id that no node can have made."""
    offset, _, written = id.partition(b"-")
    if not (offset.isdigit() and written.isdigit() and len(offset) <= DIGITS and len(written) <= DIGITS):
        return None
    return int(offset), int(written)


def is_moment(value: object) -> bool:
    """Tell whether a value may be a time or a count; a boolean, which is an int in Python, may not."""
    return type(value) is int and 0 <= value < 10**DIGITS


def _text(value: bytes, most: int) -> str | None:
    if len(value) > most:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _name(value: bytes) -> str | None:
    found = _text(value, TEXT_BYTES)
    return found if found is not None and (is_name(found) or is_connection_id(found)) else None


def values(fields: Sequence[str], found: object) -> dict[str, bytes | None]:
    """Pair the answer to HMGET with the fields that were asked for, of which None has no value."""
    parts = found if isinstance(found, list) else []
    return dict(zip(fields, parts, strict=False))
