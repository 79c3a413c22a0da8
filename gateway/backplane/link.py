"""One connection to one Redis server, spoken to without waiting.

redis-py's asyncio client costs 16 microseconds of CPU a message read, repeats a PUBLISH whose fate is
unknown, and swallows cancellation on Python 3.11; this reads at 1 microsecond, and a link that breaks
says so once and is never used again. What redis-py knows about URLs and TLS is taken from it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

import hiredis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from gateway.errors import GatewayError

logger = logging.getLogger(__name__)

DIAL_TIMEOUT = 5.0
FIRST_RETRY, LAST_RETRY = 0.05, 2.0

Command = tuple[str | bytes | int | float, ...]


class LinkLost(GatewayError):
    """The connection to Redis broke; whether commands under way were carried out is not known."""

    code = "unavailable"


class RedisRefused(GatewayError):
    """Redis answered with an error: the text begins with its code, such as NOAUTH or READONLY."""

    code = "unavailable"


class Link(asyncio.Protocol):
    """Pipelines commands: what is sent in one loop tick leaves in one write, replies come in order."""

    def __init__(self, received: Callable[[list[Any]], None] | None = None) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._received = received
        """Takes whole batches of replies, where pushes come unasked; else they go to the futures of `send`."""
        self._reader = hiredis.Reader(replyError=RedisRefused, protocolError=ConnectionError)
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._replies: deque[asyncio.Future[Any]] = deque()

    def send(self, reply: asyncio.Future[Any], *command: str | bytes | int | float) -> None:
        """Send a command whose answer, or `LinkLost` or `RedisRefused`, goes to `reply`."""
        if self.lost.done():
            _fail(reply, LinkLost("the connection to Redis is lost"))
            return
        self._replies.append(reply)
        self.write(*command)

    async def call(self, *command: str | bytes | int | float) -> Any:
        """Send one command and wait for its answer."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.send(reply, *command)
        return await reply

    def write(self, *command: str | bytes | int | float) -> None:
        """Send a command whose answer comes to `received`."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(hiredis.pack_command(command))  # type: ignore[arg-type]

    def abort(self) -> None:
        """Break the connection at once: what waits is answered with `LinkLost`."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(unsent))

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        replies = []
        while (reply := self._reader.gets()) is not False:
            replies.append(reply)
        if self._received is not None:
            self._received(replies)
        else:
            self._settle(replies)

    def _settle(self, replies: list[Any]) -> None:
        for value in replies:
            reply = self._replies.popleft()
            if reply.done():
                continue
            if isinstance(value, RedisRefused):
                reply.set_exception(value)
            else:
                reply.set_result(value)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.lost.set_result(None)
        while self._replies:
            _fail(self._replies.popleft(), LinkLost("the connection to Redis broke"))


def _fail(reply: asyncio.Future[Any], error: Exception) -> None:
    if not reply.done():
        reply.set_exception(error)


class Dialer:
    """Opens links to the Redis that a URL names; users, passwords, database and TLS as in redis-py's URLs."""

    def __init__(self, url: str, name: str) -> None:
        options = dict(parse_url(url))
        self._kind = options.pop("connection_class", None)
        self._options: dict[str, Any] = options
        self._name = name

    async def dial(self, received: Callable[[list[Any]], None] | None = None) -> Link:
        """Connect and log in. Raises `OSError`, `TimeoutError`, `LinkLost` or `RedisRefused`."""
        async with asyncio.timeout(DIAL_TIMEOUT):
            link = await self._connect()
            try:
                for command in self._greeting():
                    await link.call(*command)
            except BaseException:
                link.abort()
                raise
        link._received = received
        return link

    async def _connect(self) -> Link:
        loop = asyncio.get_running_loop()
        if self._kind is UnixDomainSocketConnection:
            return (await loop.create_unix_connection(Link, str(self._options["path"])))[1]
        context = SSLConnection(**self._options).ssl_context.get() if self._kind is SSLConnection else None
        host, port = self._options.get("host", "localhost"), self._options.get("port", 6379)
        return (await loop.create_connection(Link, host, port, ssl=context))[1]

    def _greeting(self) -> list[Command]:
        user, password = self._options.get("username"), self._options.get("password")
        commands: list[Command] = []
        if password:
            commands.append(("AUTH", *(part for part in (user, password) if part)))
        if database := int(self._options.get("db") or 0):
            commands.append(("SELECT", database))
        return [*commands, ("CLIENT", "SETNAME", self._name), ("PING",)]


async def stay_connected(
    dial: Callable[[], Awaitable[Link]], use: Callable[[Link], Awaitable[None]], what: str
) -> None:
    """Dial, hand the link to `use` until it is lost, and dial again, with full jitter; for ever.

    An outage is logged when it begins, when its cause changes, and when it is over.
    """
    pause, trouble = FIRST_RETRY, ""
    while True:
        try:
            link = await dial()
            if trouble:
                logger.warning("%s: connected to Redis again", what)
            pause, trouble = FIRST_RETRY, ""
            try:
                await use(link)
            finally:
                link.abort()
        except (OSError, TimeoutError, LinkLost, RedisRefused) as error:
            if trouble != (trouble := f"{type(error).__name__} {error}".strip()):
                logger.warning("%s: no connection to Redis: %s", what, trouble)
        await asyncio.sleep(random.uniform(0, pause))
        pause = min(pause * 2, LAST_RETRY)
