"""Refuses a query string that is not UTF-8, which aiohttp would read with replacement characters."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from aiohttp import web

NAME_LENGTH = 40
"""Bytes of a parameter's name that an answer repeats: it is its sender's choice."""
EXPECTED = "expected UTF-8, percent-encoded"


def unreadable_in(query: str) -> str:
    """Return the name of the first parameter that is not UTF-8, "" where all are.

    aiohttp puts U+FFFD where it cannot read: all who meant different names would have the same one then.
    """
    for part in query.split("&") if "%" in query or not query.isascii() else ():
        try:
            unquote_to_bytes(part).decode()
        except UnicodeError:
            name, _, _ = part.partition("=")
            said = unquote_to_bytes(name.encode(errors="surrogateescape"))
            return repr(said[:NAME_LENGTH])[2:-1] or "the query"
    return ""


def refuse_unreadable_query(request: web.BaseRequest) -> None:
    """Raise 400 that names the parameter where one is not UTF-8."""
    if name := unreadable_in(request.rel_url.raw_query_string):
        raise web.HTTPBadRequest(text=f"{name}: {EXPECTED}\n")
