"""Verifies JSON Web Tokens with the keys of the settings, and makes a profile of their claims."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gateway.config import Settings
from gateway.connections.connection import NAME_LENGTH, Profile
from gateway.errors import InvalidSettings, InvalidUser, Unauthorized
from gateway.protocol.message import PATTERN_RULE, check_user, is_pattern

if TYPE_CHECKING:  # loads OpenSSL, which a node without keys need not
    from gateway.access.keys import Key

T = TypeVar("T")

logger = logging.getLogger(__name__)

LEEWAY = 10.0
"""Seconds by which the clock of whoever signs may differ from ours (RFC 7519 section 4.1.4 allows a few minutes);
machines that keep their time differ by less than one."""
SECRET_BYTES = 32
"""RFC 7518 section 3.2: a shorter one can be found by trying, from any token."""
_PUBLIC_KEY = "jwt_public_key"


class Tokens:
    """Checks tokens by all keys the settings name. Which key a token is tried with is said in `keys.py`."""

    def __init__(self, settings: Settings) -> None:
        """Read the keys; raise `InvalidSettings` for one that is none."""
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        self._keys = _fixed_keys(settings)
        self._file = _KeyFile(settings.jwks_file) if settings.jwks_file else None

    @property
    def expected(self) -> bool:
        """Whether there is any key: without one nobody looks at tokens."""
        return bool(self._keys or self._file)

    async def verify(self, token: str) -> Profile:
        """Return whom a token is for. Raises `Unauthorized`, with nothing of the token in its text."""
        if not self.expected:
            raise Unauthorized("no tokens are taken here")
        from gateway.access.keys import claims_of

        keys = self._keys if self._file is None else [*self._keys, *await self._file.keys()]
        claims = claims_of(token, keys, audience=self._audience, issuer=self._issuer, leeway=LEEWAY)
        return profile_of(claims, time.time())


# ---- claims


def profile_of(claims: Mapping[str, object], now: float) -> Profile:
    """Make the profile that the claims of a valid token describe, `now` being the time. Raises `Unauthorized`."""
    expires, _, _ = (_time(claims, name) for name in ("exp", "nbf", "iat"))
    return Profile(_user(claims), _name(claims), _patterns(claims), _end(expires, now))


def _end(expires: float | None, now: float) -> float:
    """Tell when to close: what is let in although it is over by our clock has the leeway's rest."""
    if expires is None:
        return 0
    return expires if expires > now else expires + LEEWAY


def _time(claims: Mapping[str, object], name: str) -> float | None:
    """Read a time, as RFC 7519 section 2 has it: PyJWT takes a string of digits and a boolean for one, too."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unauthorized(f"expected the claim {name} to be a number of seconds")
    return value


def _user(claims: Mapping[str, object]) -> str:
    try:
        return check_user(claims.get("sub"))
    except InvalidUser as error:
        raise Unauthorized(f"claim sub: {error}") from None


def _name(claims: Mapping[str, object]) -> str:
    name = claims.get("name")
    if name is not None and not isinstance(name, str):
        raise Unauthorized("expected the claim name to be a string")
    return (name or "")[:NAME_LENGTH]


def _patterns(claims: Mapping[str, object]) -> tuple[str, ...] | None:
    """Read what may be joined. A limit that cannot be understood must not count as none."""
    if "channels" not in claims:
        return None
    patterns = claims["channels"]
    if not isinstance(patterns, list) or not all(is_pattern(pattern) for pattern in patterns):
        raise Unauthorized(f"expected the claim channels to be a list, each a {PATTERN_RULE}")
    return tuple(patterns)


# ---- keys


def _fixed_keys(settings: Settings) -> list[Key]:
    keys = []
    if settings.jwt_secret:
        from gateway.access.keys import read_secret

        keys.append(_checked("jwt_secret", read_secret, settings.jwt_secret))
        if weakness := weakness_of(settings.jwt_secret):
            logger.error("%s", weakness)
    if settings.jwt_public_key:
        from gateway.access.keys import read_pem

        keys.append(_checked(_PUBLIC_KEY, read_pem, _pem(settings.jwt_public_key)))
    return keys


def weakness_of(secret: str) -> str:
    """Say that a secret of tokens is too short; "" when it is not."""
    size = len(secret.encode(errors="surrogateescape"))
    return "" if size >= SECRET_BYTES else f"jwt_secret: {size} bytes can be guessed, {SECRET_BYTES} or more cannot"


def _pem(given: str) -> str:
    """Return the text of a key that was given as such, also in one line as an environment needs it, or as a file."""
    if "-----BEGIN " in given:
        return given.replace("\\n", "\n")
    return _checked(_PUBLIC_KEY, _read, given).decode(errors="replace")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        raise ValueError(f"expected a readable file: {getattr(error, 'strerror', error)}") from None


def _checked(setting: str, read: Callable[[str], T], given: str) -> T:
    try:
        return read(given)
    except ValueError as error:  # the value stays out of it: it may be a secret put in the wrong place
        raise InvalidSettings(f"{setting}: {error}") from None


class _KeyFile:
    """A JWK set, read again when its file has changed. One that cannot be read then leaves the old keys in force."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._version = self._look()
        self._keys = _checked("jwks_file", _read_set, path)
        self._reading = asyncio.Lock()

    async def keys(self) -> Sequence[Key]:
        if self._look() != self._version:
            async with self._reading:
                await self._read_again()
        return self._keys

    def _look(self) -> tuple[int, ...]:
        """Return what differs when the file has been written or replaced; takes some microseconds."""
        try:
            found = Path(self._path).stat()
        except (OSError, ValueError):
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino

    async def _read_again(self) -> None:
        version = self._look()  # before it is read: if it is written meanwhile, the next token has it read once more
        if version == self._version:  # whoever had the lock before has read it
            return
        try:
            self._keys = await asyncio.to_thread(_read_set, self._path)
            logger.info("jwks_file: %s keys", len(self._keys))
        except ValueError as error:
            logger.error("jwks_file: %s; the keys read before stay in force", error)
        self._version = version


def _read_set(path: str) -> Sequence[Key]:
    from gateway.access.keys import read_set

    try:
        return read_set(_read(path))
    except ValueError as error:
        raise ValueError(f"{error} ({path!a})") from None


# ---- making one


def make_token(
    secret: str, user: str, *, name: str = "", channels: Sequence[str] = (), seconds: float = 0, now: float
) -> str:
    """Make a token that nodes with this secret accept, for ever where `seconds` is 0.

    Without `channels` any may be joined. Raises `Unauthorized` for claims that no node would accept, and
    `ValueError` for a secret that is none.
    """
    from gateway.access.keys import sign

    claims: dict[str, object] = {"sub": user, "iat": int(now)}
    if name:
        claims["name"] = name
    if channels:
        claims["channels"] = list(channels)
    if seconds < 0:
        raise Unauthorized(f"expected a token that ends later than now, got {seconds} seconds")
    if seconds:
        claims["exp"] = math.ceil(now + seconds)
    profile_of(claims, now)
    return sign(claims, secret)
