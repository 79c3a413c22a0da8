"""What the gateway raises: every kind has one HTTP status, which is said wherever it is told over HTTP."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

import gateway
from gateway.access.upgrade import answer_to, status_of
from gateway.errors import (
    KINDS,
    NO_PONG,
    ConnectionNotFound,
    Forbidden,
    GatewayError,
    InvalidParam,
    RateLimited,
    TooManyChannels,
    Unauthorized,
    Unavailable,
)
from gateway.protocol.frames import Violation
from gateway.server.admin.guard import say_what_was_wrong
from gateway.server.api.problems import Refused, problem_of
from gateway.server.metrics import REFUSED_WITH
from gateway.server.middlewares import SlowBody

NOT_TOLD = ("internal", "closed", "timeout")
"""Codes of what no client of a node is refused for: faults, and what the client in Python raises by itself."""


def _kinds(kind: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


for _module in pkgutil.walk_packages(gateway.__path__, "gateway."):
    if not _module.name.endswith("__main__"):
        importlib.import_module(_module.name)

_KINDS = {kind.__qualname__: kind for kind in _kinds() if kind.__module__.startswith("gateway.")}
every_kind = pytest.mark.parametrize("kind", _KINDS.values(), ids=_KINDS)


def _made(kind: type[GatewayError]) -> GatewayError:
    if kind is Refused:
        return Refused(418, "no coffee")
    if kind is SlowBody:
        return SlowBody()
    return kind(NO_PONG) if issubclass(kind, Violation) else kind("no coffee")


@every_kind
def test_what_a_client_is_refused_for_has_a_status(kind: type[GatewayError]) -> None:
    """500 is for faults, and for what is told to no client of a node."""
    assert HTTPStatus(kind.status) >= 400
    if not issubclass(kind, Refused):  # each of which has its own
        assert (kind.status == 500) == (kind.code in NOT_TOLD)


@every_kind
async def test_each_is_told_with_its_status_before_an_upgrade_by_the_api_and_on_the_admin_pages(
    kind: type[GatewayError],
) -> None:
    """A fault is no refusal: before an upgrade aiohttp answers it, with the traceback in the log."""

    async def fail(_: web.Request) -> web.StreamResponse:
        raise error

    error = _made(kind)
    answer = answer_to(error)
    assert status_of(error) == error.status
    assert (answer and answer.status) == (None if error.status == 500 else error.status)
    assert problem_of(error).status == error.status
    assert (await say_what_was_wrong(make_mocked_request("GET", "/"), fail)).status == error.status


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_refusals_are_counted_from_the_start(kind: type[GatewayError]) -> None:
    """The rate of a counter that begins with its first event does not know that one."""
    assert kind.status in REFUSED_WITH


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (Unauthorized("who are you?"), {"WWW-Authenticate": "Bearer"}),
        (RateLimited("too fast", retry_after=2.1), {"Retry-After": "3"}),
        (Unavailable("Redis is away"), {"Retry-After": "1"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_answer_says_how_to_be_let_in_and_when_to_try_again(error: GatewayError, headers: dict[str, str]) -> None:
    """The same before an upgrade and by the API."""
    answer = answer_to(error)
    assert answer is not None
    assert headers.items() <= answer.headers.items()
    assert headers.items() <= problem_of(error).headers.items()


@pytest.mark.parametrize(
    ("error", "known_as"),
    [
        (InvalidParam("too long"), web.HTTPBadRequest),
        (Unauthorized("who are you?"), web.HTTPUnauthorized),
        (Forbidden("not there"), web.HTTPForbidden),
        (ConnectionNotFound("gone"), web.HTTPNotFound),
        (TooManyChannels("enough"), web.HTTPConflict),
        (RateLimited("too fast"), web.HTTPTooManyRequests),
        (Unavailable("Redis is away"), web.HTTPServiceUnavailable),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_application_knows_an_answer_by_its_class(error: GatewayError, known_as: type[web.HTTPException]) -> None:
    """As it knows its own: a middleware before ours may show a page for each."""
    assert isinstance(answer_to(error), known_as)
