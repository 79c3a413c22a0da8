"""One HTTP request at a time, without a session, cookies or redirects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession, ClientTimeout, hdrs

__all__ = ["Answer", "get", "request"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    # Found in any case.
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body's JSON value."""
        return json.loads(self.body)


async def request(method: str, url: str, *, deadline: float = 5.0, **options: Any) -> Answer:
    """Send one request on a connection of its own; `options` are those of aiohttp's `request`.

    Redirects are answers like others. Raises aiohttp's `ClientError` or `OSError` when there is no answer, and
    `TimeoutError` past the deadline.
    """
    options.setdefault("allow_redirects", False)
    headers = {hdrs.CONNECTION: "close"} | dict(options.pop("headers", None) or {})
    async with (
        ClientSession(timeout=ClientTimeout(total=deadline)) as session,
        session.request(method, url, headers=headers, **options) as response,
    ):
        return Answer(response.status, response.headers, await response.read())


async def get(url: str, *, deadline: float = 5.0, **options: Any) -> Answer:
    """GET an address; see `request`."""
    return await request("GET", url, deadline=deadline, **options)
