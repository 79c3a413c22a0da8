"""The one object that applications talk to: where hub, backplane and presence meet."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway import codec
from gateway.backplane import ALL, DIRECT, NODES, TAP, Target, open_backplane
from gateway.codec import Envelope
from gateway.commands import Commands
from gateway.config import Settings
from gateway.connection import Connection, ConnectionInfo, Profile, make_id, node_of
from gateway.counters import Counters
from gateway.delivery import Delivery
from gateway.errors import (
    ENDED,
    GOING_AWAY,
    TOO_SLOW,
    Close,
    ConnectionNotFound,
    InvalidParam,
    InvalidSettings,
    Unavailable,
)
from gateway.handler import Handler
from gateway.handshake import Upgraded, refuse_foreign_origin, refuse_when_full
from gateway.heartbeat import keep_alive
from gateway.hub import Hub
from gateway.membership import Membership
from gateway.message import CMD_LENGTH, Message, check_channel, check_user
from gateway.presence import Counts, NodeInfo, open_presence
from gateway.reader import Reader
from gateway.remote import Remote
from gateway.tap import RENEW as TAP_RENEW
from gateway.tap import Taps
from gateway.version import __version__
from gateway.websocket import WebSocket

if TYPE_CHECKING:
    from aiohttp import web

logger = logging.getLogger(__name__)

PROTOCOLS = ("gateway.v1.json",)
RESTART_SPREAD = 5.0
"""Seconds over which the clients of a stopping node are asked to spread their return."""


class Status(NamedTuple):
    """The cluster at a glance, as seen by `node`. The counts are the cluster's, the counters this node's."""

    node: str
    version: str
    counts: Counts
    nodes: list[NodeInfo]
    counters: Counters
    taps: int


class Service:
    """Manages connections and channels: of this node itself, of the cluster through Redis.

    Messages of one publisher to one channel arrive in order, and all members of a channel see the same
    order. A write returns once the backplane has taken it, not when clients have read it; without history
    a message is delivered at most once. Whatever needs Redis raises `Unavailable` when Redis does not
    take it within the publish timeout.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counters = Counters()
        self._hub = Hub()
        self._taps = Taps()
        self._backplane = open_backplane(settings)
        self._presence = open_presence(settings, self._backplane)
        self._remote = Remote(settings.node_id, self._backplane, self._act, timeout=settings.publish_timeout)
        self._membership = Membership(self._hub, self._backplane, self._presence, settings)
        self._commands: Commands
        self._upgrades: dict[str, Upgraded] = {}
        self._closed: dict[str, asyncio.Future[None]] = {}
        """Of the connections whose end somebody awaits."""
        self._stopping = False
        self._emptied = asyncio.Event()

    @property
    def node_id(self) -> str:
        return self.settings.node_id

    # ---- connections

    async def upgrade(self, request: web.Request, channel: str, profile: Profile, handler: Handler) -> str:
        """Turn a request into a WebSocket connection and join its first channel; return the connection's id.

        Await `read_loop` with that id next. Returns once the join is stored; if Redis is away for longer than
        the publish timeout, at once after that, and the join is made when it is back.

        Raises aiohttp's HTTP errors for what is refused before the upgrade (not a WebSocket, foreign origin,
        node full or stopping), `InvalidChannel` and `InvalidUser`.
        """
        connection, opened = await self._accept(request, (channel,) if channel else (), profile, handler)
        await asyncio.wait((opened,), timeout=self.settings.publish_timeout)
        return connection.id

    async def read_loop(self, conn_id: str) -> web.WebSocketResponse:
        """Wait until the connection has closed; return the response for the request handler to return."""
        if conn_id in self._hub.connections:
            closed = self._closed[conn_id] = asyncio.get_running_loop().create_future()
            try:
                await closed
            finally:
                del self._closed[conn_id]
                if (connection := self._hub.connections.get(conn_id)) is not None:
                    connection.socket.close(GOING_AWAY)
        return self._release(conn_id)

    async def serve(
        self, request: web.Request, channels: Sequence[str], profile: Profile, handler: Handler
    ) -> web.WebSocketResponse:
        """Do what `upgrade` and `read_loop` do, without keeping a task for the connection; return at once."""
        connection, _ = await self._accept(request, channels, profile, handler)
        return self._release(connection.id)

    async def disconnect(self, conn_id: str, *, code: int = ENDED.code, reason: str = "") -> None:
        """Close a connection held by any node. Raises `ConnectionNotFound`."""
        if code != 1000 and not 3000 <= code <= 4999 and code not in (1001, 1008, 1011, 1012, 1013):
            raise InvalidParam(f"expected a close code that a server may send, got {code}", field="code")
        if connection := self._hub.connections.get(conn_id):
            connection.socket.close(Close(code, reason or (ENDED.reason if code == ENDED.code else "")))
        else:
            await self._remote.ask("disconnect", conn_id, code=code, reason=reason)

    # ---- channels

    async def join(self, conn_id: str, channel: str) -> bool:
        """Put a connection, held by any node, in a channel; tell whether that created the channel.

        Returns once Redis has confirmed the subscription and stored the membership. Joining twice is harmless.
        Raises `ConnectionNotFound`, `InvalidChannel`, `TooManyChannels`.
        """
        check_channel(channel)
        connection = self._hub.connections.get(conn_id)
        if connection is None:
            return bool(await self._remote.ask("join", conn_id, channel=channel))
        return await self._membership.join(connection, channel)

    async def leave(self, conn_id: str, channel: str) -> bool:
        """Take a connection, held by any node, out of a channel; tell whether that emptied it.

        Leaving twice is harmless. Raises `ConnectionNotFound`, `InvalidChannel`.
        """
        check_channel(channel)
        connection = self._hub.connections.get(conn_id)
        if connection is None:
            return bool(await self._remote.ask("leave", conn_id, channel=channel))
        return await self._membership.leave(connection, channel)

    # ---- writing

    async def write_connection(self, cmd: str, param: object, conn_id: str, *, sender: str | None = None) -> None:
        """Write to one connection, held by any node. Raises `ConnectionNotFound`."""
        payload = _encode(cmd, param, "", sender)
        await self._write_direct(payload, conn_id)

    async def write_channel(
        self,
        cmd: str,
        param: object,
        channel: str,
        *,
        exclude: Collection[str] = (),
        sender: str | None = None,
    ) -> None:
        """Write to every member of a channel but the connection ids in `exclude`."""
        payload = _encode(cmd, param, check_channel(channel), sender)
        await self._publish(Target("channel", channel), Envelope(payload, exclude))

    async def write_user(self, cmd: str, param: object, user_id: str, *, sender: str | None = None) -> None:
        """Write to every connection of a user. A user who is offline gets nothing, and that is no error.

        An anonymous connection is reached by its connection id.
        """
        payload = _encode(cmd, param, "", sender)
        check_user(user_id)
        if node_of(user_id):
            try:
                return await self._write_direct(payload, user_id)
            except ConnectionNotFound:
                pass  # a user id that only looks like a connection id
        await self._publish(Target("user", user_id), Envelope(payload))

    async def write_all(
        self, cmd: str, param: object, *, exclude: Collection[str] = (), sender: str | None = None
    ) -> None:
        """Write to every connection of every node but the connection ids in `exclude`."""
        await self._publish(ALL, Envelope(_encode(cmd, param, "", sender), exclude))

    # ---- looking

    async def status(self) -> Status:
        """Describe the cluster; no scan, however large it is."""
        counts, nodes = await self._presence.count(), await self._presence.nodes()
        return Status(self.node_id, __version__, counts, nodes, self.counters, len(self._taps.here))

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
        await self._backplane.subscribe([TAP])
        wish = asyncio.create_task(self._wish_to_tap())
        try:
            async for message in self._taps.observe(channel):
                yield message
        finally:
            wish.cancel()
            if not self._taps.here:
                self._backplane.unsubscribe([TAP])

    async def _wish_to_tap(self) -> None:
        while True:
            with suppress(Unavailable):
                await self._backplane.publish(NODES, codec.pack_map({"tap": self.node_id}))
            await asyncio.sleep(TAP_RENEW)

    # ---- life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the node's tasks. Entering waits until Redis answers; leaving closes every connection first.

        Raises `InvalidSettings` when Redis stays away for `startup_timeout`, or refuses the log-in.
        """
        started = asyncio.Event()
        node = asyncio.create_task(self._run(started))
        node.add_done_callback(_log_crash)
        try:
            await started.wait()
            await self._connected()
            yield
            await self._stop()
        finally:
            node.cancel()
            await asyncio.wait((node,))

    async def _run(self, started: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._commands = Commands(
                self,
                tasks=tasks,
                abuse_limit=self.settings.abuse_limit,
                presence_max=self.settings.presence_max,
            )
            delivery = Delivery(self._hub)
            reader = Reader(self._backplane, delivery, self._taps, self._remote, self.counters, tasks=tasks)
            tasks.create_task(self._backplane.run())
            tasks.create_task(self._presence.run())
            tasks.create_task(reader.run())
            tasks.create_task(keep_alive(self._hub, self.settings.heartbeat, self._count_no_pong))
            started.set()

    async def _connected(self) -> None:
        """Wait for Redis, and hear what concerns every node."""
        try:
            async with asyncio.timeout(self.settings.startup_timeout):
                await self._backplane.ready()
                await self._backplane.subscribe([ALL, DIRECT, NODES, Target("node", self.node_id)])
                await self._presence.ready()
        except TimeoutError:
            raise InvalidSettings(
                f"no Redis at {self.settings.redis_url} for {self.settings.startup_timeout:g} s"
            ) from None

    async def _stop(self) -> None:
        """Send the clients to other nodes, and take what this node wrote out of Redis."""
        self._stopping = True
        for connection in self._hub:
            pause = random.uniform(0, RESTART_SPREAD)
            connection.socket.close(Close(1012, f"node is restarting; retry_after={pause:.1f}"))
        try:
            async with asyncio.timeout(self.settings.drain_seconds):
                while self._hub.connections:
                    self._emptied.clear()
                    await self._emptied.wait()
                await self._presence.close()
        except TimeoutError:
            logger.warning("stopped with %s connections open, or Redis away", len(self._hub))

    # ---- one connection's life

    async def _accept(
        self, request: web.Request, channels: Sequence[str], profile: Profile, handler: Handler
    ) -> tuple[Connection, asyncio.Future[None]]:
        for channel in channels:
            check_channel(channel)
        if profile.id:
            check_user(profile.id)
        refuse_foreign_origin(request, self.settings.allowed_origins)
        refuse_when_full(len(self._hub), self.settings.max_connections, stopping=self._stopping)
        upgrade = Upgraded(request, PROTOCOLS)
        connection = self._connection(request, upgrade.protocol, profile, handler)
        transport = await upgrade.answer()
        limit, outbox = self.settings.max_message_bytes, self.settings.outbox_bytes
        socket = connection.socket = WebSocket(transport, connection, self, limit=limit, outbox=outbox)
        self._upgrades[connection.id] = upgrade
        self._hub.add(connection)
        self.counters.opened += 1
        opened = self._commands.opened(connection, channels)
        upgrade.hand_over(socket)
        return connection, opened

    def _connection(self, request: web.Request, protocol: str, profile: Profile, handler: Handler) -> Connection:
        return Connection(
            make_id(self.node_id, secrets.token_hex(5)),
            profile,
            handler,
            protocol=protocol,
            started=time.time_ns() // 1_000_000,
            remote=request.remote or "",
            agent=request.headers.get("User-Agent", "")[:200],
        )

    async def admit(self, connection: Connection, channels: Sequence[str]) -> None:
        """Register a new connection and make its first joins, however long Redis stays away."""
        await self._membership.admit(connection, channels)
        logger.info(
            "opened: connection=%s user=%s remote=%s channels=%s",
            *(connection.id, connection.user, connection.remote, ",".join(connection.channels)),
        )

    # ---- what sockets tell

    def received(self, connection: Connection, opcode: int, payload: bytes) -> None:
        """Take one message off a socket."""
        self.counters.received += 1
        connection.received += 1
        self._commands.received(connection, opcode, payload)

    def lost(self, connection: Connection, close: Close) -> None:
        """Forget a connection at once; its handler hears of it after the command in hand."""
        connection.closed = True
        self.counters.closed += 1
        self.counters.slow += close is TOO_SLOW
        self._membership.drop(connection)
        logger.info(
            "closed: connection=%s code=%s reason=%s received=%s",
            *(connection.id, close.code, ascii(close.reason), connection.received),
        )
        if (closed := self._closed.get(connection.id)) is not None and not closed.done():
            closed.set_result(None)
        self._commands.closed(connection)
        if not self._hub.connections:
            self._emptied.set()

    def _release(self, conn_id: str) -> web.WebSocketResponse:
        upgrade = self._upgrades.pop(conn_id, None)
        if upgrade is None:
            raise ConnectionNotFound(f"no connection {conn_id!r} was upgraded here, or it was read already")
        return upgrade.release()

    # ---- towards other nodes

    async def _publish(self, target: Target, envelope: Envelope) -> None:
        self.counters.published += 1
        await self._backplane.publish(target, codec.pack(envelope))
        if self._taps.tapped():
            await self._backplane.publish(TAP, codec.pack(envelope))

    async def _write_direct(self, payload: bytes, conn_id: str) -> None:
        if conn_id in self._hub.connections:
            await self._publish(Target("node", self.node_id), Envelope(payload, connection=conn_id))
        else:
            await self._remote.ask("write", conn_id, payload=payload)

    def _count_no_pong(self) -> None:
        self.counters.no_pong += 1

    async def _act(self, verb: str, arguments: dict[str, Any]) -> object:
        """Do what another node asks, to a connection held here."""
        match arguments:
            case {"connection": str(id), **rest} if id in self._hub.connections:
                match verb, rest:
                    case "join", {"channel": str(channel)}:
                        return await self.join(id, channel)
                    case "leave", {"channel": str(channel)}:
                        return await self.leave(id, channel)
                    case "write", {"payload": bytes(payload)}:
                        self._hub.connections[id].socket.write(codec.frame(codec.TEXT, payload))
                        return None
                    case "disconnect", {"code": int(code), "reason": str(reason)}:
                        await self.disconnect(id, code=code, reason=reason)
                        return None
        raise ConnectionNotFound(f"no connection {arguments.get('connection')!r}")


def _log_crash(node: asyncio.Task[None]) -> None:
    if not node.cancelled() and (error := node.exception()) is not None:
        logger.critical("the node has crashed", exc_info=error)


def _encode(cmd: str, param: object, channel: str, sender: str | None) -> bytes:
    if not 0 < len(cmd) <= CMD_LENGTH:
        raise InvalidParam(
            f"expected cmd to be a string of 1 to {CMD_LENGTH} characters, got {cmd!r:.200}", field="cmd"
        )
    return codec.encode(cmd, param, channel, sender)
