"""Pings every connection of the node in turn, and ends those that have stopped answering."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.errors import NO_PONG
from gateway.hub import Hub

SLICES = 25
"""Parts of the hub that are pinged one after the other, so that no moment pings them all."""


async def keep_alive(hub: Hub, period: float, ended: Callable[[], None]) -> None:
    """Ping each connection once a `period`; one silent for a whole period is closed with 4408.

    One timer for all. A connection's turn is where its id falls, which is random.
    """
    if not period:
        return
    while True:
        for turn in range(SLICES):
            await asyncio.sleep(period / SLICES)
            for connection in hub:
                if hash(connection.id) % SLICES == turn and not connection.socket.ping():
                    connection.socket.close(NO_PONG)
                    ended()
