"""The token that a client shows: fetched, checked for what cannot be one, and renewed before it expires."""

from __future__ import annotations

import base64
import inspect
import json
import re
import time
from collections.abc import Awaitable, Callable

Token = str | Callable[[], str | Awaitable[str]]
"""A token, or where to get a fresh one."""

_LEGAL = re.compile(r"[A-Za-z0-9!#$%&'*+./^_`|~=-]+")

PORTION = 0.8
"""Of the remaining life, after which a token is renewed: time is left for further tries, each after 0.8 of the rest."""
MOST = 16_384
"""Characters of a token: it travels in the head of the request, of which a node takes 32 KiB, and proxies less."""
SHORTEST = 1.0
"""Seconds: with less left, the answer to `$auth` might come too late; the node closes with 4401, and the next
connection asks for a fresh token."""


class Unusable(ValueError):
    """What was given for a token cannot be one: a page of HTML, say. It is not quoted: it may be a secret after all."""


async def fetch(token: Token | None) -> str | None:
    """Return the token to show now, None for none. Raises whatever its source raises, and `Unusable`."""
    found: object = token() if callable(token) else token
    if inspect.isawaitable(found):
        found = await found
    if found is None or found == "":
        return None
    if not isinstance(found, str) or len(found) > MOST or not _LEGAL.fullmatch(found):
        raise Unusable(f"expected a token, got a {type(found).__name__} that cannot be one")
    return found


def renewal_delay(token: str) -> float | None:
    """Return the seconds after which a JWT should be renewed; None when it does not tell, or is as good as over."""
    try:
        payload = token.split(".")[1]
        expires = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        remaining = float(expires) - time.time()
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return remaining * PORTION if remaining > SHORTEST else None
