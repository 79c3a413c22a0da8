"""The interface of presence, with what each one guarantees, and what a node tells of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, NamedTuple, Protocol

from gateway.connections.connection import ConnectionInfo
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope, pack
from gateway.redis.records import Record

SILENT = 6.5
"""Seconds without a renewed lease after which a node is called lost: the renewals at 3 s and at 6 s are missing."""
SERVING = ("ok", "degraded")
"""States of a node to which clients should be sent."""
TROUBLE_BYTES, STATE_BYTES = 4096, 20
"""Bytes of `trouble` and `state` that are read of a node, at most."""


class Vital(NamedTuple):
    """How a node was when it took its last sample. Rates are per second, times in seconds."""

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
    """The most by which the event loop was late, within the last minute."""
    lag: float = 0.0
    """From the publication of a beat through Redis until it was heard; while none comes, since the last one came."""
    waiting: int = 0
    """Publications that Redis has not answered yet."""
    received: float = 0.0
    published: float = 0.0
    delivered: float = 0.0
    p50: float = 0.0
    """The median, and below the 99th percentile, of fan-outs: from arrival until the last socket was written."""
    p99: float = 0.0
    taps: int = 0
    """Observers on this node."""
    rejected: int = 0
    """Payloads and values found in Redis that no node can have written, since the node started."""

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
    """Writes what happens to connections into the cluster's sets of connections, members and users.

    The calls only note a change down, and never wait. The changes of one connection are made in the order of the calls,
    and repeated where Redis may have missed them. What comes back can be awaited to know that the change is made; it is
    made all the same if nobody does. When too many wait for Redis they are dropped: those who wait get `Unavailable`,
    and everything is written anew when it is back.
    """

    def open(self, connection: ConnectionInfo, agent: str) -> Awaitable[Any]:
        """Note a new connection, or one whose name or channels have changed. `agent` is its User-Agent."""

    async def reserve(self, connection: ConnectionInfo, agent: str, most: int) -> bool:
        """Note a new connection of an identified user if that one has fewer than `most`; tell whether it was.

        Decided by Redis in one step, for the whole cluster. If so, `open` is to follow, or `lose`. After an error it
        may have been noted, or be yet: `lose` undoes that. Raises `Unavailable`.
        """

    def join(self, connection: ConnectionInfo, channel: str) -> Awaitable[bool]:
        """Note a member; announce its user to the others if this is its first connection there.

        True if that created the channel.
        """

    def leave(self, connection: ConnectionInfo, channel: str) -> Awaitable[bool]:
        """Note that a member left, or was taken out; announce at once that its user is gone if it was the last there.

        True if that emptied the channel.
        """

    def lose(self, connection: ConnectionInfo) -> Awaitable[Any]:
        """Note that a connection has ended, and take it out of all its channels.

        With a `presence_grace` its user is announced as gone only if not back by then, on whichever node; the sets are
        right at once.
        """


class Listing(Protocol):
    """Reads what the cluster looks like. Everything raises `Unavailable` while Redis is away.

    Nothing is a snapshot: what comes or goes while it is read may be there or not.
    """

    def connections(self) -> AsyncIterator[ConnectionInfo]:
        """Yield every connection of the cluster, node by node."""

    def members(self, channel: str) -> AsyncIterator[ConnectionInfo]:
        """Yield the connections in a channel."""

    def online(self, channel: str) -> AsyncIterator[str]:
        """Yield the ids of the users online in a channel, each once."""

    async def channel_counts(self, channels: Sequence[str]) -> list[tuple[int, int]]:
        """Return the number of members, and that of users online, of each channel, in the order given."""

    async def user_counts(self, users: Sequence[str]) -> list[int]:
        """Return the number of connections of each identified user, in the order given."""

    async def node_ids(self) -> list[str]:
        """Return the ids of the nodes, those that died a moment ago included."""

    async def count(self) -> Counts:
        """Count all that the sets hold; of a node that died a moment ago, too."""

    async def nodes(self) -> list[NodeInfo]:
        """Return the nodes that have a lease, each as it last reported itself, by their ids."""


class Presence(Registry, Listing, Protocol):
    """A node's own place in the cluster, with all that it writes and reads there."""

    async def run(self) -> None:
        """Be connected, carry out what is noted, and look after this node and dead ones, until cancelled."""

    async def ready(self) -> None:
        """Wait until this node is in the set of nodes, for some 12 s if the lease of a crashed process has to run out.

        Raises `CannotStart` when another living process has its name.
        """

    @property
    def trouble(self) -> list[str]:
        """What is wrong with this node's place in the cluster, as short lines for people."""

    async def database(self) -> str:
        """Return a word that all nodes on this database and prefix share, and no others; "" for a node that is alone.

        It may change when Redis has lost its data. Raises `Unavailable`.
        """

    def hold(self) -> None:
        """Renew the lease from another thread while the event loop is blocked, if it is still this process's.

        Blocks until Redis has answered, some seconds at most. Raises `Unavailable`.
        """

    async def close(self) -> None:
        """Carry out what is still noted, and take this node out of the set of nodes.

        Waits for Redis without a limit; the caller sets one. Raises `Unavailable`.
        """


def announcement(user: str, channel: str, *, connected: bool, exclude: str = "") -> bytes:
    """Make the envelope that tells a channel who came or went."""
    payload = codec.encode("online-update", {"userID": user, "connected": connected}, channel)
    return pack(Envelope(payload, (exclude,) if exclude else ()))


def as_fields(vital: Vital) -> tuple[str, ...]:
    """Return the figures as alternating names and values, as they are written into the node's hash."""
    written = vital._asdict() | {"trouble": "\n".join(vital.trouble)}
    return tuple(str(part) for pair in written.items() for part in pair)


def of_record(record: Record) -> Vital:
    """Read the figures from a node's hash; another version may have written fewer of them, or more."""
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
