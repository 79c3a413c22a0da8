"""Finds out who wants to connect: by a token, which may stand in one of four places, or nobody in particular."""

from __future__ import annotations

from aiohttp import web

from gateway.access.origin import is_foreign
from gateway.access.query import refuse_unreadable_query
from gateway.access.tokens import Tokens
from gateway.access.upgrade import TOKEN_PROTOCOL, offered_protocols
from gateway.config import Settings
from gateway.connections.connection import NAME_LENGTH, Profile
from gateway.errors import Unauthorized

TOKENS = web.AppKey("gateway_tokens", Tokens)
SETTINGS = web.AppKey("gateway_settings", Settings)

COOKIE = "gateway_token"
_SCHEME = "bearer "


async def identify(request: web.Request) -> Profile:
    """Say who wants to connect, as the settings have it. Raises `Unauthorized`, and 400 for a query that is not UTF-8.

    Where there is a key for tokens, one is asked for, unless anonymous clients are let in as well; a bad one is
    refused even then. Without a key everyone is anonymous. An anonymous client may name itself by `?name=`.
    """
    refuse_unreadable_query(request)
    tokens, settings = request.config_dict[TOKENS], request.config_dict[SETTINGS]
    token = token_of(request) if tokens.expected else ""
    if token:
        return await tokens.verify(token)
    if not settings.allow_anonymous:
        raise Unauthorized("expected a token")
    return Profile(name=request.query.get("name", "")[:NAME_LENGTH])


def token_of(request: web.Request) -> str:
    """Return the token a request carries, "" without one.

    What the client has put there itself goes before the cookie, which browsers send unasked: `Authorization`,
    `?token=`, the subprotocol, then the cookie. An empty one counts as none.
    """
    return (
        _bearer(request.headers.get("Authorization", ""))
        or request.query.get("token", "")
        or _offered(request)
        or _cookie(request)
    )


def _bearer(header: str) -> str:
    """Read the token of `Authorization`; another scheme is meant for somebody else, such as a proxy."""
    return header[len(_SCHEME) :].strip() if header.lower().startswith(_SCHEME) else ""


def _offered(request: web.Request) -> str:
    names = (name for name in offered_protocols(request) if name.startswith(TOKEN_PROTOCOL))
    return next(names, "").removeprefix(TOKEN_PROTOCOL)


def _cookie(request: web.Request) -> str:
    """Read the cookie, which counts only for pages that are trusted by name: `*` lets others in, but not as this user.

    (As with CORS, where `*` and credentials exclude each other.)
    """
    if is_foreign(request, request.config_dict[SETTINGS]):
        return ""
    return request.cookies.get(COOKIE, "")
