"""What clients send, from the socket to the handler: limits, one command at a time per connection, replies, errors."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.application.service import Service
from gateway.connections.budget import Budget
from gateway.connections.connection import Connection
from gateway.connections.limits import Refusals
from gateway.errors import (
    BadMessage,
    Forbidden,
    GatewayError,
    InvalidParam,
    RateLimited,
    Unavailable,
)
from gateway.node.gateway_commands import GatewayCommands
from gateway.node.rights import Rights, is_being_cancelled
from gateway.operations.taps import Taps
from gateway.protocol import codec
from gateway.protocol.frames import BINARY
from gateway.protocol.message import OWN, Message, check_channel

if TYPE_CHECKING:
    from gateway.operations.tracing.spans import Tracing

logger = logging.getLogger(__name__)

MOST_WAITING = 32
"""Messages of one client that may wait for the one in hand; beyond that its socket is not read. With the largest
messages that are taken by default that is 2 MiB."""

Job = Callable[[], Awaitable[object]]


class Commands:
    """Stands between the sockets and the handlers of one node."""

    def __init__(
        self,
        service: Service,
        *,
        gateway_commands: GatewayCommands,
        rights: Rights,
        taps: Taps,
        budget: Budget,
        tracing: Tracing | None = None,
    ) -> None:
        """`service` is what handlers are given."""
        self._service = service
        self._settings = service.settings
        self._counters = service.counters
        self._gateway_commands = gateway_commands
        self._rights = rights
        self._taps = taps
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._working: set[asyncio.Task[None] | None] = set()
        self._act = self._carry_out if tracing is None else tracing.of_commands(self._carry_out)

    def opened(self, connection: Connection, channels: Sequence[str]) -> asyncio.Future[None]:
        """Make the first joins, greet, and tell the handler; the future is done after that."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._put(connection, partial(self._open, connection, channels, done))
        return done

    def received(self, connection: Connection, opcode: int, payload: bytes) -> None:
        """Take one message off the socket; stop reading from a client that is far ahead of its handler."""
        if not self._budget.admits(connection, len(payload), self._time()):
            self._refuse_haste(connection, opcode, payload)
            return
        if b"$ping" in payload and self._is_probed(connection, opcode, payload):
            return
        self._put(connection, partial(self._handle, connection, opcode, payload))
        if connection.inbox is not None and len(connection.inbox) >= MOST_WAITING:
            connection.socket.pause_reading()

    def overhead(self, connection: Connection) -> None:
        """Count a frame that carries no message: who sends many does not do so for nothing."""
        if not self._budget.admits(connection, 0, self._time()):
            self._count_abuse(connection, fast=True)

    def closed(self, connection: Connection) -> None:
        """Tell the handler, once the command in hand is done; what waited behind it is dropped.

        The command in hand goes on: it may be half through with what concerns others.
        """
        if connection.inbox is not None:
            connection.inbox.clear()
        self._put(connection, partial(connection.handler.on_close, self._service, connection))

    def _refuse_haste(self, connection: Connection, opcode: int, payload: bytes) -> None:
        message, fields = None, {}
        try:
            message = _decoded(connection, opcode, payload)
        except BadMessage as error:
            fields = error.fields
        self._refuse(connection, self._too_fast(connection, **fields), message)

    def _too_fast(self, connection: Connection, **fields: Any) -> RateLimited:
        wait = self._budget.wait(connection, self._time())
        return RateLimited("sending too fast", **fields, retry_after=round(wait + 0.001, 3))

    def _is_probed(self, connection: Connection, opcode: int, payload: bytes) -> bool:
        """Answer a client that asks whether the connection lives, ahead of whatever its handler is busy with."""
        try:
            message = _decoded(connection, opcode, payload)
        except BadMessage:
            return False
        if message.cmd != "$ping" or message.id is None or not connection.protocol:
            return False
        self._reply(connection, message, {})
        return True

    async def run(self) -> None:
        """Own what is being carried out, until cancelled: that cancels it, too.

        A task group would do the same for 4 % of the time of a node whose clients send much.
        """
        try:
            await self._loop.create_future()
        finally:
            if working := self._under_way():
                logger.warning("broken off with the node: commands=%s", len(working))
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    async def finished(self) -> None:
        """Wait until nothing is being carried out any more, but for the command that asks."""
        while working := self._under_way():  # again: a connection that ends meanwhile has an `on_close`
            await asyncio.wait(working)

    def _under_way(self) -> list[asyncio.Task[None]]:
        return [task for task in self._working if task not in (None, asyncio.current_task(self._loop))]

    # ---- one at a time

    def _put(self, connection: Connection, job: Job) -> None:
        if connection.inbox is not None:
            connection.inbox.append(job)
            return
        connection.inbox = deque((job,))
        work = self._work(connection, connection.inbox)
        self._working.add(self._loop.create_task(work, name=connection.id))

    async def _work(self, connection: Connection, inbox: deque[Job]) -> None:
        try:
            # Nothing is awaited between the last look at the inbox and its end below: who finds it there puts a job
            # in that is still taken out, who finds none starts another task.
            while inbox:
                await self._guarded(connection, inbox.popleft())
                if len(inbox) <= MOST_WAITING // 2:
                    connection.socket.resume_reading()
        finally:
            connection.inbox = None
            self._working.discard(asyncio.current_task(self._loop))

    async def _guarded(self, connection: Connection, job: Job) -> None:
        """Let nothing that an application raises go further than its own client, SystemExit included."""
        try:
            try:
                await job()
            except GatewayError as error:  # which may hold what nobody can be told
                self._refuse(connection, error, connection.message)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            self._counters.handler_errors += 1
            id, cmd = connection.id, _cmd(connection.message)
            logger.exception("handler failed: connection=%s cmd=%s", id, cmd, extra={"connection": id})
            self._send_error(connection, "internal", "the server failed to handle this", connection.message)
        finally:
            connection.message, connection.fallback = None, ""

    # ---- jobs

    async def _open(self, connection: Connection, channels: Sequence[str], done: asyncio.Future[None]) -> None:
        try:
            try:
                await self._rights.admit(connection, channels)
            finally:
                self._greet(connection)
            logger.info(
                "opened: node=%(node)s connection=%(connection)s user=%(user)s remote=%(remote)s channels=%(channels)s",
                {
                    "node": connection.node,
                    "connection": connection.id,
                    "user": connection.user,
                    "remote": connection.remote,
                    "channels": ",".join(connection.channels),
                },
            )
            await connection.handler.on_open(self._service, connection)
        finally:
            if not done.done():
                done.set_result(None)

    async def _handle(self, connection: Connection, opcode: int, payload: bytes) -> None:
        message = _decoded(connection, opcode, payload)
        connection.message = message
        if self._taps.wanted:
            self._taps.heard(connection, message)
        began, channels = self._time(), connection.channels
        if self._budget.owes(connection, began, len(payload)):  # by now: what came in the same packet was answered
            raise self._too_fast(connection)
        try:
            result = await self._act(connection, message)
        finally:
            self._counters.handling.observe(self._time() - began)
            if connection.channels is not channels:
                self._budget.moved(connection, channels, self._time())
        if message.id is not None and connection.protocol:
            self._reply(connection, message, result)

    async def _carry_out(self, connection: Connection, message: Message) -> object:
        if message.channel:
            check_channel(message.channel)
        if message.cmd.startswith(OWN):
            return await self._gateway_commands.carry_out(connection, message)
        channel = message.channel
        if not channel and message.cmd not in connection.handler.without_channel:
            channel = connection.channel
        if channel and not await self._rights.allow(connection, channel, "send"):
            raise Forbidden(f"not allowed to send to {channel}")
        if channel not in connection.channels:  # a handler that answers in `connection.target` means another one
            connection.fallback = await self._rights.fallback(connection)
        connection.message = message if message.channel else message._replace(channel=channel)
        return await connection.handler.on(self._service, connection, message.cmd, message.param)

    # ---- answers

    def _greet(self, connection: Connection) -> None:
        """Let the client's first message be `$welcome`, whatever its channels brought meanwhile."""
        if not connection.protocol:
            return
        welcome = {
            "connection": connection.id,
            "node": connection.node,
            "user": connection.user,
            "channels": connection.channels,
            "heartbeat": self._settings.heartbeat,
        }
        connection.socket.release(codec.frame_for(connection.dialect, codec.encode("$welcome", welcome)))

    def _reply(self, connection: Connection, message: Message, result: object) -> None:
        assert message.id is not None
        try:
            payload = codec.encode_reply(message.id, result, message.channel)
        except InvalidParam as error:  # the handler's fault, not the client's
            raise TypeError(f"the answer to {message.cmd!r} {error}") from None
        has_own_bound = message.cmd.startswith(OWN)  # such as the pages of a history
        if 0 < self._settings.outbox_bytes < len(payload) and not has_own_bound:
            self._withhold(connection, message, len(payload))
            return
        self._budget.answered(connection, len(payload))
        _write(connection, payload)

    def _withhold(self, connection: Connection, message: Message, size: int) -> None:
        """Say instead of a handler's answer that it is too large: its client would be closed for reading it slowly."""
        self._counters.handler_errors += 1
        logger.error(
            "an answer is too large: connection=%s cmd=%s bytes=%s outbox_bytes=%s",
            connection.id,
            ascii(message.cmd),
            size,
            self._settings.outbox_bytes,
            extra={"connection": connection.id},
        )
        text = f"the answer has {size} bytes, at most {self._settings.outbox_bytes} are sent"
        self._send_error(connection, "internal", text, message)

    def _refuse(self, connection: Connection, error: GatewayError, message: Message | None) -> None:
        self._counters.refused += 1
        self._send_error(connection, error.code, error.message, message, **error.fields)
        if not isinstance(error, Unavailable) and not self._is_excused(connection, error, message):
            self._count_abuse(connection, fast=isinstance(error, RateLimited))

    def _is_excused(self, connection: Connection, error: GatewayError, message: Message | None) -> bool:
        """Tell whether a refusal is no sign of abuse: who comes back joins all its channels at once.

        It is told for each how long to wait while it owes what the first ones brought, which may be much.
        """
        is_join = message is not None and message.cmd == "$join" and isinstance(error, RateLimited)
        return is_join and self._budget.is_patient(connection, self._time())

    def _count_abuse(self, connection: Connection, *, fast: bool) -> None:
        now = self._time()
        if connection.refusals is None:
            connection.refusals = Refusals(now)
        connection.refusals.add(now, fast=fast)
        if close := connection.refusals.verdict(self._settings.abuse_limit):
            connection.socket.close(close)

    def _send_error(self, connection: Connection, code: str, text: str, message: Message | None, **fields: Any) -> None:
        if message is not None:
            fields["id"], fields["channel"] = message.id, message.channel
        _write(connection, codec.encode_error(code, text, **fields))


def _write(connection: Connection, payload: bytes) -> None:
    connection.socket.write(codec.frame_for(connection.dialect, payload))


def _decoded(connection: Connection, opcode: int, payload: bytes) -> Message:
    is_binary = connection.protocol == codec.MSGPACK
    if (opcode == BINARY) != is_binary:
        raise BadMessage(f"expected a {'binary' if is_binary else 'text'} frame")
    return codec.decode_msgpack(payload) if is_binary else codec.decode(payload)


def _cmd(message: Message | None) -> str:
    return ascii(message.cmd) if message else "-"
