"""Joins and leaves: hub, subscription, history and presence, in the order in which no message is lost.

Joining: hub first, then the subscription, then presence, so that whoever sees a member can reach it.
Leaving goes the other way, and never waits before the node itself has forgotten.

Nobody is asked here whether it may be: for what clients choose that is `rights.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from gateway.backplane import Backplane, Target
from gateway.config import Settings
from gateway.connections.connection import Connection, Profile
from gateway.connections.expiry import Expiry
from gateway.connections.fanout import write
from gateway.connections.hub import Hub
from gateway.errors import ConnectionNotFound, TooManyChannels, Unavailable
from gateway.node.history import History
from gateway.presence import Registry
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope
from gateway.protocol.message import Position

COUNTING = 1.0
"""Seconds that a handshake waits to hear how many connections its user has in the cluster: Redis answers in a
millisecond, and while it is away clients are to be let in, not kept waiting."""
RETRY = 1.0
"""Seconds between tries at a first join while Redis is away: all clients of the node are retrying then."""


class Joined(NamedTuple):
    """What a join has done."""

    created: bool = False
    """Whether the channel was created by it."""
    recovered: bool = False
    """Whether the member was written all that it had missed."""


class Membership:
    """Where the connections of this node are."""

    def __init__(
        self, hub: Hub, backplane: Backplane, history: History, presence: Registry, expiry: Expiry, settings: Settings
    ) -> None:
        self._hub = hub
        self._expiry = expiry
        self._backplane = backplane
        self._history = history
        self._presence = presence
        self._most = settings.max_channels_per_connection
        self._timeout = settings.publish_timeout
        self._most_of_user = settings.max_connections_per_user
        self._under_way: dict[tuple[str, str], asyncio.Event] = {}
        """Joins that are not done, by connection id and channel."""

    async def reserve(self, connection: Connection) -> bool:
        """Count a connection that is about to be opened to its user; tell whether that one may have it.

        `drop` gives the place back. While Redis is away the limit holds on each node alone.
        """
        user, most = connection.profile.id, self._most_of_user
        if not user or not most:
            return True
        try:
            async with asyncio.timeout(COUNTING):
                return await self._presence.reserve(connection.info(), connection.agent, most)
        except (TimeoutError, Unavailable):
            if len(self._hub.of_user(user)) < most:
                return True
            self.drop(connection)  # Redis may have counted it, or do so yet
            return False
        except BaseException:  # such as the end of the request: the client left, and nobody else would give it back
            self.drop(connection)
            raise

    def renew(self, connection: Connection, fresh: Profile) -> None:
        """Take from a fresh profile of the same user what may have changed."""
        was = connection.profile
        connection.profile = replace(was, name=fresh.name, channels=fresh.channels, expires=fresh.expires)
        if connection.closed:
            return
        self._expiry.watch(connection)
        if fresh.name != was.name:
            self._presence.open(connection.info(), connection.agent)

    def touch(self, connection: Connection) -> Profile:
        """Give a connection a profile that is no other's: whoever asked for an earlier one sees that it is over."""
        connection.profile = replace(connection.profile)
        return connection.profile

    async def admit(self, connection: Connection, channels: Iterable[str]) -> None:
        """Register a connection of the hub and make its first joins, however long Redis stays away."""
        self._expiry.watch(connection)
        self._presence.open(connection.info(), connection.agent)
        if connection.profile.id:
            await _persist(connection, self._backplane.subscribe, [Target("user", connection.profile.id)])
        for channel in dict.fromkeys(channels):
            await _persist(connection, self.join, connection, channel)

    async def place(self, connection: Connection, channel: str) -> Joined:
        """Join a connection by the server's own decision: whatever its client may, it stays."""
        _note_placed(connection, channel)  # before anything is awaited: a review meanwhile is not to take it out
        try:
            return await self.join(connection, channel)
        finally:  # a join that has failed leaves no wish of the server's behind
            if channel not in connection.channels:
                _note_placed(connection, channel, placed=False)

    async def join(
        self, connection: Connection, channel: str, since: Position | None = None, *, asked_of: Profile | None = None
    ) -> Joined:
        """Return once the membership is stored, and what was missed since a position is written.

        A join that fails is undone. Raises `TooManyChannels`, `Unavailable`, or `ConnectionNotFound` when
        the connection left meanwhile, or has no longer the profile it was asked of whether it may.
        A member that joins again is written what came since the position.
        """
        kept, key = self._history.keeps(channel), (connection.id, channel)
        # Looked at again after each wait: the other join may have failed, and a third one begun.
        while (other := self._under_way.get(key)) is not None and channel in connection.channels:
            await other.wait()  # the server may put a connection where its client is on the way to
        if connection.closed:  # while its handler was asked whether it may, or in that wait
            raise _has_left(connection, channel)
        if channel in connection.channels:
            return Joined(recovered=kept and await self._history.enter(connection, channel, since))
        # Nothing is awaited from here until the hub has it: a review sees it then.
        if asked_of is not None and asked_of is not connection.profile:
            raise _has_left(connection, channel)
        if 0 < self._most <= len(connection.channels):
            raise TooManyChannels(f"a connection may be in {self._most} channels at most")
        # A member before the subscription is sure: one that leaves meanwhile takes the wish for it along, and one whose
        # channel keeps history receives from `History.enter` on, so that live messages do not overtake what it missed.
        self._hub.join(connection, channel, receiving=not kept)
        connection.joining += (channel,)
        done = self._under_way[key] = asyncio.Event()
        try:
            return await self._arrive(connection, channel, since)
        except (Unavailable, asyncio.CancelledError):  # the latter where a handler waits no longer
            if channel in connection.channels:
                self.take_out(connection, channel)
            raise
        finally:
            _let_know(connection, channel)
            done.set()
            # Taken out meanwhile, it may have been joined anew: then the event here is that one's.
            if self._under_way.get(key) is done:
                del self._under_way[key]

    async def _arrive(self, connection: Connection, channel: str, since: Position | None) -> Joined:
        """Do for a member what takes time: subscribe, write what it missed, store it."""
        # Checked after each wait: it may have left, been taken out, or its connection ended. Presence has heard of that
        # then, and would list it again.
        await self._backplane.subscribe([Target("channel", channel)])
        _check_still_in(connection, channel)
        # History is read with the subscription sure: what is appended after the page was read arrives by that.
        recovered = self._history.keeps(channel) and await self._history.enter(connection, channel, since)
        _check_still_in(connection, channel)
        _let_know(connection, channel)  # now, because what is stored of the connection itself lists its channels
        return Joined(await self._stored(self._presence.join(connection.info(), channel)), recovered)

    async def leave(self, connection: Connection, channel: str, reason: str = "") -> bool:
        """Return once the membership is removed; tell whether that emptied the channel."""
        _note_placed(connection, channel, placed=False)
        return channel in connection.channels and await self._stored(self.take_out(connection, channel, reason))

    def take_out(self, connection: Connection, channel: str, reason: str = "") -> Awaitable[bool]:
        """Take a connection out of a channel it is in, at once; what comes back is done when that is stored.

        With a `reason` its client, if it speaks v1, is told, behind all that it gets of the channel: nothing is
        awaited between the two.
        """
        # Presence is told now, not when it is stored: a join right behind this one comes behind it in Redis, too.
        self._forget(connection, channel)
        stored = self._presence.leave(connection.info(), channel)
        if reason and connection.protocol:
            write(connection, (Envelope(codec.encode("$left", {"reason": reason}, channel)),))
        return stored

    async def settled(self, changes: Iterable[Awaitable[bool]]) -> None:
        """Wait until all is stored, or Redis has taken too long: what is noted down is done in any case."""
        if noted := [asyncio.ensure_future(change) for change in changes]:
            await asyncio.wait((asyncio.gather(*noted, return_exceptions=True),), timeout=self._timeout)

    def drop(self, connection: Connection) -> None:
        """Take a connection that is gone out of everything; does not wait."""
        last_known = connection.info()  # before it is forgotten: presence has to hear of every channel that it was in
        for channel in connection.channels:
            self._forget(connection, channel)
        if self._hub.remove(connection):
            self._backplane.unsubscribe([Target("user", connection.profile.id)])
        self._presence.lose(last_known)

    def _forget(self, connection: Connection, channel: str) -> None:
        if self._hub.leave(connection, channel):
            self._history.forget(channel)
            self._backplane.unsubscribe([Target("channel", channel)])

    async def _stored(self, done: Awaitable[bool]) -> bool:
        stored = asyncio.ensure_future(done)
        if not stored.done():
            # `wait` leaves it running when the time is up, or whoever waits is cancelled: it is noted down already, and
            # is stored when Redis is back, in its order with what undoes it.
            await asyncio.wait((stored,), timeout=self._timeout)
        if not stored.done():
            raise Unavailable("Redis did not store it in time")
        return bool(stored.result())


def _let_know(connection: Connection, channel: str) -> None:
    """Let other nodes know of a membership: it is about to be stored."""
    connection.joining = tuple(other for other in connection.joining if other != channel)


def _note_placed(connection: Connection, channel: str, *, placed: bool = True) -> None:
    others = tuple(other for other in connection.placed if other != channel)
    connection.placed = (*others, channel) if placed else others


def _check_still_in(connection: Connection, channel: str) -> None:
    """Raise `ConnectionNotFound` when a connection was taken out of a channel it was about to join."""
    if channel not in connection.channels:
        raise _has_left(connection, channel)


def _has_left(connection: Connection, channel: str) -> ConnectionNotFound:
    return ConnectionNotFound(f"connection {connection.id} left before it had joined {channel}")


async def _persist(connection: Connection, do: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
    while not connection.closed:
        try:
            await do(*arguments)
            return
        except Unavailable:
            await asyncio.sleep(RETRY)
