"""Where Redis is: the URLs of redis-py, and two that name several servers, which it does not know."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, quote, urlencode

SENTINEL_FORM = "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB"
CLUSTER_FORM = "redis+cluster://HOST:PORT,HOST:PORT"
_PORTS = {"sentinel": 26379, "cluster": 6379}

Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """One server, the sentinels that know which one is the master, or members of a cluster."""

    kind: Literal["single", "sentinel", "cluster"]
    url: str
    """Of one server, as redis-py takes it; with several, of any of them, whose host is to be put in its place."""
    hosts: tuple[Host, ...] = ()
    """The sentinels, or the members named."""
    service: str = ""
    """Under which the sentinels know the master."""
    sentinel_url: str = ""
    """How to log in to a sentinel, in the same form."""

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """Read a URL. Raises `ValueError`, saying what was expected."""
        scheme, _, rest = url.partition("://")
        plain, _, kind = scheme.partition("+")
        if kind == "sentinel":
            return _sentinel(plain, rest)
        if kind == "cluster":
            return _cluster(plain, rest)
        path = rest.partition("?")[0].partition("/")[2].strip("/")
        if plain != "unix" and path and not path.isdecimal():
            raise ValueError(f"expected {scheme}://HOST:PORT/NUMBER, the number that of a database")
        return cls("single", url)


def _sentinel(scheme: str, rest: str) -> RedisAddress:
    login, hosts, path, options = _parts(rest, "sentinel", SENTINEL_FORM)
    service, _, database = path.partition("/")
    if not service or not (database or "0").isdecimal():
        raise ValueError(f"expected {SENTINEL_FORM}, with the name of the master and a number")
    user, password = options.pop("sentinel_username", ""), options.pop("sentinel_password", "")
    own_login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
    encryption = {name: value for name, value in options.items() if name.startswith("ssl_")}
    return RedisAddress(
        "sentinel",
        f"{scheme}://{login}localhost/{database or 0}{_query(options)}",
        hosts,
        service,
        f"{scheme}://{own_login}localhost{_query(encryption)}",
    )


def _cluster(scheme: str, rest: str) -> RedisAddress:
    login, hosts, path, options = _parts(rest, "cluster", CLUSTER_FORM)
    if path not in ("", "0"):
        raise ValueError(f"expected {CLUSTER_FORM}, since a cluster has no databases")
    return RedisAddress("cluster", f"{scheme}://{login}localhost{_query(options)}", hosts)


def _parts(rest: str, kind: str, form: str) -> tuple[str, tuple[Host, ...], str, dict[str, str]]:
    """Split what follows the scheme: log-in with its `@`, hosts, path, options."""
    location, _, query = rest.partition("?")
    authority, _, path = location.partition("/")
    login, at, names = authority.rpartition("@")
    hosts = tuple(_host(name, _PORTS[kind], form) for name in names.split(","))
    return login + at, hosts, path.rstrip("/"), dict(parse_qsl(query))


def _host(name: str, default: int, form: str) -> Host:
    host, colon, port = name.rpartition(":")
    if not colon or name.endswith("]"):
        host, port = name, str(default)
    if not host.strip("[]") or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"expected {form}, with {name!r} a host and a port")
    return host.strip("[]"), int(port)


def _query(options: dict[str, str]) -> str:
    return f"?{urlencode(options)}" if options else ""


def without_password(url: str) -> str:
    """Return a URL as it may be shown in a log: a password may stand before the hosts, and in the query."""
    return re.sub(r"(?<=password=)[^&]*", "***", re.sub(r"(?<=://)([^/@]*):[^/]*@", r"\1:***@", url))
