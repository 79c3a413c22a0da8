"""Reads the options of a Redis URL (`?ssl_ca_certs=...`) as redis-py does, and makes the TLS context of them."""

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
    """Let redis-py parse the URLs, and load the files for TLS, without connecting. Raises `ValueError`: the reason."""
    for url in filter(None, (address.url, address.sentinel_url)):
        try:
            ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
            encryption_of(url)
        except TypeError as error:  # "... unexpected keyword argument NAME" is all that redis-py says
            raise ValueError(f"expected options that redis-py knows, got {str(error).rpartition(' ')[2]}") from None
        except (OSError, RedisError) as error:
            raise ValueError(str(error)) from None


def options_of(url: str) -> dict[str, Any]:
    """Return the arguments of redis-py's connection for this URL, with its `connection_class` among them."""
    return dict(parse_url(url))


def encryption_of(url: str) -> SSLContext | None:
    """Return the TLS context for connections, with the certificates as they are on disk now; None without TLS.

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
    """Make the context, which blocks the loop for some 40 ms: too long for every time a node dials.

    `changed` are the times of the files, so that a renewed certificate makes another context.
    """
    options = options_of(url)
    del options["connection_class"]
    return SSLConnection(**options).ssl_context.get()
