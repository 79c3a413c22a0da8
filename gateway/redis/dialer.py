"""Opens links."""

from __future__ import annotations

import asyncio
from ssl import SSLError
from typing import Protocol

from gateway.config.redis_url import SENTINEL_FORM
from gateway.redis.link import Command, Link, LinkLost, Received, RedisRefused
from gateway.redis.options import encryption_of, options_of

DIAL_TIMEOUT = 3.0
HANDSHAKE_TIMEOUT = 2.0
"""Of TLS: sooner, so that it can be named as what is not answered."""


class Dials(Protocol):
    """Knows the way to a master, however often that changes."""

    async def dial(self, received: Received | None = None) -> Link:
        """Connect and log in. Raises `OSError`, `TimeoutError`, `LinkLost` or `RedisRefused`."""

    async def is_stale(self, link: Link) -> bool:
        """Tell whether `dial` would lead elsewhere by now; who cannot tell says no.

        Raises `RedisRefused` where whoever knows refuses to tell.
        """


class Dialer:
    """Opens links to one server; users, passwords, database and TLS as in redis-py's URLs."""

    def __init__(self, url: str, name: str, *, host: str = "", port: int = 0) -> None:
        self._url = url
        self._options = options_of(url)
        self._name = name
        self._host = host or str(self._options.get("host", "localhost"))
        self._port = port or int(self._options.get("port", 6379))

    async def dial(self, received: Received | None = None, *, master: bool = True) -> Link:
        """Connect and log in; with `master`, make sure that it is one."""
        async with asyncio.timeout(DIAL_TIMEOUT):
            link = await self._connect()
            try:
                await self._greet(link, master=master)
            except LinkLost:
                raise ConnectionResetError(self._hung_up()) from None
            except BaseException:
                link.abort()
                raise
        link.hand_to(received)
        return link

    async def is_stale(self, link: Link) -> bool:
        return False

    async def _connect(self) -> Link:
        loop = asyncio.get_running_loop()
        if "path" in self._options:
            return (await loop.create_unix_connection(Link, str(self._options["path"])))[1]
        context = encryption_of(self._url)
        patience = HANDSHAKE_TIMEOUT if context else None
        address = (self._host, self._port)
        try:
            link = (await loop.create_connection(Link, *address, ssl=context, ssl_handshake_timeout=patience))[1]
        except SSLError as error:
            if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
                raise ConnectionError(f"{error.strerror or error}; it may expect no TLS (redis://)") from None
            raise
        except ConnectionAbortedError as error:  # the handshake took too long
            raise ConnectionError(f"{error.strerror or error}; it may expect no TLS (redis://)") from None
        link.address = f"{self._host}:{self._port}"
        return link

    async def _greet(self, link: Link, *, master: bool) -> None:
        """Log in, and make sure that the server is ready."""
        *_, role = await asyncio.gather(
            *(link.call(*command) for command in self._login()),
            link.inquire("CLIENT", "SETNAME", self._name),
            # A server that cannot save refuses even PING, and yet carries messages.
            link.inquire("PING", tolerating=("MISCONF",)),
            link.inquire("ROLE"),  # where it is forbidden, hope
        )
        if master:
            check_role(role)

    def _hung_up(self) -> str:
        hint = (
            "it may want a certificate (ssl_certfile)"
            if self._url.startswith("rediss")
            else "it may expect TLS (rediss://)"
        )
        return f"it hung up before it answered; {hint}"

    def _login(self) -> list[Command]:
        user, password = self._options.get("username"), self._options.get("password")
        commands: list[Command] = []
        if password:
            commands.append(("AUTH", *(part for part in (user, password) if part)))
        if database := int(self._options.get("db") or 0):
            commands.append(("SELECT", database))
        return commands


def check_role(role: object) -> None:
    """Raise `RedisRefused` for the answer that a replica gives to ROLE."""
    match role:
        case [b"slave", *_]:
            raise RedisRefused("READONLY this server is a replica")
        case [b"sentinel", *_]:
            raise RedisRefused(f"ERR this is a sentinel: expected {SENTINEL_FORM}")
