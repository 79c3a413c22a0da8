"""Wait for a state by looking at it again and again: the only place in the tests that polls.

Whatever can be awaited (a message, an end of file, an exit) is awaited; this is for states that nobody announces,
such as the members of a Redis set or a process that answers.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

__all__ = ["eventually"]

_T = TypeVar("_T")

# The first looks follow closely, since most states are there at once; a long wait must not load the machine.
_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05


@overload
async def eventually(
    predicate: Callable[[], Awaitable[_T | None]],
    deadline: float = ...,
    *,
    tolerating: tuple[type[Exception], ...] = ...,
    what: str = ...,
) -> _T: ...
@overload
async def eventually(
    predicate: Callable[[], _T | None],
    deadline: float = ...,
    *,
    tolerating: tuple[type[Exception], ...] = ...,
    what: str = ...,
) -> _T: ...
async def eventually(
    predicate: Callable[[], Any],
    deadline: float = 10.0,
    *,
    tolerating: tuple[type[Exception], ...] = (OSError,),
    what: str = "",
) -> Any:
    """Return the first true value of `predicate`, a function or a coroutine function without arguments.

    Fails the test after `deadline` seconds, saying what was waited for (`what`) and the last value seen. An
    assertion in the predicate that does not hold, and every exception in `tolerating`, counts as "not yet". A
    predicate that hangs is cancelled at the deadline.
    """
    last: object = "nothing: the first look never returned"
    not_yet: tuple[type[Exception], ...] = (AssertionError, *tolerating)
    pause = _FIRST_PAUSE
    limit = asyncio.timeout(deadline)
    try:
        async with limit:
            while True:
                try:
                    found = predicate()
                    last = await found if inspect.isawaitable(found) else found
                    if last:
                        return last
                except not_yet as error:
                    last = error
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE)
    except TimeoutError:
        if not limit.expired():
            raise
    raise AssertionError(f"not within {deadline:g} s: {what or _described(predicate)}; last: {last!r}")


def _described(predicate: Callable[[], object]) -> str:
    """Give the predicate's own source line, or its name where there is no source."""
    try:
        lines, _ = inspect.getsourcelines(predicate)
    except (OSError, TypeError):
        return getattr(predicate, "__qualname__", repr(predicate))
    return " ".join(line.strip() for line in lines[:3])
