"""Times that a caller gives, in seconds."""

from __future__ import annotations

import asyncio

LONGEST = 10 * 365 * 86_400.0
"""Ten years in seconds, which is for ever: infinity as a deadline raises OverflowError in some event loops."""


def checked(name: str, seconds: float) -> float:
    """Return what is a time. Raises `ValueError` for what is none."""
    if not seconds >= 0:
        raise ValueError(f"{name}: expected seconds, 0 or more, got {seconds!r}")
    return min(seconds, LONGEST)


def limit(name: str, seconds: float) -> float | None:
    """Return a time that limits something, None for no limit: 0 switches a limit off, as infinity does."""
    return checked(name, seconds) if 0 != seconds != float("inf") else None


async def pause(seconds: float) -> None:
    """Sleep, for as long as it may be."""
    await asyncio.sleep(min(seconds, LONGEST))
