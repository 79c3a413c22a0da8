"""The one object that applications talk to: where hub, backplane and presence meet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.access import Action
from gateway.answers import Answers
from gateway.backplane import ALL, DIRECT, NODES, Page, Target, open_backplane
from gateway.backplane.counters import BackplaneCounters
from gateway.backplane.links import check_redis, open_links
from gateway.backplane.wait import Steps
from gateway.budget import Budget
from gateway.commands import Commands
from gateway.config import Settings, database_of
from gateway.connection import Connection, ConnectionInfo, Profile
from gateway.counters import Counters
from gateway.delivery import Delivery
from gateway.directory import Directory
from gateway.drain import Drain
from gateway.envelope import Envelope
from gateway.errors import ENDED, GOING_AWAY, Close, InvalidParam
from gateway.expiry import Expiry
from gateway.handler import Handler
from gateway.heartbeat import Heartbeat
from gateway.history import History
from gateway.hub import Hub
from gateway.journal import Journal
from gateway.journal_store import open_journal_store
from gateway.membership import Membership
from gateway.message import Message, Position, check_channel
from gateway.neighbours import Neighbours
from gateway.operations import Operations
from gateway.outbound import Outbound
from gateway.presence import SCRIPTS, open_presence
from gateway.reader import Reader
from gateway.reception import Reception
from gateway.redis.records import Rejections
from gateway.remote import Remote
from gateway.revocations import Revocations
from gateway.rights import Rights
from gateway.starting import Starting
from gateway.status import Held, Readiness, Status
from gateway.tap import Filter, Taps
from gateway.tokens import Tokens
from gateway.tracing import handshaking, open_tracing
from gateway.version import __version__
from gateway.vitals import Vitals
from gateway.watchdog import LoopLag, Watchdog
from gateway.websocket import CLOSE_TIMEOUT
from gateway.writing import Writing

if TYPE_CHECKING:
    from aiohttp import web

logger = logging.getLogger(__name__)


class Service(Writing):
    """Manages connections and channels: of this node itself, of the cluster through Redis.

    Messages of one publisher to one channel arrive in order, and all members of a channel see the same
    order. A write returns once the backplane has taken it, not when clients have read it; without history
    a message is delivered at most once. Whatever needs Redis raises `Unavailable` when Redis does not
    take it within the publish timeout.
    """

    _reception: Reception
    _drain: Drain

    def __init__(self, settings: Settings) -> None:
        """Raise `InvalidSettings`; everything else is made by `running`."""
        check_redis(settings)
        self.settings = settings
        self.counters = Counters()
        self.tokens = Tokens(settings)
        self.tracing = open_tracing(settings.tracing, node=settings.node_id)
        """None where there are no traces."""
        self._starting = Starting(settings)
        self.patience = CLOSE_TIMEOUT
        """Seconds that the end of a connection may take, whatever its client does; to be set before the node runs."""
        self.crashed = asyncio.Event()
        """Set when a part of this node has failed, by a fault of ours: it serves nobody any more, and should end."""

    def _build(self) -> None:
        """Make the parts of a node that begins to run, and its name.

        Not before: a server may load the application first and fork then, and two processes that share a name, or
        whatever else is drawn by lot here, would take each other's connections for ghosts of their own.
        """
        settings = self.settings = self.settings.named()
        hub = self._hub = Hub()
        self._taps = Taps(settings.node_id)
        rejections = self._rejections = Rejections(self.counters)
        links = open_links(settings, SCRIPTS)
        backplane = self._backplane = open_backplane(settings, links, rejections)
        self._delivery = Delivery(self._hub, settings.rule, self.counters)
        budget = self.budget = Budget(settings)
        history = self._history = History(self._hub, backplane, self._delivery, settings.rule, self.counters, budget)
        vitals = self._vitals = Vitals(
            *(self._hub, self.counters, lambda: self.backplane_counters),
            *(lambda: self._condition, lambda: self.loop_lag.most, lambda: len(self._taps.here)),
        )
        store = open_journal_store(links, rejections, secret=settings.cluster_secret)
        journal = self._journal = Journal(settings.node_id, store, self.counters, rejections)
        vitals.sampled.append(journal.sampled)
        presence = self._presence = open_presence(
            *(settings, links, backplane, hub, self.counters, rejections), vital=vitals.current, reaped=journal.lost
        )
        self._remote = Remote(settings.node_id, backplane, Answers(self, hub).give, timeout=settings.publish_timeout)
        self.directory = Directory(self._hub, presence, self._remote)
        self.tracing = open_tracing(settings.tracing, node=settings.node_id)
        expiry = self._expiry = Expiry(self._hub)
        self._membership = Membership(self._hub, backplane, history, presence, expiry, settings)
        self._outbound = self._make_outbound()
        self._rights = Rights(self._membership, settings.rule, self.counters)
        self._heartbeat = Heartbeat(settings.heartbeat)
        self._watchdog = Watchdog(self._hub, presence.hold, self.counters)
        self.operations = Operations(backplane, self._remote, presence, vitals, journal, Revocations(store), self._taps)
        """What operators see and do."""
        database = database_of(settings.redis_url)
        self._neighbours = Neighbours(settings.node_id, settings.prefix, database, backplane, presence)

    def _make_outbound(self) -> Outbound:
        return Outbound(
            backplane=self._backplane,
            remote=self._remote,
            taps=self._taps,
            counters=self.counters,
            tracing=self.tracing,
            rule=self.settings.rule,
            epoch=self._history.epoch,
        )

    @property
    def node_id(self) -> str:
        """The name of this node in the cluster: the one it was given, or, from the moment it runs, one made for it."""
        return self.settings.node_id

    @property
    def held(self) -> Held:
        """How much this node itself holds."""
        waiting = sum(connection.socket.waiting_bytes for connection in self._hub.connections.values())
        return Held(len(self._hub), len(self._hub.channels), len(self._hub.users), waiting)

    @property
    def backplane_counters(self) -> BackplaneCounters:
        """What this node's backplane counts."""
        return self._backplane.counters

    @property
    def loop_lag(self) -> LoopLag:
        """By how much this node's event loop is late."""
        return self._watchdog.lag

    @property
    def readiness(self) -> Readiness:
        """How this node is placed to serve clients."""
        if self._starting.is_over or self.crashed.is_set():
            return self._condition
        return Readiness("starting", [self._starting.reason])

    @property
    def _condition(self) -> Readiness:
        """The same of one that is up, as the others are told."""
        trouble = [*self._backplane.trouble, *self._presence.trouble, *self._neighbours.trouble]
        if self.crashed.is_set():
            return Readiness("crashed", ["a part of this node has failed; its log says which"])
        if self._reception.stopping:
            return Readiness("draining", ["this node is stopping", *trouble])
        if self._backplane.deaf:
            return Readiness("deaf", ["this node does not hear what it publishes, though Redis answers", *trouble])
        return Readiness("degraded" if trouble else "ok", trouble)

    # ---- connections

    async def upgrade(self, request: web.Request, channel: str, profile: Profile, handler: Handler) -> str:
        """Turn a request into a WebSocket connection and join its first channel, if not ""; return its id.

        Await `read_loop` with that id next: the connection ends with its request handler (1011). Returns once the
        join is stored; if Redis is away for longer than the publish timeout, at once after that, and the join is
        made when it is back.

        Raises aiohttp's HTTP errors for what is refused before the upgrade (not a WebSocket, foreign origin,
        node full or stopping), `InvalidChannel` and `InvalidUser`.
        """
        with self.handshaking(request):
            channels = (channel,) if channel else ()
            connection, opened = await self._reception.accept(request, channels, profile, handler)
            connection.placed = channels  # before its first task runs
            request.task.add_done_callback(lambda _: self._reception.abandon(connection))
            if self.tracing is not None:
                self.tracing.opened(connection)
            await asyncio.wait((opened,), timeout=self.settings.publish_timeout)
        return connection.id

    @contextmanager
    def handshaking(self, request: web.Request) -> Iterator[None]:
        """Trace what becomes of a request, refuse foreign pages first of all, and tell operators why it is refused."""
        with handshaking(self.tracing, request.headers, request.path), self._reception.receiving(request):
            yield

    async def read_loop(self, conn_id: str) -> web.WebSocketResponse:
        """Wait until the connection has closed; return the response for the request handler to return."""
        try:
            await self._reception.closed(conn_id)
        finally:
            if (connection := self._hub.connections.get(conn_id)) is not None:
                connection.socket.close(GOING_AWAY)
        return self._reception.release(conn_id)

    async def serve(
        self, request: web.Request, channels: Sequence[str], profile: Profile, handler: Handler
    ) -> web.WebSocketResponse:
        """Do what `upgrade` and `read_loop` do, without keeping a task for the connection; return at once."""
        connection, _ = await self._reception.accept(request, channels, profile, handler)
        if self.tracing is not None:
            self.tracing.opened(connection)
        return self._reception.release(connection.id)

    async def disconnect(self, conn_id: str, *, code: int = ENDED.code, reason: str = "") -> None:
        """Close a connection held by any node. Raises `ConnectionNotFound`."""
        if code != 1000 and not 3000 <= code <= 4999 and code not in (1001, 1008, 1011, 1012, 1013):
            raise InvalidParam(f"expected a close code that a server may send, got {code}", field="code")
        if connection := self._hub.connections.get(conn_id):
            connection.socket.close(Close(code, reason or (ENDED.reason if code == ENDED.code else "")))
        else:
            await self._remote.ask("disconnect", conn_id, code=code, reason=reason)

    # ---- channels

    async def authorize(self, connection: Connection, channel: str, action: Action) -> bool:
        """Tell whether a client may join a channel or send to it: its rule, its token and its handler agree.

        Asked for `?ch=`, `$join`, `join_for` and every command; `join` and `write_channel` themselves ask nobody.
        """
        return await self._rights.allow(connection, channel, action)

    async def join_for(self, connection: Connection, channel: str) -> bool:
        """Do for a client what its `$join` would: the channel is its own choice. Tell whether that created it.

        Raises `Forbidden`, `InvalidChannel`, `TooManyChannels`.
        """
        return await self._rights.join_for(connection, check_channel(channel))

    async def review(self, connection: Connection) -> None:
        """Ask again for each channel that a client of this node chose; take it out where it may not be, and say so."""
        await self._rights.review(connection)

    async def join(self, conn_id: str, channel: str) -> bool:
        """Put a connection, held by any node, in a channel; tell whether that created the channel.

        Nobody is asked whether its client may: what a client chooses is for `join_for`. Returns once Redis has
        confirmed the subscription and stored the membership. Joining twice is harmless.
        Raises `ConnectionNotFound`, `InvalidChannel`, `TooManyChannels`.
        """
        check_channel(channel)
        connection = self._hub.connections.get(conn_id)
        if connection is None:
            return bool(await self._remote.ask("join", conn_id, channel=channel))
        return (await self._membership.place(connection, channel)).created

    async def leave(self, conn_id: str, channel: str) -> bool:
        """Take a connection, held by any node, out of a channel, and tell its client; tell whether that emptied it.

        Leaving twice is harmless. Raises `ConnectionNotFound`, `InvalidChannel`.
        """
        check_channel(channel)
        connection = self._hub.connections.get(conn_id)
        if connection is None:
            return bool(await self._remote.ask("leave", conn_id, channel=channel))
        return await self._membership.leave(connection, channel, "removed")

    # ---- looking

    async def history(self, channel: str, *, since: Position | None = None, limit: int = 100) -> Page:
        """Read what a channel keeps, oldest first: the newest messages, or the first after a position."""
        return await self._backplane.read(check_channel(channel), after=since, limit=limit)

    async def status(self) -> Status:
        """Describe the cluster; no scan, however large it is."""
        counts, nodes = await self._presence.count(), await self._presence.nodes()
        totals = (counts.channels, counts.connections, counts.users)
        return Status(self.node_id, __version__, nodes, *totals, len(self._taps.here), self.counters)

    def get_connections(self) -> AsyncIterator[ConnectionInfo]:
        """Yield every connection of the cluster, page by page. One that comes or goes meanwhile may be missed."""
        return self._presence.connections()

    def get_connections_by_channel(self, channel: str) -> AsyncIterator[ConnectionInfo]:
        """Yield the connections in a channel, on all nodes, page by page."""
        return self._presence.members(check_channel(channel))

    def get_online(self, channel: str) -> AsyncIterator[str]:
        """Yield the user ids online in a channel, each once; of an anonymous connection its connection id."""
        return self._presence.online(check_channel(channel))

    async def tap(self, channel: str | None = None) -> AsyncIterator[Message]:
        """Yield the messages written anywhere in the cluster, or to one channel, from now on.

        An observer that is slow misses messages; it never slows delivery.
        """
        async with self.operations.observers.observing(Filter(channel=channel or "", direction="out")) as tap:
            while True:
                yield (await tap.waiting.get()).message

    # ---- life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the node's tasks. Entering waits until Redis answers; leaving closes every connection first.

        Raises `CannotStart` when Redis stays away for `startup_timeout`, or refuses the log-in.
        """
        self._build()
        started = asyncio.Event()
        node = asyncio.create_task(self._run(started))
        node.add_done_callback(self._note_crash)
        try:
            await started.wait()
            await self._connected()
            yield
            await self.drain()
        finally:
            node.cancel()
            await asyncio.wait((node,))
            self._outbound.end()

    async def _run(self, started: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            commands = Commands(self, self._rights, self._membership, self._history, self._taps)
            self._reception = Reception(
                *(self._hub, self._membership, commands, self._heartbeat, self.settings, self.counters),
                patience=self.patience,
            )
            self._drain = Drain(self._hub, self._reception, self._journal, self._presence, self.settings)
            reader = Reader(
                *(self._backplane, self._delivery, self._history, self._taps, self._remote, self._neighbours),
                *(self.counters, self._rejections),
                tasks=tasks,
                tracing=self.tracing,
            )
            for run in (
                *(self._backplane.run, self._presence.run, reader.run, self._neighbours.run, commands.run),
                *(self._delivery.run, self._history.run, self._heartbeat.run, self._watchdog.run, self._expiry.run),
                *(self._vitals.run, self._journal.run, self._outbound.run, self.operations.observers.run),
            ):
                tasks.create_task(run())
            started.set()

    async def _connected(self) -> None:
        """Wait for Redis, and hear what concerns every node."""
        everybody = [ALL, DIRECT, NODES, Target("node", self.node_id)]
        steps: Steps = {
            "to be reached": self._backplane.ready,
            "to grant subscriptions": partial(self._backplane.subscribe, everybody),
            "to register this node, if no other process has its name": self._presence.ready,
        }
        await self._starting.go_through(steps, self._backplane.troubles)
        self._journal.event("up", f"version {__version__}")

    async def drain(self) -> None:
        """Send the clients to other nodes, take none in, and take what this node wrote out of Redis.

        Waits for `drain_seconds` at most. Repeating it is harmless.
        """
        await self._drain.run()

    def hurry(self) -> None:
        """Let a drain, under way or to come, send all clients away at once and hardly wait for them."""
        self._drain.hurry()

    # ---- towards other nodes

    def _publish(self, target: Target, envelope: Envelope) -> Coroutine[Any, Any, Position | None]:
        return self._outbound.publish(target, envelope)

    async def _write_direct(self, payload: bytes, conn_id: str) -> None:
        if (connection := self._hub.connections.get(conn_id)) is not None:
            self.budget.written(connection, len(payload))
            await self._publish(Target("node", self.node_id), Envelope(payload, connection=conn_id))
        else:
            await self._outbound.write_elsewhere(payload, conn_id)

    def _note_crash(self, node: asyncio.Task[None]) -> None:
        if not node.cancelled() and (error := node.exception()) is not None:
            logger.critical("the node has crashed", exc_info=error)
            self.crashed.set()
