"""A node's directory over very many connections that have no sockets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from gateway.application.service import Handler
from gateway.backplane import MemoryBackplane
from gateway.backplane.questions import Questions
from gateway.connections.connection import Connection, Profile
from gateway.connections.hub import Hub
from gateway.operations.directory import Directory
from gateway.presence import Presence
from gateway.protocol.message import make_id

__all__ = ["CHANNELS", "open_directory"]

CHANNELS = 1000


class Counting:
    """Counts as presence does, but in the hub: filling the sets of presence takes longer than everything else."""

    def __init__(self, hub: Hub, node: str) -> None:
        self._hub = hub
        self._node = node

    async def node_ids(self) -> list[str]:
        """Name the one node."""
        return [self._node]

    async def channel_counts(self, channels: Sequence[str]) -> list[tuple[int, int]]:
        """Count members, as if each were another user."""
        return [(len(self._hub.members(channel)),) * 2 for channel in channels]

    async def user_counts(self, users: Sequence[str]) -> list[int]:
        """Count connections."""
        return [len(self._hub.of_user(user)) for user in users]


def open_directory(count: int) -> Directory:
    """Make the directory of a node that is alone, with so many connections."""
    node, hub = "gateway-7d9f8c6b5-x2x4q", Hub()
    fill(hub, node, count)

    async def act(verb: str, arguments: dict[str, Any]) -> object:
        return await directory.answer(verb, arguments)

    questions = Questions(node, MemoryBackplane(), act, timeout=10)
    directory = Directory(hub, cast(Presence, Counting(hub, node)), questions, patience=60)
    return directory


def fill(hub: Hub, node: str, count: int) -> None:
    """Put made-up connections into a hub."""
    handler = Handler()
    for number in range(count):
        profile = Profile(f"user-{number % (count // 2 + 1)}", f"Name {number}")
        id, remote = make_id(node, f"{number * 2654435761 % 2**40:010x}"), f"192.0.2.{number % 256}"
        connection = Connection(id, profile, handler, started=1_800_000_000_000 + number // 10, remote=remote)
        hub.add(connection)
        for channel in {f"room-{number * k % CHANNELS}": None for k in (1, 7, 13)}:
            hub.join(connection, channel)
