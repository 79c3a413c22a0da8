"""One HTTP request at a time, without a session, cookies or redirects."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector, hdrs

__all__ = ["Answer", "get", "open_session", "request"]


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


@asynccontextmanager
async def open_session(**options: Any) -> AsyncIterator[ClientSession]:
    """Open a session whose connections have ended with it.

    Where an answer came before the body had left, aiohttp leaves a connection that still writes, and would outlive
    the test.
    """
    sockets: list[socket.socket] = []

    def keep(address: Any) -> socket.socket:
        sockets.append(socket.socket(*address[:3]))
        return sockets[-1]

    try:
        async with ClientSession(connector=TCPConnector(socket_factory=keep), **options) as session:
            yield session
    finally:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            while each.fileno() >= 0:
                await asyncio.sleep(0)


async def request(method: str, url: str, *, deadline: float = 5.0, **options: Any) -> Answer:
    """Send one request on a connection of its own; `options` are those of aiohttp's `request`.

    Redirects are answers like others. Raises aiohttp's `ClientError` or `OSError` when there is no answer, and
    `TimeoutError` past the deadline.
    """
    options.setdefault("allow_redirects", False)
    headers = {hdrs.CONNECTION: "close"} | dict(options.pop("headers", None) or {})
    async with (
        open_session(timeout=ClientTimeout(total=deadline)) as session,
        session.request(method, url, headers=headers, **options) as response,
    ):
        return Answer(response.status, response.headers, await response.read())


async def get(url: str, *, deadline: float = 5.0, **options: Any) -> Answer:
    """GET an address; see `request`."""
    return await request("GET", url, deadline=deadline, **options)
