"""The token a client shows, and when to fetch another one."""

from __future__ import annotations

import base64
import inspect
import json
import time
from collections.abc import Awaitable, Callable

Token = str | Callable[[], str | Awaitable[str]]
"""A token, or where to get a fresh one."""

PORTION = 0.8
"""Of the remaining life, after which a token is renewed."""
SHORTEST = 1.0
"""Seconds: with less left, a token is renewed by connecting anew."""


async def fetch(token: Token | None) -> str | None:
    """Return the token to show now. Raises whatever its source raises."""
    if token is None or isinstance(token, str):
        return token
    found = token()
    return await found if inspect.isawaitable(found) else found


def renewal_delay(token: str) -> float | None:
    """Return the seconds after which a JWT should be renewed; None when it does not tell, or is as good as over."""
    try:
        payload = token.split(".")[1]
        expires = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        remaining = float(expires) - time.time()
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return remaining * PORTION if remaining > SHORTEST else None
