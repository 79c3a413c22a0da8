"""The commands that belong to the gateway itself: `$auth`, `$join`, `$leave`, `$presence`, `$history`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.access.tokens import Tokens
from gateway.config import Settings
from gateway.connections.connection import Connection
from gateway.errors import Forbidden, InvalidParam, Unauthorized, UnknownCommand
from gateway.node.history import History
from gateway.node.membership import Membership
from gateway.node.rights import Rights
from gateway.operations.directory import Directory
from gateway.protocol.envelope import encode_history
from gateway.protocol.message import Message, Position, check_channel

Command = Callable[[Connection, str, object], Awaitable[object]]


class GatewayCommands:
    """Carries them out, all but `$ping`, for clients of the v1 protocols; those that speak plainly have none."""

    def __init__(
        self,
        settings: Settings,
        *,
        tokens: Tokens,
        rights: Rights,
        membership: Membership,
        history: History,
        directory: Directory,
    ) -> None:
        self._settings = settings
        self._tokens = tokens
        self._rights = rights
        self._membership = membership
        self._kept = history
        self._directory = directory
        self._commands: dict[str, Command] = {
            "$auth": self._auth,
            "$join": self._join,
            "$leave": self._leave,
            "$presence": self._presence,
            "$history": self._history,
        }

    async def carry_out(self, connection: Connection, message: Message) -> object:
        """Do what is asked, and return the answer. Raises `GatewayError`, `UnknownCommand` among them."""
        command = self._commands.get(message.cmd) if connection.protocol else None
        if command is None:
            raise UnknownCommand(f"unknown command {message.cmd!r}")
        channel = message.channel if message.cmd == "$auth" else check_channel(message.channel)
        return await command(connection, channel, message.param)

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
        # The position is told behind the messages up to it, some of which may still be on their way to the socket.
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


def _check_member(connection: Connection, channel: str, what: str) -> None:
    if channel not in connection.channels:
        raise Forbidden(f"only members of {channel} may {what}")


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
