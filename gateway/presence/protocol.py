"""What every presence promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any, NamedTuple, Protocol

from gateway import codec
from gateway.connection import ConnectionInfo


class Counts(NamedTuple):
    """How many there are in the whole cluster. `users` are the identified ones."""

    nodes: int
    channels: int
    connections: int
    users: int


class NodeInfo(NamedTuple):
    """One node as it last reported itself. `started` is in ms since the epoch."""

    id: str
    host: str
    version: str
    started: int
    connections: int
    channels: int


class Presence(Protocol):
    """Keeps the cluster's sets of connections, members and users.

    Changes of one node are made in the order of the calls, which only note them down: what comes back
    is awaited by whoever wants to know that it is done, and is done all the same if nobody does.
    """

    async def run(self) -> None:
        """Carry out what is noted down, until cancelled."""

    async def ready(self) -> None:
        """Wait until this node is in the set of nodes."""

    async def close(self) -> None:
        """Carry out what is still noted down, and take this node out of the set of nodes."""

    def open(self, connection: ConnectionInfo, agent: str) -> Awaitable[Any]:
        """Note a new connection."""

    def join(self, connection: ConnectionInfo, channel: str) -> Awaitable[bool]:
        """Note a member; tell the others if it is its user's first there. True if that created the channel."""

    def leave(self, connection: ConnectionInfo, channel: str) -> Awaitable[bool]:
        """Note that a member left of its own will; tell the others if it was its user's last there.

        True if that emptied the channel.
        """

    def lose(self, connection: ConnectionInfo) -> Awaitable[Any]:
        """Note that a connection is gone, from all its channels.

        With a `presence_grace` its user is announced as gone only if not back by then, on any node.
        """

    def connections(self) -> AsyncIterator[ConnectionInfo]:
        """Yield every connection of the cluster; one that comes or goes meanwhile may be missed."""

    def members(self, channel: str) -> AsyncIterator[ConnectionInfo]:
        """Yield the connections in a channel."""

    def online(self, channel: str) -> AsyncIterator[str]:
        """Yield the user ids online in a channel, each once."""

    async def count(self) -> Counts: ...

    async def nodes(self) -> list[NodeInfo]: ...


def announcement(user: str, channel: str, *, connected: bool, exclude: str = "") -> bytes:
    """Make the envelope that tells a channel who came or went."""
    payload = codec.encode("online-update", {"userID": user, "connected": connected}, channel)
    return codec.pack(codec.Envelope(payload, (exclude,) if exclude else ()))
