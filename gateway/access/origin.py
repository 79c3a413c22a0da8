"""The origin check, one for sockets, pages, actions and cookies: whether a request comes from a page of our own.

An origin is scheme, host and port, each as the browser has it: what the proxies that we trust say of them counts, and
the port that a scheme implies is filled in. Pages of other origins are let in by `allowed_origins`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import NamedTuple

from aiohttp import web

from gateway.access.proxies import is_behind_proxy, through_proxies
from gateway.config import Settings

_ANY = "*"
_NOBODY = "null"
"""What browsers send for pages of no site, such as a sandboxed frame of any."""
_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(?::(\d{1,5}))?", re.IGNORECASE)
_PORTS = {"http": "80", "https": "443"}


class Site(NamedTuple):
    """An origin, taken apart."""

    scheme: str
    host: str
    port: str


def refuse_foreign_socket(request: web.Request, settings: Settings) -> None:
    """Raise 403 for a page of another site, which would act with this user's cookies (RFC 6455 section 10.2).

    A request without `Origin` comes from no browser and passes; `*` lets in pages of any.
    """
    _refuse(request, settings, settings.allowed_origins)


def refuse_foreign_page(request: web.Request, settings: Settings) -> None:
    """Raise 403 unless one of an operator's pages asks: `*` lets nobody act with an operator's session, nor `null`.

    What the browser itself calls foreign is, whatever is allowed: nobody else has a reason to ask this.
    """
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise web.HTTPForbidden(text="this may only be asked from the admin pages themselves\n")
    _refuse(request, settings, [origin for origin in _named(settings) if origin != _NOBODY])


def is_foreign(request: web.Request, settings: Settings) -> bool:
    """Tell whether this comes from a page of another site that is not among those allowed by name."""
    return bool(_trouble(request, settings, _named(settings)))


def is_loopback(host: str) -> bool:
    """Tell whether an address, or a name that is never anything else, is this machine's own."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _refuse(request: web.Request, settings: Settings, allowed: Collection[str]) -> None:
    if trouble := _trouble(request, settings, allowed):
        raise web.HTTPForbidden(text=f"{trouble}\n")


def _named(settings: Settings) -> Collection[str]:
    return [origin for origin in settings.allowed_origins if origin != _ANY]


def _trouble(request: web.Request, settings: Settings, allowed: Collection[str]) -> str:
    """Say in one line why the page that sends a request may not, and what would let it; "" when it may."""
    origins = request.headers.getall("Origin", ())
    if not origins:
        return ""
    if len(origins) > 1:  # whoever looked at the other one let in somebody else
        return f"expected one Origin, got {len(origins)}"
    (origin,) = origins
    if _ANY in allowed or origin in allowed:
        return ""
    request = through_proxies(request, settings.trusted_networks)
    page, here = _site(origin), _site(f"{request.scheme}://{request.host}")
    refused = f"origin {origin!r} is not allowed to connect"
    if page is None or here is None or page.host != here.host:
        return f"{refused}; see allowed_origins"
    if page.scheme != here.scheme and page.port in (here.port, _PORTS[page.scheme]):
        return (
            f"{refused}: it came to this node by {here.scheme}. Where a proxy in front speaks {page.scheme}, name it "
            "in trusted_proxies and have it send X-Forwarded-Proto, or name the origin in allowed_origins"
        )
    if page != here:
        return f"{refused}; see allowed_origins"
    if _may_be_rebound(request, settings, here):
        return (
            f"{refused}: {here.host} is no name of this machine, to which alone this node listens. Name the origin in "
            "allowed_origins, or the proxy that it came through in trusted_proxies"
        )
    return ""


def _may_be_rebound(request: web.Request, settings: Settings, here: Site) -> bool:
    """Tell whether a page may have come here by a name whose DNS was turned to this machine once it was loaded.

    Then it has our host for its own, and the same origin. A node that listens on loopback is known by loopback names,
    or through a proxy that says so; names for other addresses nobody can tell from the right ones.
    """
    if not is_loopback(settings.host) or is_behind_proxy(request):
        return False
    if is_loopback(here.host) or here.host.rstrip(".").endswith(".localhost"):
        return False
    return here.host not in {site.host for site in map(_site, settings.allowed_origins) if site} and _is_local(request)


def _is_local(request: web.Request) -> bool:
    """Tell whether a connection arrived on loopback: an application may listen elsewhere than its settings say."""
    address = request.get_extra_info("sockname")
    return isinstance(address, tuple) and is_loopback(str(address[0]).removeprefix("::ffff:"))


def _site(origin: str) -> Site | None:
    """Take an origin apart; None for what has no host, or is not of the web."""
    if (parts := _ORIGIN.fullmatch(origin)) is None:
        return None
    scheme, host, port = parts.groups()
    return Site(scheme.lower(), host.lower(), port or _PORTS[scheme.lower()])
