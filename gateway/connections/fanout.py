"""Writes the same messages to many sockets, encoded once for each dialect. Nothing here waits for a client."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import orjson

from gateway.config import DEFAULT_RULE, Rule
from gateway.connections.connection import Connection
from gateway.connections.hub import Receivers
from gateway.connections.outbox import Sparable
from gateway.protocol import codec
from gateway.protocol.codec import Dialect
from gateway.protocol.envelope import Envelope, to_client


class Batch:
    """Messages that are written together, each encoded once for all clients of a dialect."""

    __slots__ = ("_channel", "_joined", "_rule", "_sparable", "bytes", "envelopes", "may_drop", "skipped")

    def __init__(self, envelopes: Sequence[Envelope], channel: str = "", rule: Rule = DEFAULT_RULE) -> None:
        self.envelopes = envelopes
        self.skipped = _skipped(envelopes)
        """Ids of the connections that are not to get all of it."""
        self.may_drop = rule.slow != "disconnect"
        """Whether a slow reader may miss some of it."""
        self.bytes = 0
        """Written so far, each receiver counted."""
        self._channel = channel
        self._rule = rule
        self._joined: dict[Dialect, bytes] = {}
        self._sparable: dict[Dialect, list[Sparable]] = {}

    def __len__(self) -> int:
        return len(self.envelopes)

    def without(self, connection_id: str) -> Batch:
        """Return the same batch without the messages that skip a connection."""
        wanted = [envelope for envelope in self.envelopes if connection_id not in envelope.exclude]
        return Batch(wanted, self._channel, self._rule)

    def joined(self, dialect: Dialect) -> bytes:
        """Return all of it, framed."""
        found = self._joined.get(dialect)
        if found is None:
            found = self._joined[dialect] = join(self.envelopes, dialect)
        return found

    def sparable(self, dialect: Dialect) -> list[Sparable]:
        """Return it in pieces that may be dropped."""
        found = self._sparable.get(dialect)
        if found is None:
            gap = codec.frame_for(dialect, codec.encode("$gap", {}, self._channel)) if dialect.protocol else b""
            found = self._sparable[dialect] = [
                Sparable(to_client(envelope, dialect), self._channel, self._key(envelope.payload), gap)
                for envelope in self.envelopes
            ]
        return found

    def _key(self, payload: bytes) -> str | None:
        """Say what a message is the latest state of: its `cmd`, and the field of `param` that the rule names."""
        if self._rule.slow != "keep-latest":
            return None
        try:
            message = orjson.loads(payload)
        except orjson.JSONDecodeError:  # a stranger may put anything in an envelope
            return None
        match message:
            case {"cmd": cmd, "param": dict(param)} if self._rule.slow_key:
                return f"{cmd} {param.get(self._rule.slow_key)}"
            case {"cmd": cmd}:
                return str(cmd)
        return None


def write_all(receivers: Receivers, batch: Batch) -> int:
    """Write to many sockets now; return how many messages that were, each receiver counted."""
    written = 0
    for dialect, connections in receivers:
        written += len(connections) * len(batch)
        if batch.skipped or batch.may_drop:
            written -= _write_each(connections, batch, dialect)
            continue
        data = batch.joined(dialect)
        batch.bytes += len(data) * len(connections)
        # Most of a node's time is spent in these lines. A socket whose outbox overflows closes itself at once, and its
        # connection leaves hub and channels only later, when the loop turns: `connections` is a tuple besides.
        for connection in connections:
            write = connection.socket.write
            write(data)
    return written


def write(connection: Connection, envelopes: Sequence[Envelope]) -> int:
    """Write to one connection what does not skip it; return how many messages that were."""
    wanted = [envelope for envelope in envelopes if connection.id not in envelope.exclude]
    if wanted:
        connection.socket.write(join(wanted, connection.dialect))
    return len(wanted)


def join(envelopes: Sequence[Envelope], dialect: Dialect) -> bytes:
    """Frame messages for the clients of a dialect."""
    if len(envelopes) == 1:
        return to_client(envelopes[0], dialect)
    return b"".join([to_client(envelope, dialect) for envelope in envelopes])


def _write_each(connections: Collection[Connection], batch: Batch, dialect: Dialect) -> int:
    """Write where some are skipped, or may be spared; return how many messages skipped a connection."""
    left_out = 0
    for connection in connections:
        wanted = batch if connection.id not in batch.skipped else batch.without(connection.id)
        left_out += len(batch) - len(wanted)
        if batch.may_drop and connection.socket.is_behind:
            connection.socket.write_sparable(wanted.sparable(dialect))
        elif wanted:
            data = wanted.joined(dialect)
            batch.bytes += len(data)
            connection.socket.write(data)
    return left_out


def _skipped(envelopes: Sequence[Envelope]) -> Collection[str]:
    if len(envelopes) == 1:
        return envelopes[0].exclude
    return {id for envelope in envelopes if envelope.exclude for id in envelope.exclude}
