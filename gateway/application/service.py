"""The contract between an application and the gateway: the verbs of a `Service`, the hooks of a `Handler`.

How a node carries the verbs out is written elsewhere; here stands what may be relied on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Collection
from typing import TYPE_CHECKING, Any

from gateway.access.identity import identify
from gateway.application.writing import Writing
from gateway.connections.connection import Connection, ConnectionInfo, Profile
from gateway.errors import ENDED, UnknownCommand
from gateway.protocol.message import Message, Position

if TYPE_CHECKING:  # for the annotations, some of which an application's methods repeat
    import asyncio

    from aiohttp import web

    from gateway.access.permission import Action
    from gateway.backplane import Page
    from gateway.config import Settings
    from gateway.connections.counters import Counters
    from gateway.operations.status import Readiness, Status


class Service(Writing):
    """Manages connections and channels: of this node itself, of the cluster through Redis.

    `setup` makes it. What it says of this node alone (`settings`, `counters`, `readiness`, `crashed`) can be read at
    any time. Its verbs are for while the application runs: before that they raise `Unavailable`, and after it nothing
    is written any more, which raises the same.

    Messages of one publisher to one channel arrive in order, and all members of a channel see the same
    order. A write returns once the backplane has taken it, not when clients have read it; without history
    a message is delivered at most once. Whatever needs Redis raises `Unavailable` when Redis does not
    take it within the publish timeout (`publish_timeout` seconds).
    """

    settings: Settings
    counters: Counters
    """What this node has counted since it was made."""
    crashed: asyncio.Event
    """Set when a part of this node has failed, by a fault of ours: it serves nobody any more, and should end."""

    @property
    def node_id(self) -> str:
        """The name of this node in the cluster: the one it was given, or, from the moment it runs, one made for it."""
        return self.settings.node_id

    @property
    @abstractmethod
    def readiness(self) -> Readiness:
        """How this node is placed to serve clients."""

    # ---- connections

    @abstractmethod
    async def upgrade(self, request: web.Request, channel: str, profile: Profile, handler: Handler) -> str:
        """Turn a request into a WebSocket connection and join its first channel, if not ""; return its id.

        Await `read_loop` with that id next: the connection ends with its request handler (1011). Returns once the
        join is stored; if Redis is away for longer than the publish timeout, at once after that, and the join is
        made when it is back.

        Raises aiohttp's HTTP errors for what is refused before the upgrade (not a WebSocket, foreign origin,
        node full or stopping), `InvalidChannel` and `InvalidUser`.
        """

    @abstractmethod
    async def read_loop(self, conn_id: str) -> web.WebSocketResponse:
        """Wait until the connection has closed; return the response for the request handler to return."""

    @abstractmethod
    async def disconnect(self, conn_id: str, *, code: int = ENDED.code, reason: str = "") -> None:
        """Close a connection held by any node. Raises `ConnectionNotFound`, and `InvalidParam` for other codes.

        Returns when its node has begun to close it; it is gone within seconds, whatever its client does.
        """

    # ---- channels

    @abstractmethod
    async def join(self, conn_id: str, channel: str) -> bool:
        """Put a connection, held by any node, in a channel; tell whether that created the channel.

        Nobody is asked whether its client may: what a client chooses is for `join_for`. Returns once Redis has
        confirmed the subscription and stored the membership. Joining twice is harmless.
        Raises `ConnectionNotFound`, `InvalidChannel`, `TooManyChannels`.
        """

    @abstractmethod
    async def join_for(self, connection: Connection, channel: str) -> bool:
        """Do for a client what its `$join` would: the channel is its own choice. Tell whether that created it.

        Raises `Forbidden`, `InvalidChannel`, `TooManyChannels`.
        """

    @abstractmethod
    async def leave(self, conn_id: str, channel: str) -> bool:
        """Take a connection, held by any node, out of a channel, and tell its client; tell whether that emptied it.

        Leaving twice is harmless. Raises `ConnectionNotFound`, `InvalidChannel`.
        """

    @abstractmethod
    async def authorize(self, connection: Connection, channel: str, action: Action) -> bool:
        """Tell whether a client may join a channel or send to it: its rule, its token and its handler agree.

        Asked for `?ch=`, `$join`, `join_for` and every command; `join` and `write_channel` themselves ask nobody.
        """

    @abstractmethod
    async def review(self, connection: Connection) -> None:
        """Ask again for each channel that a client of this node chose; take it out where it may not be, and say so."""

    # ---- the end

    @abstractmethod
    async def drain(self) -> None:
        """Send the clients to other nodes, take none in, and take what this node wrote out of Redis.

        Waits for `drain_seconds` at most. Repeating it is harmless.
        """

    # ---- looking

    @abstractmethod
    async def history(self, channel: str, *, since: Position | None = None, limit: int = 100) -> Page:
        """Read what a channel keeps, oldest first: the newest messages, or the first after a position."""

    @abstractmethod
    async def status(self) -> Status:
        """Describe the cluster; no scan, however large it is."""

    @abstractmethod
    def get_connections(self) -> AsyncIterator[ConnectionInfo]:
        """Yield every connection of the cluster, page by page. One that comes or goes meanwhile may be missed."""

    @abstractmethod
    def get_connections_by_channel(self, channel: str) -> AsyncIterator[ConnectionInfo]:
        """Yield the connections in a channel, on all nodes, page by page."""

    @abstractmethod
    def get_online(self, channel: str) -> AsyncIterator[str]:
        """Yield the user ids online in a channel, each once; of an anonymous connection its connection id."""

    @abstractmethod
    def tap(self, channel: str | None = None) -> AsyncIterator[Message]:
        """Yield the messages written anywhere in the cluster, or to one channel, from now on.

        An observer that is slow misses messages; it never slows delivery.
        """


class Handler:
    """Answers the commands of clients. Every method may be left out.

    The commands of one connection are handled one at a time, in order; those of different connections
    at the same time. Whatever a method raises ends only the command in hand: a `GatewayError` is sent to
    the client as its `$error`, anything else is logged and is `internal` to the client.
    """

    without_channel: Collection[str] = ()
    """Commands that are about no channel, such as one that joins another: a client that names none with them need not
    be allowed to send to its first.
    """

    async def authenticate(self, request: web.Request) -> Profile | None:
        """Say who wants to connect, before the upgrade; None refuses with 401.

        This one goes by the settings: a token where there is a key for tokens, else anybody under the name in
        `?name=`. One of your own replaces it; it may still ask `super()` for what it does not know.
        """
        return await identify(request)

    async def authorize(self, connection: Connection, channel: str, action: str) -> bool:
        """Say whether a client may `"join"` a channel or `"send"` to it. This one allows everything.

        Asked last, of what the client's token and the channel's rule allow: it can only restrict. Where the rule
        is `handler`, a handler without a method of its own allows nothing. Say nothing that tells whether the
        channel exists. Asked again, for each channel that a client chose to join, when its token is renewed.
        """
        return True

    @property
    def decides(self) -> bool:
        """Whether it has an `authorize` of its own, of its class or given to it as routers are."""
        return getattr(self.authorize, "__func__", None) is not Handler.authorize

    async def on_open(self, service: Service, connection: Connection) -> None:
        """Hear that a client has come, after its first channels are joined and before its first command."""

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        """Handle one command. What this returns answers the request, if the client asked for an answer.

        What the client says goes to `connection.target`, where it may send; a channel that it wants to join is for
        `service.join_for`. All else that a service does is the server's own decision, and asks nobody.

        An answer of more than `outbox_bytes` is not sent: the client is told `internal`, the log says how large it was.
        """
        raise UnknownCommand(f"unknown command {cmd!r}")

    async def on_close(self, service: Service, connection: Connection) -> None:
        """Hear that a client has gone, after its last command."""
