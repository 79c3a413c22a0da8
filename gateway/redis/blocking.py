"""A link that works while the event loop is blocked: used from another thread, over a connection of its own.

There is no such connection while all is well. It is opened for each command, which is the renewal of a lease, to the
server that the node's own link led to when the loop stopped. redis-py's blocking client serves here: nothing in it
needs the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from gateway.config.redis_url import RedisAddress
from gateway.errors import Unavailable
from gateway.redis.link import Command

TIMEOUT = 2.0
"""Seconds for connecting, and again for each answer; a few of these fit into the 7 s or more that a lease has left."""


class BlockingLink:
    """Sends one command over a connection opened for it; to be called by a thread other than the loop's."""

    def __init__(self, url: str, name: str, server: Callable[[], str]) -> None:
        self._address = RedisAddress.parse(url)
        self._name = name
        self._server = server
        """Returns the server to use now, as `host:port`. Only asked where the URL names sentinels or a cluster.

        It is called by the other thread, so it may only read what the blocked loop left behind.
        """

    def call(self, command: Command) -> Any:
        """Send a command and return the answer. Blocks for a few times `TIMEOUT` at most.

        Raises `Unavailable` when Redis refuses it, cannot be reached, or does not answer in time: then the command may
        have been carried out or not.
        """
        try:
            try:
                return self._send(command, client_name=self._name)
            except NoPermissionError:
                # Probably CLIENT SETNAME is forbidden: the lease matters more than a name in CLIENT LIST.
                return self._send(command)
        except (RedisError, OSError) as error:
            raise Unavailable(f"Redis did not answer: {error}") from None

    def _send(self, command: Command, **options: Any) -> Any:
        # No retries: they would take the time in which the caller has to renew again.
        options |= {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "retry": Retry(NoBackoff(), 0)}
        with Redis.from_url(self._url(), **options) as client:
            return client.execute_command(*command)

    def _url(self) -> str:
        if self._address.kind == "single":
            return self._address.url
        host, _, port = self._server().rpartition(":")
        if not host:
            raise Unavailable("no server was known when the event loop stopped")
        url = urlsplit(self._address.url)
        login, at, _ = url.netloc.rpartition("@")
        return url._replace(netloc=f"{login}{at}{f'[{host}]' if ':' in host else host}:{port}").geturl()
