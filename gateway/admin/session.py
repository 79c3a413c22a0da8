"""Who an operator's browser is: a signed cookie that every node of the cluster can check, and a token against CSRF.

The key comes from the password, so a session holds on every node, and ends everywhere when the password changes.
Plain rules, no waiting.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import deque
from dataclasses import dataclass

IDLE = 3600
"""Seconds a session holds without being renewed."""
LONGEST = 12 * 3600
"""Seconds after which the password is asked for again, however busy the session was."""
PER_ADDRESS, IN_ALL = 5, 60
"""Wrong passwords within a minute after which no further one is looked at."""
WINDOW = 60.0


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
        return _digest(self.id).hex()[:8]

    def is_due(self, now: float) -> bool:
        """Tell whether it is time to renew it."""
        return self.until - now < IDLE / 2 and self.until < self.began + LONGEST

    def renewed(self, now: float) -> Session:
        until = min(int(now) + IDLE, self.began + LONGEST)
        return Session(self.id, self.began, until, self.is_operator)


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

    def write(self, session: Session) -> str:
        text = f"{session.id}.{session.began}.{session.until}.{int(session.is_operator)}"
        return f"{text}.{self._sign(text)}"

    def read(self, cookie: str, now: float) -> Session | None:
        """Return the session in a cookie; None for what was not signed here, or is over."""
        text, _, signature = cookie.rpartition(".")
        if not text or not hmac.compare_digest(_bytes(self._sign(text)), _bytes(signature)):
            return None
        id, began, until, is_operator = text.split(".")
        session = Session(id, int(began), int(until), is_operator == "1")
        return session if now < session.until else None

    def is_password(self, given: str) -> bool:
        """Compare in a time that tells nothing."""
        return hmac.compare_digest(self._password, _digest(given))

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, _bytes(text), hashlib.sha256).hexdigest()


class Attempts:
    """Wrong passwords of the last minute. Remembers a bounded number of them, however many addresses try."""

    def __init__(self) -> None:
        self._failed: deque[tuple[float, str]] = deque()

    def wait(self, address: str, now: float) -> float:
        """Return how many seconds an address must wait before its next try; 0 when it need not."""
        while self._failed and self._failed[0][0] <= now - WINDOW:
            self._failed.popleft()
        own = [when for when, who in self._failed if who == address]
        if len(self._failed) >= IN_ALL:
            return self._failed[-IN_ALL][0] + WINDOW - now
        return own[-PER_ADDRESS] + WINDOW - now if len(own) >= PER_ADDRESS else 0.0

    def failed(self, address: str, now: float) -> None:
        self._failed.append((now, address))


def _digest(text: str) -> bytes:
    return hashlib.sha256(_bytes(text)).digest()


def _bytes(text: str) -> bytes:
    """Encode what came in a header, which need not have been UTF-8."""
    return text.encode("utf-8", "surrogatepass")
