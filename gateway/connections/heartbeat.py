"""Pings every connection of the node in turn, and ends those that have stopped answering."""

from __future__ import annotations

import asyncio

from gateway.connections.connection import Connection
from gateway.errors import NO_PONG

TURN = 0.1
"""Seconds from one turn of the wheel to the next, unless the period is so short that there would be few. With the
default period of 25 s each turn pings one of 250 connections."""
FEWEST_TURNS = 10
"""In a period: fewer would ping a large part of the node in one go."""


class Heartbeat:
    """A wheel on which every connection has its place; each turn pings those of one place.

    One timer for all, and never a moment that pings them all. The place is where the connection's id falls,
    which is random. Who was silent from one turn to the next is closed with 4408: a connection that is
    half open is gone within two periods.
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self._places: list[set[Connection]] = [set() for _ in range(max(FEWEST_TURNS, round(period / TURN)))]

    def add(self, connection: Connection) -> None:
        self._place(connection).add(connection)

    def remove(self, connection: Connection) -> None:
        self._place(connection).discard(connection)

    async def run(self) -> None:
        """Turn the wheel, until cancelled; a period of 0 pings nobody."""
        while self._period:
            for place in self._places:
                await asyncio.sleep(self._period / len(self._places))
                for connection in list(place):  # to end one may take it out of its place
                    self._ping(connection)

    def _ping(self, connection: Connection) -> None:
        # Anything that has come counts, not a pong alone: that cannot overtake a long frame on its way (RFC 6455
        # section 5.4). Nobody waits for the answer to the close: there seems to be nobody.
        if not connection.socket.ping():
            connection.socket.end(NO_PONG)

    def _place(self, connection: Connection) -> set[Connection]:
        return self._places[hash(connection.id) % len(self._places)]
