"""What proxies that we trust say of the client behind them: its address, and how it reached them.

Anybody may send these headers, so they count only from an address in `trusted_proxies`, and of a chain of
addresses only what trusted proxies wrote: the rightmost one that is not itself trusted. Whoever comes over a socket in
the file system has no address; `unix` trusts them.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal, NamedTuple

from aiohttp import web

Networks = Sequence[IPv4Network | IPv6Network | Literal["unix"]]
_Address = IPv4Address | IPv6Address

_BEHIND = web.RequestKey("gateway_behind_proxy", bool)
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
"""Some proxies name the scheme of the socket."""
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
_PAIR = re.compile(r'\s*([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*(;|,|$)')


class Client(NamedTuple):
    """Who is behind a proxy; "" for what it did not say."""

    address: str = ""
    scheme: str = ""
    host: str = ""


def through_proxies(request: web.Request, trusted: Networks) -> web.Request:
    """Return the request as the client sent it to the first proxy; the same one when no trusted proxy sent it.

    Doing it again changes nothing.
    """
    if not trusted or not _came_from_trusted(request, trusted):
        return request
    names = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded")
    client = read({name: ",".join(request.headers.getall(name, ())) for name in names}, trusted)
    target = request.rel_url  # of a request to a proxy it has a host, which aiohttp cannot replace by one with a port
    seen = request.clone(
        rel_url=target.relative() if target.absolute else target,
        remote=client.address or request.remote or "",
        scheme=client.scheme or request.scheme,
        host=client.host or request.host,
    )
    seen[_BEHIND] = any(client)
    return seen


def is_behind_proxy(request: web.Request) -> bool:
    """Tell whether `through_proxies` found a client behind a trusted proxy; a page cannot have its socket say so."""
    return bool(request.get(_BEHIND))


def read(headers: Mapping[str, str], trusted: Networks) -> Client:
    """Read the headers of a request that a trusted proxy sent; what makes no sense counts as not said.

    `X-Forwarded-*` goes before `Forwarded`: nearly all proxies write it, and pass a `Forwarded` on as it came, with
    which a client could otherwise hide. It adds what the others do not say only where both name the same address. A
    proxy that writes nothing but `Forwarded` must take `X-Forwarded-*` away.
    """
    standard = _standard(headers.get("Forwarded", ""), trusted)
    usual = Client(
        _nearest(_parts(headers.get("X-Forwarded-For", "")), trusted),
        _scheme(_last(headers.get("X-Forwarded-Proto", ""))),
        _legal_host(_last(headers.get("X-Forwarded-Host", ""))),
    )
    if usual.address and standard.address != usual.address:
        return usual
    return Client(
        address=usual.address or standard.address,
        scheme=usual.scheme or standard.scheme,
        host=usual.host or standard.host,
    )


def _standard(header: str, trusted: Networks) -> Client:
    """Read a `Forwarded` header (RFC 7239): an element for each proxy, the last one by the nearest."""
    elements = _elements(header)
    address = _nearest([element.get("for", "") for element in elements], trusted)
    for element in reversed(elements):
        if address and _shown(_read_address(element.get("for", ""))) == address:
            return Client(address, _scheme(element.get("proto", "")), _legal_host(element.get("host", "")))
    return Client()


def _elements(header: str) -> list[dict[str, str]]:
    """Cut a `Forwarded` header into its elements; none of a header that is malformed anywhere."""
    elements: list[dict[str, str]] = [{}]
    position = 0
    while position < len(header):
        found = _PAIR.match(header, position)
        if found is None:
            return []
        name, quoted, plain, separator = found.groups()
        elements[-1][name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        position = found.end()
        if separator == ",":
            elements.append({})
    return elements


def _nearest(hops: Iterable[str], trusted: Networks) -> str:
    """Go back along the proxies as far as they are trusted; return the address there."""
    nearest = ""
    for hop in reversed(list(hops)):
        address = _read_address(hop)
        if address is None:
            break
        nearest = _shown(address)
        if not _is_trusted(address, trusted):
            break
    return nearest


def _came_from_trusted(request: web.Request, trusted: Networks) -> bool:
    """Tell whether a trusted proxy sent a request, or it was looked at already, as from a client that is one."""
    if "unix" in trusted and getattr(request.get_extra_info("socket"), "family", None) == socket.AF_UNIX:
        return True
    return _is_trusted(_read_address(request.remote or ""), trusted)


def _is_trusted(address: _Address | None, trusted: Networks) -> bool:
    return address is not None and any(network != "unix" and address in network for network in trusted)


def _read_address(text: str) -> _Address | None:
    """Read an address as proxies write it, with a port or without.

    The scope of a local one (`%eth0`) means nothing to others, and may be any text: it is left out.
    """
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host.partition("%")[0] if ":" in host else host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def _shown(address: _Address | None) -> str:
    return str(address or "")


def _parts(header: str) -> list[str]:
    return [part.strip() for part in header.split(",")] if header else []


def _last(header: str) -> str:
    return header.rpartition(",")[2].strip()


def _scheme(name: str) -> str:
    return _SCHEMES.get(name.lower(), "")


def _legal_host(host: str) -> str:
    return host if _HOST.fullmatch(host) else ""
