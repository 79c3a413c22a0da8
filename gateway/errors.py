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

from dataclasses import dataclass


class GatewayError(Exception):
    """What the gateway refuses, with the code and the extra fields a client is told."""

    code = "internal"
    status = 500
    """Of the answer, where it is told over HTTP: before an upgrade, by the API, on the admin pages."""

    def __init__(self, message: str = "", **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields


class BadMessage(GatewayError):
    """A client sent what is no message: not JSON, no object, without a `cmd`, of wrong types."""

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
    """Nobody knows who the client is: no token, a bad one, or one that has expired."""

    code = "unauthorized"
    status = 401


class Forbidden(GatewayError):
    """The client is known and may not do this."""

    code = "forbidden"
    status = 403


class InvalidChannel(GatewayError):
    """No legal channel name: 1 to 200 bytes without white space, control characters, brackets, * or ?."""

    code = "invalid-channel"
    status = 400


class InvalidUser(GatewayError):
    """No legal user id: a string, under the same rule as channel names."""

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
    """Redis did not take it in time; worth another try after `retry_after` seconds."""

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
        *(BadMessage, UnknownCommand, InvalidParam, Unauthorized, Forbidden, InvalidChannel, InvalidUser),
        *(TooManyChannels, RateLimited, Unavailable, ConnectionNotFound),
    )
}
"""By the name under which one node tells another."""


@dataclass(frozen=True, slots=True)
class Close:
    """Why the gateway ends a connection (RFC 6455 section 7.4; 4000 and up are the gateway's own)."""

    code: int
    reason: str = ""


GOING_AWAY = Close(1001, "node is shutting down")
PROTOCOL_ERROR = Close(1002, "protocol error")
INVALID_UTF8 = Close(1007, "invalid UTF-8")
ABUSE = Close(1008, "too many refused messages")
TOO_BIG = Close(1009, "message too big")
ABANDONED = Close(1011, "internal error")
TOO_FAST = Close(4429, "sending too fast")
TOO_SLOW = Close(4008, "reading too slowly")
EXPIRED = Close(4401, "token expired")
NO_PONG = Close(4408, "no pong")
ENDED = Close(4410, "ended by an operator")

KNOWN_CODES = frozenset((*range(1000, 1016), 4008, 4401, 4403, 4408, 4410, 4429))
"""Close codes that mean something to the gateway; a client may send any other."""
