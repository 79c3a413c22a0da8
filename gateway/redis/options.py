"""What stands behind the `?` of a Redis URL: redis-py's options, among them those of TLS."""

from __future__ import annotations

import os
from functools import lru_cache
from ssl import SSLContext
from typing import Any

from redis.asyncio.connection import ConnectionPool, SSLConnection, parse_url
from redis.exceptions import RedisError

from gateway.config.redis_url import RedisAddress

_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")


def check(address: RedisAddress) -> None:
    """Try what redis-py would make of it, without connecting. Raises `ValueError`, saying what was wrong."""
    for url in filter(None, (address.url, address.sentinel_url)):
        try:
            ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
            encryption_of(url)
        except TypeError as error:  # with the name of an argument at its end
            raise ValueError(f"expected options that redis-py knows, got {str(error).rpartition(' ')[2]}") from None
        except (OSError, RedisError) as error:
            raise ValueError(str(error)) from None


def options_of(url: str) -> dict[str, Any]:
    """Return what redis-py would make a connection of, and the `connection_class` that it would take."""
    return dict(parse_url(url))


def encryption_of(url: str) -> SSLContext | None:
    """Return what encrypts connections, with its files as they are now; None without TLS.

    Raises `OSError`, naming the files, and `RedisError` for options that make no sense.
    """
    options = options_of(url)
    if options.pop("connection_class", None) is not SSLConnection:
        return None
    files = {name: str(options[name]) for name in _FILES if name in options}
    try:
        return _encryption(url, tuple(os.stat(file).st_mtime_ns for file in files.values()))
    except OSError as error:
        named = [f"{name}={file}" for name, file in files.items()]
        raise OSError(f"cannot use {', '.join(named) or 'TLS'}: {error.strerror or error}") from None


@lru_cache(maxsize=8)
def _encryption(url: str, changed: tuple[int, ...]) -> SSLContext:
    """Make it; that takes some 40 ms, too many for every time a node dials."""
    options = options_of(url)
    del options["connection_class"]
    return SSLConnection(**options).ssl_context.get()
