"""A connection's life on its node: handshake, registration, what its socket receives, and its end."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from asyncio import Transport
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.access.origin import refuse_foreign_socket
from gateway.access.proxies import through_proxies
from gateway.access.upgrade import (
    Upgrade,
    agree,
    reason_of,
    refuse_lone_token,
    refuse_when_full,
    status_of,
    too_many,
    upgrade_of,
)
from gateway.application.service import Handler
from gateway.config import Settings
from gateway.connections.connection import Connection, Profile
from gateway.connections.counters import Counters
from gateway.connections.heartbeat import Heartbeat
from gateway.connections.hub import Hub
from gateway.connections.websocket import CLOSE_TIMEOUT, WebSocket
from gateway.errors import ABANDONED, Close, ConnectionNotFound, GatewayError
from gateway.node.commands import Commands
from gateway.node.health import Health
from gateway.node.membership import Membership
from gateway.protocol import codec
from gateway.protocol.message import check_channel, check_user, make_id

if TYPE_CHECKING:
    from aiohttp import web

logger = logging.getLogger(__name__)

PROTOCOLS = (codec.JSON, codec.MSGPACK)
AGENT_LENGTH = 64
"""Of the browser's name that is kept: Redis stores a hash compactly while no value is longer."""


class Lifecycle:
    """Takes connections in and sees them out; the owner to whom their sockets tell what they receive."""

    def __init__(
        self,
        hub: Hub,
        membership: Membership,
        commands: Commands,
        heartbeat: Heartbeat,
        health: Health,
        settings: Settings,
        counters: Counters,
        *,
        patience: float = CLOSE_TIMEOUT,
    ) -> None:
        """`patience` is how many seconds the end of a connection may take."""
        self._hub = hub
        self._membership = membership
        self._commands = commands
        self._heartbeat = heartbeat
        self._health = health
        self._settings = settings
        self._counters = counters
        self._patience = patience
        self._upgrades: dict[str, Upgrade] = {}
        """What is still held of each handshake, until its request handler returns."""
        self._awaited: dict[str, asyncio.Future[None]] = {}
        """Of the connections whose end somebody awaits."""
        self._emptied = asyncio.Event()

    @contextmanager
    def receiving(self, request: web.Request) -> Iterator[None]:
        """Refuse a foreign page, or a token that stands alone, before anybody is asked, and tell operators why.

        Every request passes here once, whichever way leads it to `accept`.
        """
        try:
            refuse_foreign_socket(request, self._settings)
            refuse_lone_token(request, PROTOCOLS)
            yield
        except Exception as error:
            self._refused(request, error)
            raise

    def arrival(self, request: web.Request, profile: Profile, handler: Handler) -> Connection:
        """Make the connection that a request asks for: nobody but its handler knows of it before `accept`.

        Raises `InvalidUser`, and `GatewayError`, as a fault of the application's, for what is no profile or no handler.
        """
        _check_types(profile, handler)
        if profile.id:
            check_user(profile.id)
        return Connection(
            make_id(self._settings.node_id, secrets.token_hex(5)),
            replace(profile, name=_legible(profile.name or "")),
            handler,
            remote=through_proxies(request, self._settings.trusted_networks).remote or "",
            agent=_legible(request.headers.get("User-Agent", "")[:AGENT_LENGTH]),
        )

    async def accept(
        self, request: web.Request, channels: Sequence[str], connection: Connection
    ) -> asyncio.Future[None]:
        """Turn a request into a connection of this node; the future is done after its first joins.

        Raises aiohttp's HTTP errors and `InvalidChannel` for what is refused before the upgrade.
        """
        for channel in channels:
            check_channel(channel)
        request = through_proxies(request, self._settings.trusted_networks)
        refuse_when_full(len(self._hub), self._settings.max_connections, stopping=self._health.draining)
        terms = agree(request, PROTOCOLS, compress=self._settings.compression)
        upgrade = upgrade_of(request, terms)
        connection.dialect = codec.dialect_of(terms.protocol, terms.window)
        connection.started = time.time_ns() // 1_000_000
        transport = await self._opened(upgrade, connection)
        # Nothing is awaited from here to `hand_over`: the transport still has its old protocol, which would take what
        # comes from the client for a request, and hear of the end of the connection in our stead.
        socket = connection.socket = WebSocket(
            transport,
            connection,
            self,
            window=terms.window,
            limit=self._settings.max_message_bytes,
            outbox=self._settings.outbox_bytes,
            patience=self._patience,
        )
        if connection.protocol:
            socket.hold()  # in the hub it is written to, and its first message has to be `$welcome`
        self._upgrades[connection.id] = upgrade
        self._hub.add(connection)
        self._heartbeat.add(connection)
        self._counters.opened += 1
        opened = self._commands.opened(connection, channels)
        upgrade.hand_over(socket)
        return opened

    def _refused(self, request: web.Request, error: Exception) -> None:
        """Count a handshake that failed, and say why: no browser tells that to its page."""
        status = status_of(error)
        self._counters.refusals[status] += 1
        if status != 500:  # an application's exception is logged with its traceback
            remote = through_proxies(request, self._settings.trusted_networks).remote
            logger.info(
                "refused: node=%(node)s remote=%(remote)s status=%(status)s reason=%(reason).300s",
                {
                    "node": self._settings.node_id,
                    "remote": remote,
                    "status": status,
                    "reason": ascii(reason_of(error)),
                },
            )

    async def _opened(self, upgrade: Upgrade, connection: Connection) -> Transport:
        """Answer the handshake, if the user may have one more connection; a place taken for nothing is given back."""
        # Before the 101: a client over the limit that is closed after it would take that for a loss, and come back.
        if not await self._membership.reserve(connection):
            raise too_many(connection.user, self._settings.max_connections_per_user)
        try:  # others may have come meanwhile, or the end of the node
            refuse_when_full(len(self._hub), self._settings.max_connections, stopping=self._health.draining)
            return await upgrade.answer()
        except BaseException:
            self._membership.drop(connection)
            raise

    # ---- what sockets tell

    def received(self, connection: Connection, opcode: int, payload: bytes) -> None:
        """Take one message off a socket."""
        self._counters.received += 1
        self._counters.received_bytes += len(payload)
        connection.received += 1
        self._commands.received(connection, opcode, payload)

    def spared(self, connection: Connection, messages: int, *, first: bool) -> None:
        """Count what a slow reader misses, and say so when that begins."""
        self._counters.dropped += messages
        if first:
            logger.warning(
                "reads too slowly, messages are dropped: connection=%(connection)s", {"connection": connection.id}
            )

    def overhead(self, connection: Connection) -> None:
        """Let frames without a message count against the sender's pace."""
        self._commands.overhead(connection)

    def lost(self, connection: Connection, close: Close) -> None:
        """Forget a connection at once; its handler hears of it after the command in hand."""
        # First: joins that are under way look at it after each wait, and must not put back what is dropped here.
        connection.closed = True
        self._counters.count(close)
        self._heartbeat.remove(connection)
        self._membership.drop(connection)
        logger.info(
            "closed: node=%(node)s connection=%(connection)s code=%(code)s reason=%(reason)a received=%(received)s",
            {
                "node": connection.node,
                "connection": connection.id,
                "received": connection.received,
                "code": close.code,
                "reason": close.reason,
            },
        )
        if (awaited := self._awaited.get(connection.id)) is not None and not awaited.done():
            awaited.set_result(None)
        self._commands.closed(connection)
        if not self._hub.connections:
            self._emptied.set()

    # ---- the end

    async def closed(self, conn_id: str) -> None:
        """Wait until a connection is lost; return at once when it is no longer, or never was, here."""
        if conn_id in self._hub.connections:
            self._awaited[conn_id] = asyncio.get_running_loop().create_future()
            try:
                await self._awaited[conn_id]
            finally:
                del self._awaited[conn_id]

    async def emptied(self) -> None:
        """Wait until this node holds no connection."""
        while self._hub.connections:  # the event may be of an earlier time when there was none
            self._emptied.clear()
            await self._emptied.wait()

    async def finished(self) -> None:
        """Wait until this node holds no connection, and the handler is through with those it held."""
        await self.emptied()
        await self._commands.finished()

    def abandon(self, connection: Connection) -> None:
        """End a connection whose request handler has ended, unless `read_loop` was through with it."""
        if self._upgrades.pop(connection.id, None) is not None and not connection.closed:
            logger.warning("its request handler ended without read_loop: connection=%s", connection.id)
            connection.socket.close(ABANDONED)

    def release(self, conn_id: str) -> web.WebSocketResponse:
        """Hold nothing of a handshake any more; return what its request handler must return."""
        upgrade = self._upgrades.pop(conn_id, None)
        if upgrade is None:
            raise ConnectionNotFound(f"no connection {conn_id!r} was upgraded here, or it was read already")
        return upgrade.release()


def _check_types(profile: object, handler: object) -> None:
    """Tell an application at once what would only show with the first message, or with none that names the cause."""
    if not isinstance(profile, Profile):
        raise GatewayError(f"expected a gateway.Profile, got {profile!a:.200}")
    if not isinstance(handler, Handler):
        wanted = " instance, as in Chat(), not the class" if isinstance(handler, type) else ""
        raise GatewayError(f"expected a gateway.Handler{wanted}, got {handler!a:.200}")


def _legible(text: str) -> str:
    """Replace what UTF-8 cannot say: bytes of a header that are none, halves of characters in a token."""
    return text.encode(errors="replace").decode()
