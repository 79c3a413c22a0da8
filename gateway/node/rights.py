"""Authorization of clients: asked in one place for all that they do, and again when what it rests on has changed.

A channel's rule, the user's token and the application's handler have a say (`access/permission.py`). What a client asks
for comes through here: the channels of its address, `$join`, what a handler joins for it, every message it sends. Where
the server itself puts a connection nobody is asked, and it stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from gateway.access.permission import Action, passes
from gateway.config import Rule
from gateway.connections.connection import Connection, Profile
from gateway.connections.counters import Counters
from gateway.errors import ConnectionNotFound, Forbidden, GatewayError
from gateway.node.membership import Joined, Membership
from gateway.protocol.message import Position

logger = logging.getLogger(__name__)


class Rights:
    """Asks what clients may do, and joins them to the channels that they choose."""

    def __init__(self, membership: Membership, rule: Callable[[str], Rule], counters: Counters) -> None:
        self._membership = membership
        self._rule = rule
        self._counters = counters

    async def allow(self, connection: Connection, channel: str, action: Action) -> bool:
        """Tell whether a client may join a channel or send to it. Raises what its handler raises."""
        allowed = passes(self._rule(channel), connection, channel, action)
        return allowed and await connection.handler.authorize(connection, channel, action)

    async def fallback(self, connection: Connection) -> str:
        """Return where a message may go that names no channel of its sender: to the first one, if that is allowed."""
        first = connection.channel
        return first if first and await self._surely(connection, first, "send") else ""

    # ---- joining

    async def admit(self, connection: Connection, channels: Iterable[str]) -> None:
        """Make the first joins of a connection, which were asked for before its upgrade."""
        asked_of = connection.profile
        await self._membership.admit(connection, channels)
        if connection.profile is not asked_of:  # a review may have come between two tries, when it was in none of them
            await self.review(connection)

    async def join(self, connection: Connection, channel: str, since: Position | None = None) -> Joined:
        """Join a client to a channel of its choice. Raises `Forbidden`, and what `Membership.join` raises."""
        while True:
            # A review while the handler is asked, or while another join is waited for, does not see a channel that
            # the client is not in yet: the profile is another one after it, and who was asked for the earlier one
            # is asked again.
            asked_of = connection.profile
            if not await self.allow(connection, channel, "join"):
                raise Forbidden(f"not allowed to join {channel}")
            try:
                return await self._membership.join(connection, channel, since, asked_of=asked_of)
            except ConnectionNotFound:
                if connection.closed or connection.profile is asked_of:
                    raise

    async def join_for(self, connection: Connection, channel: str) -> bool:
        """Do what `join` does for a handler; tell whether that created the channel."""
        joined = await self.join(connection, channel)
        if connection.message is not None and connection.channel == channel:
            connection.fallback = await self.fallback(connection)  # its first channel only now: it may write there next
        return joined.created

    # ---- looking again

    async def renew(self, connection: Connection, fresh: Profile) -> None:
        """Take from a fresh profile of the same user what may have changed, and its rights with it."""
        self._membership.renew(connection, fresh)
        await self.review(connection)

    async def review(self, connection: Connection) -> None:
        """Ask again for the channels that a client chose; take it out of what it may not join any more, and tell it.

        What rule and token forbid ends before anything is awaited; a handler that fails to answer allows nothing.
        Returns when that is stored, or Redis has taken too long: it is made all the same. What a client may send is
        asked for each message anyway, and reading is for members.
        """
        asked_of = self._membership.touch(connection)
        left = [
            self._membership.take_out(connection, channel, "forbidden")
            for channel in connection.chosen
            if not passes(self._rule(channel), connection, channel, "join")
        ]
        for channel in connection.chosen:
            allowed = await self._surely(connection, channel, "join")
            if connection.profile is not asked_of:  # another review has begun, and asks for all of them
                break
            if not allowed and channel in connection.chosen:  # it may have left, or been put there, meanwhile
                left.append(self._membership.take_out(connection, channel, "forbidden"))
        await self._membership.settled(left)

    async def _surely(self, connection: Connection, channel: str, action: Action) -> bool:
        """Tell what `allow` does, where nobody is there to hear what a handler raises: that allows nothing."""
        try:
            return await self.allow(connection, channel, action)
        except GatewayError:
            return False
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            self._counters.handler_errors += 1
            logger.exception(
                "authorize failed: connection=%s channel=%s action=%s",
                connection.id,
                channel,
                action,
                extra={"connection": connection.id},
            )
            return False


def is_being_cancelled() -> bool:
    """Tell whether the task that asks is told to end, rather than what it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
