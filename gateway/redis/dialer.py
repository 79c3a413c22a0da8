"""Connects to one Redis server and logs in: the way from a URL to a link that is ready for use."""

from __future__ import annotations

import asyncio
from ssl import SSLError
from typing import Protocol

from gateway.config.redis_url import SENTINEL_FORM
from gateway.redis.link import Command, Link, LinkLost, Received, RedisRefused
from gateway.redis.options import encryption_of, options_of

DIAL_TIMEOUT = 3.0
"""Seconds to connect and log in. A SYN that was lost is sent again after one second, and then after two (RFC 6298)."""
HANDSHAKE_TIMEOUT = 2.0
"""Seconds for TLS within those: it fails first, so that the error can name TLS as what was not answered."""


class Dials(Protocol):
    """Opens links to whatever server is the master at the moment."""

    async def dial(self, received: Received | None = None) -> Link:
        """Connect, log in, and return a link to a master; its replies go to `received`, or to whoever asks over it.

        Raises `OSError`, `TimeoutError`, `LinkLost` or `RedisRefused`; then no connection is left open.
        """

    async def is_stale(self, link: Link) -> bool:
        """Tell whether `dial` would lead to another server by now; False where that cannot be found out.

        Raises `RedisRefused` when those who know (sentinels) refuse to say.
        """


class Dialer:
    """Opens links to one server; user, password, database and TLS are given as in redis-py's URLs."""

    def __init__(self, url: str, name: str, *, host: str = "", port: int = 0) -> None:
        self._url = url
        self._options = options_of(url)
        self._name = name
        self._host = host or str(self._options.get("host", "localhost"))
        self._port = port or int(self._options.get("port", 6379))

    async def dial(self, received: Received | None = None, *, master: bool = True) -> Link:
        """Connect and log in; with `master`, refuse a server that says it is a replica or a sentinel."""
        async with asyncio.timeout(DIAL_TIMEOUT):
            link = await self._connect()
            try:
                await self._greet(link, master=master)
            except LinkLost:
                raise ConnectionResetError(self._hung_up()) from None
            except BaseException:  # cancelled by the timeout as well: nobody else knows of this connection yet
                link.abort()
                raise
        # Not before: the answers to the log-in would have gone to `received`, which knows nothing of it.
        link.hand_to(received)
        return link

    async def is_stale(self, link: Link) -> bool:
        return False

    async def _connect(self) -> Link:
        loop = asyncio.get_running_loop()
        if "path" in self._options:
            return (await loop.create_unix_connection(Link, str(self._options["path"])))[1]
        context = encryption_of(self._url)
        patience = HANDSHAKE_TIMEOUT if context else None  # asyncio refuses a number where there is no TLS
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
        """Log in, and make sure that the server is ready.

        All of it leaves in one write, and Redis answers in order: where the password is wrong, its refusal of AUTH is
        what is raised, not those of the commands behind it.
        """
        *_, role = await asyncio.gather(
            *(link.call(*command) for command in self._login()),
            link.inquire("CLIENT", "SETNAME", self._name),
            # A server that cannot save refuses even PING, and yet carries messages.
            link.inquire("PING", tolerating=("MISCONF",)),
            link.inquire("ROLE"),  # where it is forbidden the answer is None, and the server is taken for a master
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
    """Raise `RedisRefused` if this answer to ROLE is that of a replica or a sentinel; None passes."""
    match role:
        case [b"slave", *_]:
            raise RedisRefused("READONLY this server is a replica")
        case [b"sentinel", *_]:
            raise RedisRefused(f"ERR this is a sentinel: expected {SENTINEL_FORM}")
