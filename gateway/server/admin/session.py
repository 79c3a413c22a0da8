"""Who an operator's browser is: a signed cookie that every node of the cluster can check, and a token against CSRF.

The key comes from the password, so a session holds on every node, and ends everywhere when the password changes; where
there is none, from a secret of the node.
Plain rules, no waiting.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from gateway.operations import revocations

IDLE = 3600
"""Seconds a session holds without being renewed."""
LONGEST = revocations.LONGEST
"""Seconds after which the password is asked for again, however busy the session was."""


@dataclass(frozen=True, slots=True)
class Session:
    """One browser: known by a random id, and signed in or not."""

    id: str
    began: int
    """When the password was given, or the first page was seen; in seconds since the epoch."""
    until: int
    is_operator: bool

    @property
    def csrf(self) -> str:
        """The token every form and action must carry: only who can read our pages knows it."""
        return hmac.new(_bytes(self.id), b"csrf", hashlib.sha256).hexdigest()

    def is_csrf(self, token: str) -> bool:
        return hmac.compare_digest(_bytes(self.csrf), _bytes(token))

    @property
    def name(self) -> str:
        """What logs call this session: not enough to take it over."""
        return self.digest[:8]

    @property
    def digest(self) -> str:
        """What all nodes call it, as little enough."""
        return _digest(self.id).hex()[:32]

    def is_due(self, now: float) -> bool:
        """Tell whether it is time to renew it."""
        return self.until - now < IDLE / 2 and self.until < self.began + LONGEST

    def renewed(self, now: float) -> Session:
        until = min(int(now) + IDLE, self.began + LONGEST)
        return Session(self.id, self.began, until, self.is_operator)


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to log in, once, which is what a link carries."""

    id: str
    until: int


def begin(now: float, *, is_operator: bool) -> Session:
    """Make a new session: always under a new id, so that nobody can have planted one."""
    return Session(secrets.token_urlsafe(24), int(now), int(now) + IDLE, is_operator)


class Signer:
    """Writes sessions into cookies and reads them back."""

    def __init__(self, password: str, prefix: str) -> None:
        salt = b"gateway admin session " + prefix.encode()
        self._password = _digest(password)
        # scrypt: from a cookie the password cannot be guessed quickly either.
        self._key = hashlib.scrypt(password.encode(), salt=salt, n=1 << 14, r=8, p=1)
        self._ticket_key = hmac.new(self._key, b"ticket", hashlib.sha256).digest()  # no ticket can pass for a session

    def write(self, session: Session) -> str:
        text = f"{session.id}.{session.began}.{session.until}.{int(session.is_operator)}"
        return f"{text}.{_sign(self._key, text)}"

    def read(self, cookie: str, now: float) -> Session | None:
        """Return the session in a cookie; None for what was not signed here, or is over."""
        text, _, signature = cookie.rpartition(".")
        if not text or not hmac.compare_digest(_bytes(_sign(self._key, text)), _bytes(signature)):
            return None
        id, began, until, is_operator = text.split(".")
        session = Session(id, int(began), int(until), is_operator == "1")
        return session if now < session.until else None

    def is_password(self, given: str) -> bool:
        """Compare in a time that tells nothing."""
        return hmac.compare_digest(self._password, _digest(given))

    def ticket(self, now: float) -> Ticket:
        """Make a new one; it holds as long as the longest session."""
        return Ticket(secrets.token_hex(16), int(now) + LONGEST)

    def write_ticket(self, ticket: Ticket) -> str:
        text = f"{ticket.id}.{ticket.until}"
        return f"{text}.{_sign(self._ticket_key, text)}"

    def read_ticket(self, token: str, now: float) -> Ticket | None:
        """Return the ticket in a token; None for what was not signed here, or is too old."""
        text, _, signature = token.rpartition(".")
        if not text or not hmac.compare_digest(_bytes(_sign(self._ticket_key, text)), _bytes(signature)):
            return None
        id, until = text.split(".")
        return Ticket(id, int(until)) if now < int(until) else None


def _sign(key: bytes, text: str) -> str:
    return hmac.new(key, _bytes(text), hashlib.sha256).hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(_bytes(text)).digest()


def _bytes(text: str) -> bytes:
    """Encode what came in a header, which need not have been UTF-8."""
    return text.encode("utf-8", "surrogatepass")
