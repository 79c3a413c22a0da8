"""One client's connection: its profile, its channels, and what the node keeps for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from gateway.connections.limits import Refusals
from gateway.connections.outbox import Sparable
from gateway.errors import Close, Forbidden
from gateway.protocol.codec import Dialect, dialect_of
from gateway.protocol.message import Message, node_of

NAME_LENGTH = 100
"""Of a display name that is kept."""
_PLAINLY = dialect_of()


@dataclass(frozen=True, slots=True)
class Profile:
    """Who a connection belongs to. Without an `id` it is anonymous: its connection id stands in.

    Checked when a connection is made of it: an `id` that is no legal user id, for which the rule of channel names
    holds (1 to 200 bytes of UTF-8, no white space), raises `InvalidUser` then.
    """

    id: str = ""
    name: str = ""
    """The display name; nobody is identified by it."""
    channels: tuple[str, ...] | None = None
    """Patterns (`*` is any characters) of what its client may join; None where nothing limits it, () for nothing."""
    expires: float = 0
    """When the connection is closed with 4401, in seconds since the epoch, to a second; 0 is never."""


class ConnectionInfo(NamedTuple):
    """What the cluster knows of a connection, wherever it is held, as it was when it was asked for.

    `started` is in ms since the epoch; `user` of an anonymous connection is its `id`; `remote` is the client's address.
    """

    id: str
    node: str
    user: str
    name: str
    channels: tuple[str, ...]
    started: int
    remote: str


class Socket(Protocol):
    """The little that the gateway asks of a WebSocket. Nothing here waits for the client."""

    write: Callable[[bytes], None]
    """Send whole frames, in order; what the client does not take at once waits in a bounded outbox."""

    @property
    def is_behind(self) -> bool:
        """Whether something waits in the outbox: the client does not read as fast as it is written to."""

    @property
    def waiting_bytes(self) -> int:
        """How much waits in the outbox."""

    def write_sparable(self, messages: Sequence[Sparable]) -> None:
        """Send messages of which some may be dropped while the client is behind; it is told of the gap."""

    def close(self, close: Close) -> None:
        """Begin the closing handshake; what is written afterwards is dropped. Repeating it is harmless.

        The connection is lost within the seconds of an end (`websocket.CLOSE_TIMEOUT`), whatever its client does.
        """

    def end(self, close: Close, *, within: float = ...) -> None:
        """Close without waiting for the client: it does not seem to be there any more, or its node ends."""

    def hold(self) -> None:
        """Let all messages wait until `release`; pings, pongs and a close do not."""

    def release(self, first: bytes = b"") -> None:
        """Write `first`, then what was held back."""

    def pause_reading(self) -> None:
        """Take no more from the client, so that it feels the back pressure."""

    def resume_reading(self) -> None: ...

    def ping(self) -> bool:
        """Send a ping; False when the client has not been heard of since the last one."""


class Hooks(Protocol):
    """What is asked of a connection's application, and told to it; `gateway.Handler` says what each is for.

    A connection only carries it. The `service` is the node's, which is not known here.
    """

    @property
    def decides(self) -> bool:
        """Whether `authorize` is the application's own."""

    @property
    def without_channel(self) -> Collection[str]:
        """Commands that are about no channel."""

    async def authorize(self, connection: Connection, channel: str, action: str) -> bool: ...

    async def on_open(self, service: Any, connection: Connection) -> None: ...

    async def on(self, service: Any, connection: Connection, cmd: str, param: Any) -> object: ...

    async def on_close(self, service: Any, connection: Connection) -> None: ...


class Connection:
    """One WebSocket held by this node, as its handler sees it.

    For applications: `id`, `profile`, `channels`, `channel`, `target`, `message`, `user`, `node`, `remote`, `agent`,
    `started` (ms since the epoch) and `closed`, to be read and not set. The rest is the node's own.
    """

    __slots__ = (
        "agent",
        "channels",
        "closed",
        "dialect",
        "fallback",
        "full_at",
        "handler",
        "handshake",
        "id",
        "inbox",
        "joining",
        "message",
        "moves_full_at",
        "paid_at",
        "placed",
        "profile",
        "received",
        "refusals",
        "remote",
        "socket",
        "started",
    )

    socket: Socket

    def __init__(
        self,
        id: str,
        profile: Profile,
        handler: Hooks,
        *,
        dialect: Dialect = _PLAINLY,
        started: int = 0,
        remote: str = "",
        agent: str = "",
    ) -> None:
        self.id = id
        self.profile = profile
        self.handler = handler
        self.dialect = dialect
        """What was agreed on for its messages."""
        self.started = started
        self.remote = remote
        self.agent = agent
        self.channels: tuple[str, ...] = ()
        """In the order joined."""
        self.joining: tuple[str, ...] = ()
        """Those of them that it is only on the way into: no other node may know yet."""
        self.placed: tuple[str, ...] = ()
        """Those that the server chose for it: it stays there whatever its client itself may do."""
        self.message: Message | None = None
        """The message in hand, while the handler runs."""
        self.fallback = ""
        """The channel that the message in hand may go to, where it names one that its sender is not in."""
        self.closed = False
        """Whether its socket is lost; its handler may still be at work for it."""
        self.handshake: object = None
        """Where its handshake stands in a trace, if there are traces."""
        self.received = 0
        self.full_at = self.paid_at = self.moves_full_at = 0.0
        """When it may do as much at once as ever, by the loop's clock: messages; bytes; joins and leaves (`Budget`)."""
        self.refusals: Refusals | None = None
        """None while nothing was refused."""
        self.inbox: deque[Callable[[], Awaitable[object]]] | None = None
        """What waits to be done for this client, one at a time; None while it is idle."""

    @property
    def protocol(self) -> str:
        """The subprotocol agreed on, "" for the original's plain messages."""
        return self.dialect.protocol

    @property
    def user(self) -> str:
        """The user id; for an anonymous connection its own id."""
        return self.profile.id or self.id

    @property
    def channel(self) -> str:
        """The one joined first of those it is in, "" when it is in none."""
        return self.channels[0] if self.channels else ""

    @property
    def chosen(self) -> tuple[str, ...]:
        """The channels that it is in by its client's own wish; none of one that is gone."""
        joined = () if self.closed else self.channels
        return tuple(channel for channel in joined if channel not in self.placed)

    @property
    def target(self) -> str:
        """The channel that the message in hand is about: the one it names if it is in that, else its first, else "".

        The client may send there. Where that would be its first instead of the one it named, and there it may not,
        reading this raises `Forbidden`.
        """
        message, first = self.message, self.channel
        if message is None:
            return first
        if message.channel in self.channels:
            return message.channel
        if first and first != self.fallback:
            raise Forbidden(f"not allowed to send to {first}")
        return first

    @property
    def node(self) -> str:
        """The node that holds it."""
        return node_of(self.id)

    def info(self) -> ConnectionInfo:
        """Say what other nodes may know of this connection."""
        joined = self.channels
        if self.joining:
            joined = tuple(channel for channel in joined if channel not in self.joining)
        return ConnectionInfo(self.id, self.node, self.user, self.profile.name, joined, self.started, self.remote)

    def __repr__(self) -> str:
        return f"<Connection {self.id} user={self.user}>"
