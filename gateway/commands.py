"""Carries out what clients send: one thing at a time for each connection, in order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway import codec
from gateway.application.service import Service
from gateway.budget import Budget
from gateway.connection import Connection
from gateway.directory import Directory
from gateway.envelope import encode_history
from gateway.errors import (
    BadMessage,
    Forbidden,
    GatewayError,
    InvalidParam,
    RateLimited,
    Unauthorized,
    Unavailable,
    UnknownCommand,
)
from gateway.frames import BINARY
from gateway.history import History
from gateway.limits import Refusals
from gateway.membership import Membership
from gateway.message import OWN, Message, Position, check_channel
from gateway.rights import Rights, is_being_cancelled
from gateway.tap import Taps
from gateway.tokens import Tokens

if TYPE_CHECKING:
    from gateway.tracing.spans import Tracing

logger = logging.getLogger(__name__)

MOST_WAITING = 32
"""Messages of one client that may wait for the one in hand; beyond that its socket is not read."""

Job = Callable[[], Awaitable[object]]


class Commands:
    """Stands between the sockets and the handlers of one node."""

    def __init__(
        self,
        service: Service,
        *,
        tokens: Tokens,
        rights: Rights,
        membership: Membership,
        history: History,
        directory: Directory,
        taps: Taps,
        budget: Budget,
        tracing: Tracing | None = None,
    ) -> None:
        """`service` is what handlers are given."""
        self._service = service
        self._settings = service.settings
        self._counters = service.counters
        self._tokens = tokens
        self._rights = rights
        self._membership = membership
        self._kept = history
        self._directory = directory
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
        """Tell the handler, once the command in hand is done; what waited behind it is dropped."""
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
        while working := self._under_way():
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
            return await self._own(connection, message)
        channel = message.channel
        if not channel and message.cmd not in connection.handler.without_channel:
            channel = connection.channel
        if channel and not await self._rights.allow(connection, channel, "send"):
            raise Forbidden(f"not allowed to send to {channel}")
        if channel not in connection.channels:  # a handler that answers in `connection.target` means another one
            connection.fallback = await self._rights.fallback(connection)
        connection.message = message if message.channel else message._replace(channel=channel)
        return await connection.handler.on(self._service, connection, message.cmd, message.param)

    async def _own(self, connection: Connection, message: Message) -> object:
        """Carry out a command that belongs to the gateway."""
        command = _COMMANDS.get(message.cmd) if connection.protocol else None
        if command is None:
            raise UnknownCommand(f"unknown command {message.cmd!r}")
        channel = message.channel if message.cmd == "$auth" else check_channel(message.channel)
        return await command(self, connection, channel, message.param)

    async def _auth(self, connection: Connection, channel: str, param: object) -> object:
        """Take a fresh token of the same user: when it ends, and the name and patterns in it, hold from now on.

        Answered when its client is out of the channels that it does not allow.
        """
        fresh = await self._tokens.verify(token_of(param))
        if fresh.id != connection.profile.id:
            raise Unauthorized("expected a token of the user who is connected")
        await self._rights.renew(connection, fresh)
        return {"expires": fresh.expires or None}

    async def _join(self, connection: Connection, channel: str, param: object) -> object:
        joined = await self._rights.join(connection, channel, since_of(param))
        at = await self._kept.reached(channel)
        return {"epoch": at and at.epoch, "offset": at and at.offset, "recovered": joined.recovered}

    async def _history(self, connection: Connection, channel: str, param: object) -> object:
        since, limit = since_of(param), limit_of(param)
        _check_member(connection, channel, "read its history")
        most = self._settings.rule(channel).history
        if not most:
            raise Forbidden(f"{channel} keeps no history")
        page = await self._kept.reply(channel, since, most if limit is None else min(limit, most))
        _check_member(connection, channel, "read its history")  # it may have been taken out meanwhile
        return {"messages": encode_history(page.messages), "epoch": page.epoch, "offset": page.offset}

    async def _leave(self, connection: Connection, channel: str, param: object) -> object:
        await self._membership.leave(connection, channel)
        return {}

    async def _presence(self, connection: Connection, channel: str, param: object) -> object:
        _check_member(connection, channel, "see who is there")
        if not self._settings.rule(channel).presence:
            raise Forbidden(f"{channel} does not tell who is there")
        count, users = await self._directory.online(channel, most=self._settings.presence_max)
        _check_member(connection, channel, "see who is there")
        return {"count": count} if users is None else {"count": count, "users": users}

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
        self._budget.answered(connection, len(payload))
        _write(connection, payload)

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


_COMMANDS: dict[str, Callable[[Commands, Connection, str, object], Awaitable[object]]] = {
    "$auth": Commands._auth,
    "$join": Commands._join,
    "$leave": Commands._leave,
    "$presence": Commands._presence,
    "$history": Commands._history,
}


def _check_member(connection: Connection, channel: str, what: str) -> None:
    if channel not in connection.channels:
        raise Forbidden(f"only members of {channel} may {what}")


def _write(connection: Connection, payload: bytes) -> None:
    connection.socket.write(codec.frame_for(connection.dialect, payload))


def _decoded(connection: Connection, opcode: int, payload: bytes) -> Message:
    is_binary = connection.protocol == codec.MSGPACK
    if (opcode == BINARY) != is_binary:
        raise BadMessage(f"expected a {'binary' if is_binary else 'text'} frame")
    return codec.decode_msgpack(payload) if is_binary else codec.decode(payload)


def since_of(param: object) -> Position | None:
    """Read the `since` of `$join` and `$history`; raise `InvalidParam`."""
    if param is not None and not isinstance(param, dict):
        raise InvalidParam("expected param to be an object", field="param")
    since = (param or {}).get("since")
    if since is None:
        return None
    match since:
        case {"epoch": str(epoch), "offset": int(offset)} if type(offset) is int and offset >= 0:
            return Position(epoch, offset)
    raise InvalidParam('expected since to be {"epoch": string, "offset": integer}', field="since")


def token_of(param: object) -> str:
    """Read the `token` of `$auth`; raise `InvalidParam`."""
    match param:
        case {"token": str(token)}:
            return token
    raise InvalidParam('expected {"token": string}', field="token")


def limit_of(param: object) -> int | None:
    """Read the `limit` of `$history`; raise `InvalidParam`."""
    limit = param.get("limit") if isinstance(param, dict) else None
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidParam("expected limit to be an integer from 0", field="limit")
    return limit


def _cmd(message: Message | None) -> str:
    return ascii(message.cmd) if message else "-"
