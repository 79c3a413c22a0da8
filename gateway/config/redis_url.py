"""Where Redis is: the URLs of redis-py, and two that name several servers, which it does not know."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

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
        raise ValueError(f"expected {form}, with ports from 1 to 65535")
    return host.strip("[]"), int(port)


def _query(options: dict[str, str]) -> str:
    return f"?{urlencode(options)}" if options else ""


def database_of(url: str) -> int:
    """Return the number of the database that a URL names, as redis-py reads it: in the query, or in the path."""
    parts = urlsplit(RedisAddress.parse(url).url)
    path = parts.path.strip("/") if parts.scheme in ("redis", "rediss") else ""
    number = dict(parse_qsl(parts.query)).get("db", path)
    return int(number) if number.isdecimal() and len(number) < 10 else 0


# ---- what may be shown

_SCHEMES = frozenset({"redis", "rediss", "unix", "memory", "sentinel", "cluster", "http", "https", "tcp", "valkey"})
_HOST = r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?:\d{1,5}|port|PORT))?"
"""With what may be a port, or is where examples have one."""
_PLAIN = re.compile(
    rf"""([A-Za-z+]{{1,30}})://
    ([^/?#]*@)?                                    # whatever stands before the last @ is the log-in, or a part of it
    ((?:{_HOST}(?:,{_HOST})*)?)
    ((?:/[A-Za-z0-9._-]{{1,64}})?(?:/\d{{0,4}})?|(?<=://)/[A-Za-z0-9._/-]{{1,200}}|(?<=@)/[A-Za-z0-9._/-]{{1,200}})
    (?:\?([^@]*))?""",
    re.VERBOSE,
)
_LOGIN = re.compile(r"([A-Za-z0-9._-]{1,64}):[^:@\s]+@")
_OPTION = re.compile(r"([a-z_]{1,40})=(.*)", re.DOTALL)
_SECRET = re.compile("pass|pwd|user|secret|token|auth|login|cred|^key")
_HARMLESS = re.compile(r"\d{1,3}(?:\.\d)?|true|false", re.IGNORECASE)
_TLS = re.compile(r"[A-Za-z0-9._/-]{1,200}")
_STUB = re.compile(r"localhost(?::\d{1,5})?|rediss?:?/?\w?|:/*")
"""What is too short of a URL to hide anything."""
HIDDEN = "***"


def without_password(url: str) -> str:
    """Return of a URL what may be shown to anybody, in a log or on a page.

    Only what is known to be harmless is: scheme, user, hosts, database or service, names of options, and the values
    of a few. A password that was not encoded may stand anywhere, cut in two by its own `@`, `/`, `?` or `#`: of a URL
    that does not have exactly the form of one, no more than the scheme is shown.
    """
    if _STUB.fullmatch(url):
        return url
    scheme, separator, _ = url.partition("://")
    known = scheme.lower() if separator and _SCHEMES.issuperset(scheme.lower().split("+")) else HIDDEN
    found = _PLAIN.fullmatch(url)
    if found is None or not _is_plausible(known, *found.group(2, 3, 4)):
        return f"{known}://{HIDDEN}" if separator else HIDDEN
    _, login, hosts, path, query = found.groups()
    user = _LOGIN.fullmatch(login or "")
    shown_login = f"{user[1]}:{HIDDEN}@" if user else f"{HIDDEN}@" if login else ""
    options = "?" + "&".join(map(_shown_option, query.split("&"))) if query else ""
    return f"{known}://{shown_login}{hosts}{path}{options}"


def without_secrets(text: str, url: str) -> str:
    """Return what somebody else says of a URL, or "" where that could tell what is hidden of it."""
    shown = set(_words(without_password(url)))
    return "" if any(word in text for word in _words(url) if word not in shown) else text


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^A-Za-z0-9_.-]+", text) if len(word) > 1]


def _is_plausible(scheme: str, login: str | None, hosts: str, path: str) -> bool:
    """Tell whether the parts can be what they stand for: where they cannot, one may be a password."""
    if login == "@":
        return False
    if scheme in ("unix", "memory"):
        return not hosts
    is_database = "sentinel" in scheme or re.fullmatch(r"(/\d{0,4})?", path) is not None
    is_one = "," not in hosts or "+" in scheme
    return bool(hosts) and is_database and is_one


def _shown_option(option: str) -> str:
    found = _OPTION.fullmatch(option)
    if found is None:
        return HIDDEN
    name, value = found.groups()
    is_secret = _SECRET.search(name)
    is_shown = not is_secret and (_HARMLESS.fullmatch(value) or (name.startswith("ssl_") and _TLS.fullmatch(value)))
    return option if is_shown else f"{name}={HIDDEN}"
