"""What stands in Redis, read with suspicion: whoever may write there may have written anything.

Everything that comes from a key is read here: what it says of itself is checked, what is none of ours is dropped,
counted and named in the log, and nothing raises. A number has 15 digits at most, so that it is exact in JSON, in Lua
and in a browser, and none takes long to read.
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
AGAIN = 60.0
"""Seconds after which what still stands under a key is counted again: pages look at it every few seconds."""
KEYS_REMEMBERED = 1000
DIGITS = 15
MOST_NAMES = 10_000
"""Names in one list."""
TEXT_BYTES = 512
SHOWN_BYTES = 80
Entry = tuple[bytes, Mapping[bytes, bytes]]
"""Of a stream: its id, and fields with their values."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Rejections:
    """Counts what was found in Redis and is none of the gateway's; the log names it, once a second at most."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._logged = -math.inf
        self._known: dict[str, float] = {}
        """Keys with something wrong in them, by when that was counted."""

    def published(self, where: str, why: object, data: bytes) -> None:
        """Take note of a payload that was dropped."""
        self._note(f"what was published to {where}", why, data)

    def stands(self, key: str, why: object, value: object) -> None:
        """Take note of what a key holds, however often that is met."""
        now = time.monotonic()
        if self._known.get(key, -math.inf) + AGAIN > now:
            return
        if len(self._known) >= KEYS_REMEMBERED:
            self._known.clear()
        self._known[key] = now
        self._note(f"what stands in {key[:200]}", why, value)

    def fault(self, where: str, error: Exception) -> None:
        """Take note of a payload over which something of ours stumbled, with the place where it did."""
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
    """A hash, or a map of it: fields that are absent, or hold what is none of ours, read as empty."""

    def __init__(self, key: str, fields: Mapping[str, bytes | None], rejections: Rejections) -> None:
        self._key = key
        self._fields = fields
        self._rejections = rejections
        self.is_spoiled = False
        """Whether anything read so far was none of ours."""

    @classmethod
    def of_flat(cls, key: str, flat: object, rejections: Rejections) -> Record:
        """Read the answer to HGETALL."""
        parts = flat if isinstance(flat, list) else []
        names = [name.decode(errors="replace") if isinstance(name, bytes) else "" for name in parts[::2]]
        return cls(key, dict(zip(names, parts[1::2], strict=False)), rejections)

    def __contains__(self, field: str) -> bool:
        return self._fields.get(field) is not None

    def __bool__(self) -> bool:
        return bool(self._fields)

    def text(self, field: str, *, most: int = TEXT_BYTES) -> str:
        """Read what people wrote: any characters, of a bounded number."""
        value = self._fields.get(field) or b""
        found = _text(value, most)
        if found is None:
            self._refuse(field, f"expected text of at most {most} bytes", value)
        return found or ""

    def line(self, field: str, *, most: int = TEXT_BYTES) -> str:
        """Read what a program wrote: no control characters but the ends of lines."""
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
        """Read a count, a size or a time."""
        value = self._fields.get(field) or b""
        if not value:
            return 0
        if value.isdigit() and len(value) <= DIGITS:
            return int(value)
        self._refuse(field, f"expected a number of at most {DIGITS} digits", value)
        return 0

    def real(self, field: str) -> float:
        """Read a figure that may have a fraction."""
        value = self._fields.get(field) or b"0"
        try:
            found = float(value) if len(value) <= 32 else math.nan
        except ValueError:
            found = math.nan
        if math.isfinite(found) and abs(found) < 10**DIGITS:
            return found
        self._refuse(field, "expected a number", value)
        return 0.0

    def names(self, field: str) -> tuple[str, ...]:
        """Read a JSON array of names."""
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
    """Read the members of a set that are names, of channels, users, nodes or connections."""
    return sorted_out(key, members, rejections)[0]


def sorted_out(key: str, members: object, rejections: Rejections) -> tuple[list[str], list[bytes]]:
    """Read the members of a set; return those that are names, and what else was among them."""
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
    """Read a JSON array of objects; None for anything else."""
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
    """Read the answer to XRANGE: ids, and fields with their values."""
    for entry in answer if isinstance(answer, list) else ():
        match entry:
            case [bytes(id), [*flat]]:
                yield id, dict(zip(flat[::2], flat[1::2], strict=False))


def place_of(id: bytes) -> tuple[int, int] | None:
    """Read the id of an entry as offset and time; None where a hand has chosen numbers that no node would."""
    offset, _, written = id.partition(b"-")
    if not (offset.isdigit() and written.isdigit() and len(offset) <= DIGITS and len(written) <= DIGITS):
        return None
    return int(offset), int(written)


def is_moment(value: object) -> bool:
    """Tell whether this may be a time, or a count, in a message between nodes."""
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
    """Put the answer to HMGET beside the fields that were asked for."""
    parts = found if isinstance(found, list) else []
    return dict(zip(fields, parts, strict=False))
