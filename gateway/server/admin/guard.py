"""What stands before every admin page: who asks, and from which page.

Nobody is let in for where he comes from: an address, like a `Host`, is no proof of who asks. A session is begun by the
password, or where there is none by a link from the node's log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.access.origin import refuse_foreign_page
from gateway.access.proxies import is_behind_proxy, through_proxies
from gateway.access.upgrade import headers_of
from gateway.errors import GatewayError
from gateway.node.service import NodeService
from gateway.server.admin.attempts import PER_ADDRESS, Attempts
from gateway.server.admin.links import Links
from gateway.server.admin.session import LONGEST, Session, Signer, begin

logger = logging.getLogger(__name__)

COOKIE = "gateway_admin"
PREFIX = "/admin/websocket"
SAFE = ("GET", "HEAD")
OPEN_TO_ALL = ("/login",)
REFUSED = (401, 403, 429)
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")

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


class Refused(NamedTuple):
    """Why somebody is not let in."""

    status: int
    text: str
    wait: float = 0.0
    """Seconds after which there is another try."""


class Guard:
    """Lets operators in."""

    def __init__(self, service: NodeService, links: Links | None) -> None:
        self._service = service
        self._settings = service.settings
        self.links = links
        """How to get in without a password."""
        self._signer = links.signer if links else Signer(self._settings.admin_password, self._settings.prefix)
        self._attempts = Attempts()

    # ---- for each request

    def middleware(self) -> Middleware:
        """Return what aiohttp runs before every handler of the admin's own application."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            request = through_proxies(request, self._settings.trusted_networks)
            try:
                return await self._answer(request, handler)
            except web.HTTPException as error:
                error.headers.update(HEADERS)
                if error.status in REFUSED:
                    self.note(request, error.status, (error.text or "").strip())
                raise

        return guard

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        session = request[SESSION] = await self._session(request)
        if not session.is_operator and request.path.removeprefix(PREFIX) not in OPEN_TO_ALL:
            self._to_login(request)
        if request.method not in SAFE:
            refuse_foreign_page(request, self._settings)
            await _refuse_forged(request, session)
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
            self._renew(request, response, session)
        return response

    async def _session(self, request: web.Request) -> Session:
        now = time.time()
        session = self._signer.read(request.cookies.get(COOKIE, ""), now)
        if session is None or (session.is_operator and await self._service.operations.revocations.has(session.digest)):
            return begin(now, is_operator=False)
        return session

    def _renew(self, request: web.Request, response: web.StreamResponse, session: Session) -> None:
        now = time.time()
        if COOKIE in response.cookies:
            return
        if session.is_operator and session.is_due(now):
            self.set_cookie(request, response, session.renewed(now))
        elif not session.is_operator or self._signer.write(session) != request.cookies.get(COOKIE):
            self.set_cookie(request, response, session)

    def set_cookie(self, request: web.Request, response: web.StreamResponse, session: Session) -> None:
        """Give a browser its session. Whoever ends TLS before the node says so; to lie harms only the liar."""
        is_secure = request.secure or request.headers.get("X-Forwarded-Proto", "").split(",")[0].strip() == "https"
        written = self._signer.write(session)
        response.set_cookie(COOKIE, written, path=PREFIX, httponly=True, samesite="Strict", secure=is_secure)

    def _to_login(self, request: web.Request) -> None:
        if request.method not in SAFE or request.headers.get("Upgrade"):
            raise web.HTTPUnauthorized(text="the session is over: log in again\n")
        raise web.HTTPFound(f"{PREFIX}/login?next={quote(request.path_qs, safe='')}")

    def note(self, request: web.Request, status: int, reason: str) -> None:
        """Count a refusal as those of handshakes are, and say why in the log."""
        self._service.counters.refusals[status] += 1
        logger.info(
            "refused: node=%s remote=%s status=%s path=%s reason=%s",
            self._service.node_id,
            request.remote,
            status,
            ascii(request.path[:100]),
            ascii(reason),
        )

    # ---- logging in and out

    async def log_in(self, request: web.Request, password: str, token: str) -> Session | Refused:
        """Return the session of who knows the password, or has a link that was not used before.

        Raises `Unavailable` where Redis has to note that a link is used.
        """
        address, now = request.remote or "", time.monotonic()
        # From here on nothing is awaited until the try is counted: many may have sent all but their passwords.
        if (wait := self._attempts.wait(address, now)) > 0:
            return Refused(429, f"Too many wrong tries. Try again in {wait:.0f} seconds.{self._advice(request)}", wait)
        ticket = self._signer.read_ticket(token, time.time()) if self.links else None
        if self.links is None and self._signer.is_password(password):
            return begin(time.time(), is_operator=True)
        if self.links is not None and ticket is not None:
            if await self.links.use(ticket, self._service.operations.revocations):
                return begin(time.time(), is_operator=True)
            return Refused(403, "This link has been used.")
        failed = self._attempts.failed(address, now)
        if failed in (1, PER_ADDRESS):  # the first of a minute, and the last
            said = "wrong password" if self.links is None else "wrong link"
            self._service.operations.refusal(address, said if failed == 1 else f"{said} for the {failed}th time")
        return Refused(403, "This is not the password." if self.links is None else "This is no link of this node.")

    async def log_out(self, session: Session) -> None:
        """End a session on every node."""
        await self._service.operations.end_session(session.digest, LONGEST)

    def _advice(self, request: web.Request) -> str:
        """Say what to do where all who come through a proxy count as one."""
        if is_behind_proxy(request) or not any(name in request.headers for name in _FORWARDED):
            return ""
        return f" All who come through the proxy at {request.remote} count as one: name it in trusted_proxies."


async def _refuse_forged(request: web.Request, session: Session) -> None:
    token = request.headers.get("X-CSRF-Token")
    if token is None:
        token = str((await form_of(request)).get("csrf", ""))
    if not session.is_csrf(token):
        raise web.HTTPForbidden(text="this page is too old: load it again\n")


async def form_of(request: web.Request) -> Mapping[str, object]:
    """Read a form; raise 400 for what is none, whatever aiohttp has to say about it: anybody may send it."""
    try:
        return await request.post()
    except (ValueError, LookupError, RuntimeError):
        raise web.HTTPBadRequest(text="expected a form\n") from None


@web.middleware
async def say_what_was_wrong(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer what the gateway refuses as it is, for a person to read."""
    try:
        return await handler(request)
    except GatewayError as error:
        said = {"error": error.message, "field": error.fields.get("field")}
        return web.json_response(said, status=error.status, headers=headers_of(error))
