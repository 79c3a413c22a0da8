"""Everything the gateway raises, and every reason it gives for closing a connection.

    GatewayError                   `code` is what a client reads in `$error`, `status` that of the answer over HTTP
    ├── BadMessage                 bad-message
    ├── UnknownCommand             unknown-command
    ├── InvalidParam               invalid-param      (`field` names what was wrong)
    ├── Unauthorized               unauthorized
    ├── Forbidden                  forbidden
    ├── InvalidChannel             invalid-channel
    ├── InvalidUser                invalid-param
    ├── TooManyChannels            too-many-channels
    ├── RateLimited                rate-limited       (`retry_after` in seconds)
    ├── Unavailable                unavailable        (`retry_after` in seconds)
    ├── ConnectionNotFound         invalid-param      to a client whose handler lets it through
    ├── InvalidEnvelope            what came from Redis is no message; never sent to a client
    ├── InvalidSettings            the configuration is wrong; never sent to a client
    ├── InvalidRouter              a Router is declared wrongly; raised while its module is imported
    ├── NotConnected               closed             raised by `gateway.client` alone, as is the next
    ├── NoAnswer                   timeout
    └── CannotStart                the port is taken, or Redis stays away; never sent to a client

A handler may raise any of the first ten: its client is sent the matching `$error`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal


class GatewayError(Exception):
    """Base of all that the gateway raises. `GatewayError("text", field="name")`: extra fields are told to the client.

    A handler that raises one answers its client with `$error`: `code` is of the class, `message` the text, and the
    fields stand beside them, so they must be something that JSON can say.
    """

    code = "internal"
    status = 500
    """Of the answer, where it is told over HTTP: before an upgrade, by the API, on the admin pages."""

    def __init__(self, message: str = "", **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields


class BadMessage(GatewayError):
    """A client sent something that is not a message: not JSON, not an object, without a `cmd`, of wrong types."""

    code = "bad-message"
    status = 400


class UnknownCommand(GatewayError):
    """There is no such command; a handler raises it for a `cmd` it does not know."""

    code = "unknown-command"
    status = 400


class InvalidParam(GatewayError):
    """A value that cannot be used; `field` in `fields` names it, as in `InvalidParam("too long", field="text")`."""

    code = "invalid-param"
    status = 400


class Unauthorized(GatewayError):
    """It is not known who the client is: no token, a bad one, or one that has expired."""

    code = "unauthorized"
    status = 401


class Forbidden(GatewayError):
    """The client is known and may not do this."""

    code = "forbidden"
    status = 403


class InvalidChannel(GatewayError):
    """Not a legal channel name (1 to 200 bytes of UTF-8, no white space); the text says why."""

    code = "invalid-channel"
    status = 400


class InvalidUser(GatewayError):
    """Not a legal user id, for which the rule of channel names holds; the text says why."""

    code = "invalid-param"
    status = 400


class TooManyChannels(GatewayError):
    """The connection is in `max_channels_per_connection` channels already."""

    code = "too-many-channels"
    status = 409


class RateLimited(GatewayError):
    """The client sends too fast; `retry_after` in `fields` says when it may go on, in seconds."""

    code = "rate-limited"
    status = 429


class Unavailable(GatewayError):
    """Redis did not take it in time, too much waits for Redis already, or the node does not run.

    Worth another try after `retry_after` seconds. To a client it does not count as abuse.
    """

    code = "unavailable"
    status = 503

    def __init__(self, message: str, *, retry_after: float = 1) -> None:
        super().__init__(message, retry_after=retry_after)


class ConnectionNotFound(GatewayError):
    """No node holds a connection of this id (any more)."""

    code = "invalid-param"
    status = 404


class InvalidEnvelope(GatewayError):
    """What came through Redis is no message."""


class InvalidSettings(GatewayError):
    """The configuration is wrong; the text names the setting, what was expected and what came."""


class InvalidRouter(GatewayError):
    """A `Router` is declared wrongly; the text names the function and the parameter."""


class CannotStart(GatewayError):
    """A node cannot run: its port is taken, Redis stays away or refuses the log-in."""


class NotConnected(GatewayError):
    """There is no connection, or there will be none: `gateway.client` was closed, or lost it before the answer."""

    code = "closed"


class NoAnswer(GatewayError, TimeoutError):
    """The server did not answer in time."""

    code = "timeout"


KINDS: dict[str, type[GatewayError]] = {
    kind.__name__: kind
    for kind in (
        BadMessage,
        UnknownCommand,
        InvalidParam,
        Unauthorized,
        Forbidden,
        InvalidChannel,
        InvalidUser,
        TooManyChannels,
        RateLimited,
        Unavailable,
        ConnectionNotFound,
    )
}
"""By the name under which one node tells another."""


Verdict = Literal["retry", "renew", "failed", "closed"]
"""What a client does after a close: come back, come back with another token, stay away as refused or as told."""

_VERDICTS: dict[int, Verdict] = {4400: "failed", 4401: "renew", 4403: "failed", 4410: "closed"}
"""After all others it comes back, also after those that an application made up."""

_RETRY_AFTER = re.compile(r"\bretry_after=(\d+(?:\.\d+)?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Close:
    """Why a connection ends (RFC 6455 section 7.4; 4000 and up are the gateway's own, and applications')."""

    code: int
    reason: str = ""
    by_client: bool = field(default=False, compare=False)
    """Whether it is what a client's own close frame says."""

    @property
    def verdict(self) -> Verdict:
        """What a client does about it: the clients are tested against `tests/tables/closes.json`."""
        return _VERDICTS.get(self.code, "retry")

    @property
    def reconnect(self) -> bool:
        """Whether a client comes back by itself, as it is."""
        return self.verdict == "retry"

    @property
    def retry_after(self) -> float | None:
        """After how many seconds, where the reason says it."""
        found = _RETRY_AFTER.search(self.reason) if self.reconnect else None
        return float(found[1]) if found else None

    def after(self, seconds: float) -> Close:
        """Return this close, asking the client to come back after so many seconds, to a tenth."""
        return Close(self.code, f"{self.reason}; retry_after={seconds:.1f}")


GOING_AWAY = Close(1001, "node is shutting down")
PROTOCOL_ERROR = Close(1002, "protocol error")
INVALID_UTF8 = Close(1007, "invalid UTF-8")
ABUSE = Close(1008, "too many refused messages")
TOO_BIG = Close(1009, "message too big")
ABANDONED = Close(1011, "internal error")
RESTART = Close(1012, "node is restarting")
FULL = Close(1013, "node is full")
TOO_SLOW = Close(4008, "reading too slowly")
BAD_REQUEST = Close(4400, "bad request")
EXPIRED = Close(4401, "token expired")
FORBIDDEN = Close(4403, "not allowed")
NO_PONG = Close(4408, "no pong")
ENDED = Close(4410, "ended by an operator")
TOO_FAST = Close(4429, "sending too fast")

CLOSES = (
    GOING_AWAY,
    PROTOCOL_ERROR,
    INVALID_UTF8,
    ABUSE,
    TOO_BIG,
    ABANDONED,
    RESTART,
    FULL,
    TOO_SLOW,
    BAD_REQUEST,
    EXPIRED,
    FORBIDDEN,
    NO_PONG,
    ENDED,
    TOO_FAST,
)
"""All that have a meaning of their own. A node that is full does not close with `FULL`: it answers 503, on which
balancers act. That code, like `BAD_REQUEST` and `FORBIDDEN`, is understood where an application closes with it."""

OWN_CODES = 4000
"""RFC 6455 section 7.4.2 leaves the codes from here on to whoever closes."""

KNOWN_CODES = frozenset((*range(1000, 1016), *(close.code for close in CLOSES)))
"""Close codes that mean something to the gateway; a client may send any other."""
