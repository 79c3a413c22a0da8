"""What every presence promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, NamedTuple, Protocol

from gateway.connections.connection import ConnectionInfo
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope, pack
from gateway.redis.records import Record

SILENT = 6.5
"""Seconds without a renewed lease after which a node is called lost: two in a row are missing."""
SERVING = ("ok", "degraded")
"""States of a node to which clients should be sent."""
TROUBLE_BYTES, STATE_BYTES = 4096, 20
"""Of what a node says of itself."""


class Vital(NamedTuple):
    """How a node was when it took its last sample. Rates are a second, times in seconds."""

    at: int = 0
    """When that was, in ms since the epoch by the node's own clock."""
    state: str = "ok"
    """ok, degraded, deaf or draining."""
    trouble: tuple[str, ...] = ()
    """What is wrong, one short line each."""
    connections: int = 0
    channels: int = 0
    cpu: float = 0.0
    """Percent of one processor."""
    memory: int = 0
    """Resident bytes."""
    loop_lag: float = 0.0
    """The most by which the event loop was late within the last minute."""
    lag: float = 0.0
    """From a beat's publication until it was heard; while none comes, since one did."""
    waiting: int = 0
    """Publications that Redis has not answered yet."""
    received: float = 0.0
    published: float = 0.0
    delivered: float = 0.0
    p50: float = 0.0
    """Of fan-outs: from their arrival until the last socket was written."""
    p99: float = 0.0
    taps: int = 0
    """Observers on this node."""
    rejected: int = 0
    """Payloads and values found in Redis that were none of ours, since the node started."""

    @property
    def serves(self) -> bool:
        """Whether clients should be sent to this node."""
        return self.state in SERVING


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
    vital: Vital = Vital()
    silent: float = 0.0
    """Seconds since it last reported itself, by Redis' clock."""


class Registry(Protocol):
    """Notes what happens to connections: in the cluster's sets of connections, members and users.

    Changes of one node are made in the order of the calls, which only note them down: what comes back
    is awaited by whoever wants to know that it is done, and is done all the same if nobody does.
    """

    def open(self, connection: ConnectionInfo, agent: str) -> Awaitable[Any]:
        """Note a new connection, or what has changed of one."""

    async def reserve(self, connection: ConnectionInfo, agent: str, most: int) -> bool:
        """Note a new connection of an identified user who has fewer than `most`; tell whether that is so.

        Decided in one step for the whole cluster. `open` is to follow, or `lose`. Raises `Unavailable`.
        """

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


class Listing(Protocol):
    """Tells what the cluster looks like. Raises `Unavailable` while Redis is away."""

    def connections(self) -> AsyncIterator[ConnectionInfo]:
        """Yield every connection of the cluster; one that comes or goes meanwhile may be missed."""

    def members(self, channel: str) -> AsyncIterator[ConnectionInfo]:
        """Yield the connections in a channel."""

    def online(self, channel: str) -> AsyncIterator[str]:
        """Yield the user ids online in a channel, each once."""

    async def channel_counts(self, channels: Sequence[str]) -> list[tuple[int, int]]:
        """Count the members, and the users online, of each channel."""

    async def user_counts(self, users: Sequence[str]) -> list[int]:
        """Count the connections of each identified user."""

    async def node_ids(self) -> list[str]:
        """Return the ids of the nodes, those that died a moment ago included."""

    async def count(self) -> Counts: ...

    async def nodes(self) -> list[NodeInfo]: ...


class Presence(Registry, Listing, Protocol):
    """A node's own place in the cluster, with all that it writes and reads there."""

    async def run(self) -> None:
        """Carry out what is noted down, until cancelled."""

    async def ready(self) -> None:
        """Wait until this node is in the set of nodes.

        Raises `CannotStart` when another process that lives has its name.
        """

    @property
    def trouble(self) -> list[str]:
        """What is wrong with this node's place in the cluster, as short lines for people."""

    async def database(self) -> str:
        """Return a word that all nodes on this database share, and no others; "" for a node that is alone.

        It may change when Redis has lost its data. Raises `Unavailable`.
        """

    def hold(self) -> None:
        """Renew the lease from another thread while the event loop is blocked, if it is still this process's.

        Blocks until Redis has answered, some seconds at most. Raises `Unavailable`.
        """

    async def close(self) -> None:
        """Carry out what is still noted down, and take this node out of the set of nodes."""


def announcement(user: str, channel: str, *, connected: bool, exclude: str = "") -> bytes:
    """Make the envelope that tells a channel who came or went."""
    payload = codec.encode("online-update", {"userID": user, "connected": connected}, channel)
    return pack(Envelope(payload, (exclude,) if exclude else ()))


def as_fields(vital: Vital) -> tuple[str, ...]:
    """Write the figures as names and values, as they stand in the node's hash."""
    written = vital._asdict() | {"trouble": "\n".join(vital.trouble)}
    return tuple(str(part) for pair in written.items() for part in pair)


def of_record(record: Record) -> Vital:
    """Read the figures of a node; it may run another version, and tell fewer of them, or more."""
    known = Vital()._asdict().items()
    return Vital()._replace(**{name: _read(record, name, default) for name, default in known if name in record})


def _read(record: Record, name: str, default: object) -> Any:
    match default:
        case tuple():
            return tuple(filter(None, record.line(name, most=TROUBLE_BYTES).split("\n")))
        case str():
            return record.line(name, most=STATE_BYTES)
        case int():
            return record.number(name)
    return record.real(name)
