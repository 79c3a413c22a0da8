"""Origins as browsers write them: what a page is called by, and what `allowed_origins` has to name it by."""

from __future__ import annotations

import re

import idna

_WRITTEN = re.compile(r"[a-z][a-z0-9+.-]*://[^\sA-Z*/?#@]+(?<!:80)(?<!:443)|null|\*")
"""In small letters, without the port that the scheme implies, without a path."""
_PARTS = re.compile(r"\s*([a-z][a-z0-9+.-]*)://([^\s/?#@:\[\]*]+)(:\d+)?/?\s*", re.IGNORECASE)
_PORTS = {"http": ":80", "https": ":443", "ws": ":80", "wss": ":443"}


def as_browsers_write(origin: str) -> str:
    """Return an origin as browsers send it: a name in other letters than ASCII becomes what DNS has for it.

    Raises `ValueError` for what no browser sends, with what was meant where that can be told.
    """
    written = _with_ascii_name(origin)
    if _WRITTEN.fullmatch(written) and written.isascii():
        return written
    meant = _likely(written) or "an origin"
    raise ValueError(
        f"expected {meant}, as browsers write it, like https://chat.example.org (no port where it is the usual one, "
        "no path, no slash at the end), or *"
    )


def _with_ascii_name(origin: str) -> str:
    """Write the name of a site as browsers do, by UTS 46; leave alone what has no such name."""
    parts = _PARTS.fullmatch(origin)
    if origin.isascii() or parts is None:
        return origin
    host = parts.group(2)
    try:
        name = idna.encode(host, uts46=True, transitional=False).decode()
    except idna.IDNAError as error:
        raise ValueError(f"expected the name of a site in {origin}: {error}") from None
    return origin.replace(f"://{host}", f"://{name}", 1)


def _likely(origin: str) -> str:
    """Return what somebody must have meant, "" where that is not plain."""
    parts = _PARTS.fullmatch(origin)
    if parts is None:
        return ""
    scheme, host, port = parts.group(1).lower(), parts.group(2).lower(), parts.group(3) or ""
    likely = f"{scheme}://{host}{'' if port == _PORTS.get(scheme) else port}"
    return likely if likely.isascii() and _WRITTEN.fullmatch(likely) else ""
