"""The rate limits of one client: messages, bytes that it sends and is answered with, joins and leaves.

Three buckets, each one number of the connection. What a request costs beyond its own bytes is known when it has been
carried out, and is charged then: who has had more than there was, is refused until that is made up for.
"""

from __future__ import annotations

import asyncio
from math import inf

from gateway.config import Settings
from gateway.connections.connection import Connection
from gateway.connections.limits import Pace, pace_of

BURST_SECONDS = 4
"""Of `byte_rate`, at once: a client that comes back is written what it missed in all its channels."""
MESSAGES_PER_MOVE = 10
"""Joins and leaves may come at this fraction of the pace of messages: each is told to all members of the channel."""


class Budget:
    """Counts what the clients of a node cost."""

    def __init__(self, settings: Settings) -> None:
        self._messages = pace_of(settings.message_rate, settings.message_burst)
        self._bytes = _pace_of_bytes(settings)
        self._moves = _pace_of_moves(settings)
        self._most_bytes_owed = self._bytes.burst if self._bytes else inf
        self._most_moves_owed = self._moves.burst if self._moves else inf

    def admits(self, connection: Connection, size: int, now: float) -> bool:
        """Tell whether a client may send so many bytes now, and count that it did; 0 is a frame without a message."""
        if self._messages is not None:
            full_at = self._messages.take(connection.full_at, now)
            if full_at is None:
                return False
            connection.full_at = full_at
        if size and connection.paid_at - now > self._most_bytes_owed:
            return False
        if self._bytes is not None:
            connection.paid_at = self._bytes.charge(connection.paid_at, now, size)
        return True

    def owes(self, connection: Connection, now: float, size: int = 0) -> bool:
        """Tell whether a client has had more than it may; the message in hand, of so many bytes, does not count."""
        before = connection.paid_at - (self._bytes.interval * size if self._bytes else 0)
        return before - now > self._most_bytes_owed or connection.moves_full_at - now > self._most_moves_owed

    def is_patient(self, connection: Connection, now: float) -> bool:
        """Tell whether a client that is refused owes something, but keeps to the pace of messages."""
        return self.owes(connection, now) and not (self._messages and self._messages.wait(connection.full_at, now))

    def wait(self, connection: Connection, now: float) -> float:
        """Return the seconds until it may send again."""
        token = self._messages.wait(connection.full_at, now) if self._messages else 0.0
        owed = connection.paid_at - now - self._most_bytes_owed
        return max(0.0, token, owed, connection.moves_full_at - now - self._most_moves_owed)

    def answered(self, connection: Connection, size: int) -> None:
        """Charge, at this moment, what a client is written because it asked."""
        if self._bytes is not None:
            now = asyncio.get_running_loop().time()
            connection.paid_at = self._bytes.charge(connection.paid_at, now, size)

    def written(self, connection: Connection, size: int) -> None:
        """Charge what a client is written while a command of its own is in hand: the answer, most likely."""
        if connection.message is not None:
            self.answered(connection, size)

    def moved(self, connection: Connection, before: tuple[str, ...], now: float) -> None:
        """Charge the joins and leaves that a command has brought about."""
        if self._moves is not None:
            moves = len(set(before).symmetric_difference(connection.channels)) or 1
            connection.moves_full_at = self._moves.charge(connection.moves_full_at, now, moves)


def _pace_of_bytes(settings: Settings) -> Pace | None:
    """Make the pace of bytes: never so narrow that the largest message does not pass."""
    rate = settings.byte_rate
    return pace_of(rate, max(rate * BURST_SECONDS, settings.max_message_bytes))


def _pace_of_moves(settings: Settings) -> Pace | None:
    """Make the pace of joins and leaves: what each costs is paid by all members, who are told.

    As many at once as a client may need that leaves all its channels for others.
    """
    burst = 2 * settings.max_channels_per_connection or settings.message_burst
    return pace_of(settings.message_rate / MESSAGES_PER_MOVE, burst if settings.message_burst else 0)
