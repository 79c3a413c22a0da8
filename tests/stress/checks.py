"""What must be: waited for, compared, and told in one line where it is not so."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

DEADLINE = 30.0
"""Seconds until what must come has not come: no machine is so slow, and nothing is measured by it."""
SHOWN = 6
"""Items of a difference that are named."""


class Wrong(AssertionError):
    """Something is not as it must be: what, what was expected, and what came."""


async def eventually(what: str, look: Callable[[], Any], expected: object = True, *, deadline: float = DEADLINE) -> Any:
    """Look, or await a look, again and again until it is as expected, or just true; raise `Wrong` past the deadline."""
    ends, pause = time.monotonic() + deadline, 0.002
    while True:
        found = look()
        last = await found if inspect.isawaitable(found) else found
        if last == expected or (expected is True and last):
            return last
        if time.monotonic() > ends:
            raise Wrong(f"{told(what, expected, last)} (after {deadline:g} s)")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def difference(expected: Sequence[Any], got: Sequence[Any]) -> str:
    """Say what is missing in a list, what came twice, what came unasked, and where the order breaks."""
    wanted, found = Counter(map(_hashable, expected)), Counter(map(_hashable, got))
    parts = [
        f"{len(items)} {word} ({short(items)})"
        for word, items in (
            ("missing", list((wanted - found).elements())),
            ("too many", list((found - wanted).elements())),
        )
        if items
    ]
    if not parts:
        at = next(i for i, (a, b) in enumerate(zip(expected, got, strict=True)) if a != b)
        parts = [f"another order from place {at}: {short(expected[at:])} expected, {short(got[at:])} came"]
    return f"{len(expected)} expected, {len(got)} came: {', '.join(parts)}"


def short(value: object) -> str:
    """Write a value in as few words as show what it is."""
    if isinstance(value, list | tuple | set | frozenset) and len(value) > SHOWN:
        items: Iterable[object] = list(value)[:SHOWN]
        return f"{', '.join(map(repr, items))}, ... {len(value)} in all"
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:600]}... {len(text)} characters"


def same(expected: object, got: object) -> bool:
    """Compare; what has no order, by what is in it."""
    if isinstance(expected, set | frozenset) and isinstance(got, set | frozenset):
        return set(expected) == set(got)
    return expected == got


def told(what: str, expected: object, got: object) -> str:
    """Say in one line how two values differ."""
    if isinstance(expected, list) and isinstance(got, list):
        return f"{what}: {difference(expected, got)}"
    if isinstance(expected, set | frozenset) and isinstance(got, set | frozenset):
        return f"{what}: {difference(sorted(expected, key=repr), sorted(got, key=repr))}"
    return f"{what}: expected {short(expected)}, got {short(got)}"


def _hashable(value: object) -> Hashable:
    return value if isinstance(value, str | int | tuple) else repr(value)
