"""Renews a node's lease while its event loop is blocked: from another thread, over a connection of its own.

There is no such connection while all is well. It is opened for each renewal, to the server that the node's own
link led to when the loop stopped.
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
"""Seconds for each step; a few of them must fit into what is left of a lease."""


class BlockingLink:
    """Sends one command when it has to, and waits for it."""

    def __init__(self, url: str, name: str, server: Callable[[], str]) -> None:
        self._address = RedisAddress.parse(url)
        self._name = name
        self._server = server
        """Names the server of now, as `host:port`; asked only where the URL names several."""

    def call(self, command: Command) -> Any:
        """Send a command and return the answer. Blocks. Raises `Unavailable`."""
        try:
            try:
                return self._send(command, client_name=self._name)
            except NoPermissionError:  # the name is not worth a lease
                return self._send(command)
        except (RedisError, OSError) as error:
            raise Unavailable(f"Redis did not answer: {error}") from None

    def _send(self, command: Command, **options: Any) -> Any:
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
