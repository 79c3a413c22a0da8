"""What an application calls (`Service`) and what calls it (`Handler`): what may be relied on, not how it is done."""

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
    """Manages the connections and channels of the whole cluster, from one node of it.

    `setup` makes it. `settings`, `counters`, `readiness` and `crashed` are about this node alone and can be read at
    any time. The verbs work while the application runs: before that they raise `Unavailable`, and so does every write
    after it. All of them are for the event loop of the application; another thread or process uses a `Publisher`.

    Messages of one publisher to one channel arrive in order, and all members of a channel see the same order. A write
    returns once Redis has taken the message, not when clients have read it: nothing here waits for a client. Without
    history a message is delivered at most once.

    Whatever needs Redis raises `Unavailable` when Redis has not taken it within `publish_timeout` seconds (10), and at
    once when `publish_queue` messages or `publish_queue_bytes` wait for Redis already. What failed so is not sent
    later, unless the connection to Redis broke while it was under way.
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
        """Whether clients should be sent to this node, and why not."""

    # ---- connections

    @abstractmethod
    async def upgrade(self, request: web.Request, channel: str, profile: Profile, handler: Handler) -> str:
        """Turn a request into a WebSocket connection and join its first channel, unless that is ""; return its id.

        Nobody is asked: who connects, and whether they may join, was decided by whoever calls this. So `authenticate`
        and `authorize` of the handler are not called here. The handler is an instance, and may serve any number of
        connections.

        Await `read_loop` with the id next: a connection whose request handler ends without it is closed (1011).
        Returns once the join is stored and `on_open` has returned, or after `publish_timeout` seconds: then both
        are still done as soon as Redis is back, while the connection is open.

        Raises what refuses the request before the upgrade: `InvalidChannel`, `InvalidUser`, `GatewayError` for what is
        no `Profile` or no `Handler`, and aiohttp's HTTP errors: 426 or 400 for what is no WebSocket handshake, 403 for
        a foreign origin, 429 for a user with `max_connections_per_user`, 503 while the node is full or stopping.
        """

    @abstractmethod
    async def read_loop(self, conn_id: str) -> web.WebSocketResponse:
        """Wait until the connection has closed; return the response that the request handler must return.

        The handler's `on_close` may still be under way. When the wait is cancelled, the connection is closed (1001).
        To be called once. Raises `ConnectionNotFound` unless `upgrade` has returned this id on this node.
        """

    @abstractmethod
    async def disconnect(self, conn_id: str, *, code: int = ENDED.code, reason: str = "") -> None:
        """Close a connection held by any node.

        `code` is 1000, 1001, 1008, 1011, 1012, 1013 or one from 3000 to 4999; after 4410 our clients stay away. Of the
        `reason` 123 bytes of UTF-8 are sent. Returns when the node that holds the connection has begun to close it:
        what was written before goes first, and within 5 seconds it is gone, whatever its client does. To close one
        that is closing already does nothing.

        Raises `ConnectionNotFound`, `InvalidParam` for other codes, and `Unavailable` when its node does not answer.
        """

    # ---- channels

    @abstractmethod
    async def join(self, conn_id: str, channel: str) -> bool:
        """Put a connection, held by any node, in a channel; tell whether that created the channel.

        Nobody is asked whether its client may, and no review takes it out again: what a client chooses is for
        `join_for`. Returns once Redis has confirmed the subscription and stored the membership; from then on the
        connection gets what is written to the channel. Joining twice is harmless, and creates nothing.

        Raises `InvalidChannel`, `TooManyChannels`, `ConnectionNotFound` (also when it leaves meanwhile), and
        `Unavailable`: a join that fails is undone; but where the connection's node, another one, does not answer, it
        may have joined.
        """

    @abstractmethod
    async def join_for(self, connection: Connection, channel: str) -> bool:
        """Do for a client of this node what its `$join` would, the channel being its choice; tell if that created it.

        Rule, token and handler are asked, now and again when they change (`review`). Waits for what `join` waits for.
        Raises `Forbidden`, and what `join` and the handler's `authorize` raise.
        """

    @abstractmethod
    async def leave(self, conn_id: str, channel: str) -> bool:
        """Take a connection, held by any node, out of a channel; tell whether that emptied the channel.

        Its node writes it nothing more of the channel from then on, and tells a client that speaks v1 (`$left`, behind
        all that it got). Returns once that is stored. Leaving twice is harmless, and empties nothing.
        Raises `ConnectionNotFound`, `InvalidChannel`, and `Unavailable` when it was not stored in time: the connection
        is out all the same, and it is stored when Redis is back.
        """

    @abstractmethod
    async def authorize(self, connection: Connection, channel: str, action: Action) -> bool:
        """Tell whether a client of this node may join a channel or send to it: rule, token and handler must all agree.

        This is what is asked for `?ch=`, `$join`, `join_for` and every command; `join` and `write_channel` ask nobody.
        Raises what the handler's `authorize` raises.
        """

    @abstractmethod
    async def review(self, connection: Connection) -> None:
        """Ask again for each channel that a client of this node chose; take it out where it may no longer be.

        To be called when what `authorize` goes by has changed. The client is told (`$left`, `forbidden`); channels
        that the server put it in are not asked about. An `authorize` that raises allows nothing. Returns when all is
        stored, or after `publish_timeout` seconds: then it is stored when Redis is back.
        """

    # ---- the end

    @abstractmethod
    async def drain(self) -> None:
        """Send the clients to other nodes (1012, in waves), let no new ones in, and remove what this node has in Redis.

        Returns within `drain_seconds`, or 4 seconds if that is longer: who has not gone by then is cut off.
        The end of the application does this by itself. Repeating it is harmless, and does not wait for the first call.
        """

    # ---- looking

    @abstractmethod
    async def history(self, channel: str, *, since: Position | None = None, limit: int = 100) -> Page:
        """Read what a channel keeps, oldest first: the newest `limit` messages, or the first `limit` after a position.

        After a position of another epoch, all messages of the present one count as later. A channel without history
        has none. Raises `InvalidChannel` and `Unavailable`.
        """

    @abstractmethod
    async def status(self) -> Status:
        """Describe the cluster, without a scan, however many connections it has. Raises `Unavailable`."""

    @abstractmethod
    def get_connections(self) -> AsyncIterator[ConnectionInfo]:
        """Yield every connection of the cluster, page by page, in no order.

        One that comes or goes meanwhile may be missed. Raises `Unavailable`, between two pages too.
        """

    @abstractmethod
    def get_connections_by_channel(self, channel: str) -> AsyncIterator[ConnectionInfo]:
        """Yield the connections in a channel, on all nodes, as `get_connections` does. Raises `InvalidChannel`."""

    @abstractmethod
    def get_online(self, channel: str) -> AsyncIterator[str]:
        """Yield the ids of the users online in a channel, each once; for an anonymous connection its connection id.

        Raises `InvalidChannel`, and `Unavailable`, between two pages too.
        """

    @abstractmethod
    def tap(self, channel: str | None = None) -> AsyncIterator[Message]:
        """Yield the messages written anywhere in the cluster, or to one channel, from the first one asked for on.

        It does not end by itself: leave it with `aclosing` or `break`. Up to 1,000 messages wait for a slow observer,
        and further ones are not shown to it: no tap slows delivery. Raises `Unavailable` when it cannot begin.
        """


class Handler:
    """Answers the commands of clients. Every method may be left out.

    For one connection `on_open`, each `on` and `on_close` run one at a time, in the order in which things happened;
    for different connections they run at the same time, in the event loop of the node. Nothing limits how long one
    may take: meanwhile further messages of that client wait (32, then its socket is not read). A method that blocks
    the loop instead of awaiting stops the whole node.

    Whatever these raise ends only the command in hand: a `GatewayError` is sent to the client as its `$error`,
    anything else, `SystemExit` too, is logged and is `internal` to the client. When the node ends, what is still under
    way at the end of its `drain_seconds` is cancelled.
    """

    without_channel: Collection[str] = ()
    """Commands that are not about a channel, such as one that joins one.

    A message that names no channel is about the connection's first one, and refused where its client may not send
    there. For these commands nobody asks that.
    """

    async def authenticate(self, request: web.Request) -> Profile | None:
        """Say who wants to connect, before the upgrade; None refuses with 401.

        Called for the gateway's own routes (`/connect`), not by `Service.upgrade`, which is given a profile. A
        `GatewayError` refuses with its own status, an HTTP error of aiohttp is the answer, anything else is a 500.

        This one goes by the settings: it wants a token where there is a key for tokens, else anybody may connect under
        the name in `?name=`. Your own replaces it, and may still ask `super()` for what it does not know.
        """
        return await identify(request)

    async def authorize(self, connection: Connection, channel: str, action: str) -> bool:
        """Say whether a client may `"join"` a channel or `"send"` to it. This one allows everything.

        Asked last, about what the client's token and the channel's rule allow: it can only restrict. Where the rule
        is `handler`, a handler without a method of its own allows nothing. Do not let the answer tell whether the
        channel exists.

        Asked for every message, so keep it quick; and again, for each channel that the client chose to join, when its
        token is renewed. For `?ch=` it is asked before the upgrade: the connection is in no channel yet, and has no
        socket.
        """
        return True

    @property
    def decides(self) -> bool:
        """Whether it has an `authorize` of its own, of its class or given to it as routers are."""
        return getattr(self.authorize, "__func__", None) is not Handler.authorize

    async def on_open(self, service: Service, connection: Connection) -> None:
        """Hear that a client has come, after its first channels are joined and before its first command.

        While Redis is away the joins wait, and so do this and the client's commands. The client may have left
        meanwhile (`connection.closed`).
        """

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        """Handle one command: `param` is whatever JSON the client sent, None where it sent nothing.

        What this returns answers the request, if the client asked for an answer (a v1 client, with an `id`); it must be
        something that JSON can say. An answer of more than `outbox_bytes` is not sent: the client is told `internal`,
        and the log says how large it was.

        Write what the client says to `connection.target`, where it may send, and use `service.join_for` for a channel
        that it wants to join. All else that a service does is the server's own decision, and asks nobody.

        The client may leave at any time: what is under way goes on, and writes to the connection are dropped.
        """
        raise UnknownCommand(f"unknown command {cmd!r}")

    async def on_close(self, service: Service, connection: Connection) -> None:
        """Hear that a client has gone, once, after the command in hand: what waited behind that is not handled.

        The connection is in no channel any more, and what is written to it is dropped. Also called when `on_open` has
        raised.
        """
