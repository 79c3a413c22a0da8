"""What stands before every admin page: whether the pages exist at all, who asks, and from which page.

Without a password the pages exist only for a browser on the node's own machine: the node is bound to a loopback
address, the request came straight from one, and its `Host` is a loopback name, which a page that was led here by
its DNS cannot have.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote, urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.admin.session import Attempts, Session, Signer, begin
from gateway.config import Settings
from gateway.errors import GatewayError, Unavailable

COOKIE = "gateway_admin"
PREFIX = "/admin/websocket"
SAFE = ("GET", "HEAD")
OPEN_TO_ALL = ("/login",)
_FORWARDED = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

SESSION = web.RequestKey("gateway_admin_session", Session)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """Lets operators in."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._signer = Signer(settings.admin_password, settings.prefix) if settings.admin_password else None
        self._attempts = Attempts()

    @property
    def asks_password(self) -> bool:
        return self._signer is not None

    # ---- for each request

    def middleware(self) -> Middleware:
        """Return what aiohttp runs before every handler of the admin's own application."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not self.exists_for(request):
                raise web.HTTPNotFound
            session = request[SESSION] = self._session(request)
            if not session.is_operator and request.path.removeprefix(PREFIX) not in OPEN_TO_ALL:
                return self._to_login(request)
            if request.method not in SAFE:
                refuse_foreign(request)
                await _refuse_forged(request, session)
            try:
                response = await handler(request)
            except web.HTTPException as error:
                error.headers.update(HEADERS)
                raise
            if not response.prepared:
                response.headers.update(HEADERS)
                self._renew(request, response, session)
            return response

        return guard

    def exists_for(self, request: web.Request) -> bool:
        """Tell whether there are admin pages for this request."""
        if self.asks_password:
            return True
        remote = request.remote or ""
        return (
            is_loopback(self._settings.host)
            and is_loopback(remote)
            and is_loopback(_host_of(f"//{request.headers.get('Host', '')}"))
            and not any(name in request.headers for name in _FORWARDED)
        )

    def _session(self, request: web.Request) -> Session:
        cookie, now = request.cookies.get(COOKIE, ""), time.time()
        if self._signer is not None:
            return self._signer.read(cookie, now) or begin(now, is_operator=False)
        known = begin(now, is_operator=True)  # nothing to sign: the cookie only stands against forged requests
        return Session(cookie, known.began, known.until, True) if 20 <= len(cookie) <= 100 else known

    def _renew(self, request: web.Request, response: web.StreamResponse, session: Session) -> None:
        now = time.time()
        if COOKIE in response.cookies:
            return
        if self.asks_password and session.is_operator and session.is_due(now):
            self.set_cookie(request, response, session.renewed(now))
        elif not session.is_operator or self._written(session) != request.cookies.get(COOKIE):
            self.set_cookie(request, response, session)

    def _written(self, session: Session) -> str:
        return session.id if self._signer is None else self._signer.write(session)

    def set_cookie(self, request: web.Request, response: web.StreamResponse, session: Session) -> None:
        is_secure = request.secure or request.headers.get("X-Forwarded-Proto", "").split(",")[0].strip() == "https"
        response.set_cookie(
            COOKIE, self._written(session), path=PREFIX, httponly=True, samesite="Strict", secure=is_secure
        )

    def _to_login(self, request: web.Request) -> web.StreamResponse:
        if request.method not in SAFE or request.headers.get("Upgrade"):
            raise web.HTTPUnauthorized(text="the session is over: log in again\n", headers=HEADERS)
        raise web.HTTPFound(f"{PREFIX}/login?next={quote(request.path_qs, safe='')}", headers=HEADERS)

    # ---- logging in

    def wait(self, request: web.Request) -> float:
        """Return how many seconds must pass before this address may try a password again."""
        return self._attempts.wait(request.remote or "", time.monotonic())

    def log_in(self, request: web.Request, password: str) -> Session | None:
        """Return the session of who knows the password."""
        if self._signer is not None and self._signer.is_password(password):
            return begin(time.time(), is_operator=True)
        self._attempts.failed(request.remote or "", time.monotonic())
        return None


def refuse_foreign(request: web.Request) -> None:
    """Raise 403 unless the request comes from one of our own pages."""
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if site != "same-origin" or (origin is not None and origin.partition("://")[2] != request.headers.get("Host")):
        raise web.HTTPForbidden(text="this may only be asked from the admin pages themselves\n", headers=HEADERS)


async def _refuse_forged(request: web.Request, session: Session) -> None:
    token = request.headers.get("X-CSRF-Token")
    if token is None:
        token = str((await request.post()).get("csrf", ""))
    if not session.is_csrf(token):
        raise web.HTTPForbidden(text="this page is too old: load it again\n", headers=HEADERS)


@web.middleware
async def say_what_was_wrong(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer what the gateway refuses as it is, for a person to read."""
    try:
        return await handler(request)
    except Unavailable as error:
        return web.json_response({"error": error.message}, status=503)
    except GatewayError as error:
        return web.json_response({"error": error.message, "field": error.fields.get("field")}, status=400)


def has_pages(settings: Settings) -> bool:
    """Tell whether a node has admin pages, for anybody."""
    return bool(settings.admin_password) or is_loopback(settings.host)


def is_loopback(host: str) -> bool:
    """Tell whether an address, or a name that is never anything else, is this machine's own."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
