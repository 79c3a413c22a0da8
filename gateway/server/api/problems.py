"""What goes wrong, as RFC 9457 problem documents."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from aiohttp import web
from pydantic import ValidationError

from gateway import errors
from gateway.access.upgrade import headers_of

_FIELDS: dict[type[errors.GatewayError], str] = {errors.InvalidChannel: "channel", errors.InvalidUser: "user"}


class Refused(errors.GatewayError):
    """What a request is refused for before the service has a say."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, field: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers
        self.field = field


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, code: str = "", field: str = ""
) -> web.Response:
    """Make a problem document."""
    said = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    said |= {name: value for name, value in (("code", code), ("field", field)) if value}
    return web.Response(
        body=orjson.dumps(said), status=status, content_type="application/problem+json", headers=headers
    )


def problem_of(error: errors.GatewayError) -> web.Response:
    """Make the problem document of what the gateway refused."""
    if isinstance(error, Refused):
        return problem(error.status, error.message, headers=error.headers, field=error.field)
    field = error.fields.get("field") or _FIELDS.get(type(error), "")
    code = "" if error.status == 404 else error.code  # which is not made for what is asked of the API alone
    return problem(error.status, error.message, headers=headers_of(error), code=code, field=str(field))


def refusal_of(error: ValidationError) -> Refused:
    """Say which field of a request is wrong, and how."""
    first, *_ = error.errors(include_url=False, include_context=False)
    field = ".".join(map(str, first["loc"]))
    reason = "is not known" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    return Refused(400, f"{field}: {reason}" if field else reason, field=field)
