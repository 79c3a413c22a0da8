"""Whether and when to reconnect: what a close code or a refused upgrade means, and the backoff with full jitter."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aiohttp import WSServerHandshakeError

from gateway.errors import Close, Verdict

FIRST, CAP = 0.5, 20.0
"""Seconds: the ceiling of the first pause, which doubles with every failure, and of every pause."""
LONGEST = 300.0
"""Seconds: nodes ask for 5 at most, balancers in maintenance for some minutes; who asks for more is mistaken."""
LOST = 1006
"""No close frame came (RFC 6455 section 7.1.5): the network, or a node that was killed."""

_STATUSES: dict[int, Verdict] = {400: "failed", 401: "renew", 403: "failed", 404: "failed"}


class End(NamedTuple):
    """How a connection ended, or why there was none, and what that means."""

    code: int
    """The close code, or the HTTP status of a refused upgrade."""
    reason: str
    verdict: Verdict = "retry"
    retry_after: float | None = None
    """Seconds, where the server named them."""


def closed_with(code: int | None, reason: str) -> End:
    """Judge a close frame; None is none."""
    close = Close(code or LOST, reason)
    after = None if close.retry_after is None else min(close.retry_after, LONGEST)
    return End(close.code, reason, close.verdict, after)


def refused_with(error: WSServerHandshakeError) -> End:
    """Judge an upgrade that was refused."""
    stated = error.headers.get("Retry-After", "") if error.headers else ""
    after = min(float(stated), LONGEST) if stated.isdecimal() else None
    return End(error.status, error.message, _STATUSES.get(error.status, "retry"), after)


class Backoff:
    """Full jitter: any moment between now and the ceiling, at the cap as well, so that clients do not come in step."""

    def __init__(self, first: float, cap: float, random: Callable[[], float]) -> None:
        self._first, self._cap, self._random = first, cap, random
        self._failures = 0

    def next(self) -> float:
        """Return the next pause in seconds."""
        # Without a first pause the second one is as it would be by default.
        first = self._first or (FIRST / 2 if self._failures else 0.0)
        # Bounded, since 2.0 ** 1024 is an OverflowError: after some hours without a network.
        ceiling = min(self._cap, first * 2.0 ** min(self._failures, 64))
        self._failures += 1
        return self._random() * ceiling

    def reset(self) -> None:
        """Forget the failures."""
        self._failures = 0
