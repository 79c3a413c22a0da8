"""The `Service` of a node: it acts on its own connections itself, and asks other nodes to act on theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from gateway.access.permission import Action
from gateway.access.tokens import Tokens
from gateway.application.service import Handler, Service
from gateway.backplane import Page, Target
from gateway.config import Settings
from gateway.connections.connection import Connection, ConnectionInfo, Profile
from gateway.connections.counters import Counters
from gateway.connections.websocket import CLOSE_TIMEOUT
from gateway.errors import ENDED, GOING_AWAY, Close, InvalidParam, Unavailable
from gateway.node.node import Node
from gateway.node.startup import Startup
from gateway.operations.directory import Directory
from gateway.operations.operators import Operations
from gateway.operations.status import Held, Readiness, Status
from gateway.operations.taps import Filter
from gateway.operations.tracing import handshaking, open_tracing
from gateway.protocol.envelope import Envelope
from gateway.protocol.message import Message, Position, check_channel
from gateway.redis.links import check_redis
from gateway.version import __version__

if TYPE_CHECKING:
    from aiohttp import web


class NodeService(Service):
    """The service of one node: there from the moment an application is made, at work while the node runs."""

    def __init__(self, settings: Settings) -> None:
        """Raise `InvalidSettings`; the node itself is made by `running`."""
        check_redis(settings)
        open_tracing(settings.tracing, node=settings.node_id)  # to raise now what the node would raise
        self.settings = settings
        self.counters = Counters()
        self.crashed = asyncio.Event()
        self.tokens = Tokens(settings)
        self.patience = CLOSE_TIMEOUT
        """Seconds that the end of a connection may take, whatever its client does; to be set before the node runs."""
        self._startup = Startup(settings)
        self._node: Node | None = None
        """The one that runs, or ran last."""

    @property
    def node(self) -> Node:
        """The node behind this. Raises `Unavailable` before it runs."""
        if self._node is None:
            raise Unavailable("this node has not started")
        return self._node

    @property
    def readiness(self) -> Readiness:
        if self._node is None:
            return Readiness("starting", [self._startup.reason])
        return self._node.health.readiness

    @property
    def held(self) -> Held:
        """How much this node itself holds."""
        return self.node.held

    @property
    def directory(self) -> Directory:
        """What the cluster holds, to look it up."""
        return self.node.directory

    @property
    def operations(self) -> Operations:
        """What operators see and do."""
        return self.node.operations

    # ---- connections

    async def upgrade(self, request: web.Request, channel: str, profile: Profile, handler: Handler) -> str:
        node = self.node
        with self.handshaking(request):
            channels = (channel,) if channel else ()
            connection = node.lifecycle.arrival(request, profile, handler)
            opened = await node.lifecycle.accept(request, channels, connection)
            connection.placed = channels  # before its first task runs: a review meanwhile is not to take it out
            request.task.add_done_callback(lambda _: node.lifecycle.abandon(connection))
            if node.tracing is not None:
                node.tracing.opened(connection)
            # `wait` leaves it running: the join is made when Redis is back, and the socket is open meanwhile.
            await asyncio.wait((opened,), timeout=self.settings.publish_timeout)
        return connection.id

    async def read_loop(self, conn_id: str) -> web.WebSocketResponse:
        node = self.node
        try:
            await node.lifecycle.closed(conn_id)
        finally:  # still there only if the wait was cancelled: its request handler will not return the response
            if (connection := node.hub.connections.get(conn_id)) is not None:
                connection.socket.close(GOING_AWAY)
        return node.lifecycle.release(conn_id)

    @contextmanager
    def handshaking(self, request: web.Request) -> Iterator[None]:
        """Trace what becomes of a request, refuse foreign pages first of all, and tell operators why it is refused."""
        node = self.node
        with handshaking(node.tracing, request.headers, request.path), node.lifecycle.receiving(request):
            yield

    def arrival(self, request: web.Request, profile: Profile, handler: Handler) -> Connection:
        """Make the connection that a request asks for, so that its handler may be asked about it; see `serve`."""
        return self.node.lifecycle.arrival(request, profile, handler)

    async def serve(
        self, request: web.Request, channels: Sequence[str], connection: Connection
    ) -> web.WebSocketResponse:
        """Do what `upgrade` and `read_loop` do for an arrival, without keeping a task for it; return at once."""
        node = self.node
        await node.lifecycle.accept(request, channels, connection)
        if node.tracing is not None:
            node.tracing.opened(connection)
        return node.lifecycle.release(connection.id)

    async def disconnect(self, conn_id: str, *, code: int = ENDED.code, reason: str = "") -> None:
        if code != 1000 and not 3000 <= code <= 4999 and code not in (1001, 1008, 1011, 1012, 1013):
            raise InvalidParam(f"expected a close code that a server may send, got {code}", field="code")
        node = self.node
        if connection := node.hub.connections.get(conn_id):
            connection.socket.close(Close(code, reason or (ENDED.reason if code == ENDED.code else "")))
        else:
            await node.questions.ask("disconnect", conn_id, code=code, reason=reason)

    # ---- channels

    async def join(self, conn_id: str, channel: str) -> bool:
        check_channel(channel)
        node = self.node
        connection = node.hub.connections.get(conn_id)
        if connection is None:
            return bool(await node.questions.ask("join", conn_id, channel=channel))
        return (await node.membership.place(connection, channel)).created

    async def join_for(self, connection: Connection, channel: str) -> bool:
        return await self.node.rights.join_for(connection, check_channel(channel))

    async def leave(self, conn_id: str, channel: str) -> bool:
        check_channel(channel)
        node = self.node
        connection = node.hub.connections.get(conn_id)
        if connection is None:
            return bool(await node.questions.ask("leave", conn_id, channel=channel))
        return await node.membership.leave(connection, channel, "removed")

    async def authorize(self, connection: Connection, channel: str, action: Action) -> bool:
        return await self.node.rights.allow(connection, channel, action)

    async def review(self, connection: Connection) -> None:
        await self.node.rights.review(connection)

    # ---- looking

    async def history(self, channel: str, *, since: Position | None = None, limit: int = 100) -> Page:
        return await self.node.backplane.read(check_channel(channel), after=since, limit=limit)

    async def status(self) -> Status:
        node = self.node
        counts, nodes = await node.presence.count(), await node.presence.nodes()
        return Status(
            node=node.id,
            version=__version__,
            nodes=nodes,
            channels=counts.channels,
            connections=counts.connections,
            users=counts.users,
            taps=len(node.taps.here),
            counters=self.counters,
        )

    def get_connections(self) -> AsyncIterator[ConnectionInfo]:
        return self.node.presence.connections()

    def get_connections_by_channel(self, channel: str) -> AsyncIterator[ConnectionInfo]:
        return self.node.presence.members(check_channel(channel))

    def get_online(self, channel: str) -> AsyncIterator[str]:
        return self.node.presence.online(check_channel(channel))

    async def tap(self, channel: str | None = None) -> AsyncIterator[Message]:
        async with self.operations.observers.observing(Filter(channel=channel or "", direction="out")) as tap:
            while True:
                yield (await tap.waiting.get()).message

    # ---- life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Make the node and run it. Entering waits until Redis answers; leaving closes every connection first.

        Raises `CannotStart` when Redis stays away for `startup_timeout`, or refuses the log-in.
        """
        node = self._node = self._build()
        async with node.running():
            yield

    def _build(self) -> Node:
        """Make the parts of a node that begins to run, and its name."""
        self.settings = self.settings.named()
        self._startup = Startup(self.settings)  # that an earlier run was up says nothing of this one
        return Node(self, self.tokens, self._startup, patience=self.patience)

    async def drain(self) -> None:
        if self._node is not None:
            await self._node.drain.run()

    def hurry(self) -> None:
        """Let a drain, under way or to come, send all clients away at once and hardly wait for them."""
        if self._node is not None:
            self._node.drain.hurry()

    # ---- towards other nodes

    def _publish(self, target: Target, envelope: Envelope) -> Coroutine[Any, Any, Position | None]:
        return self.node.outbound.publish(target, envelope)

    async def _write_direct(self, payload: bytes, conn_id: str) -> None:
        node = self.node
        if (connection := node.hub.connections.get(conn_id)) is not None:
            # Through the backplane all the same: behind what was published before, as for every other receiver.
            node.budget.written(connection, len(payload))
            await self._publish(Target("node", node.id), Envelope(payload, connection=conn_id))
        else:
            await node.outbound.write_elsewhere(payload, conn_id)
