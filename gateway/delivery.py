"""Writes what came from the backplane to the sockets of this node.

What one read of the backplane brought is joined per target and written once to every member, the same
bytes object to all that speak the same protocol. Nothing here waits for a client: what a socket does not
take goes to its outbox.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from gateway import codec
from gateway.backplane import Target
from gateway.codec import Envelope
from gateway.connection import Connection
from gateway.hub import Hub

Receivers = Mapping[str, Collection[Connection]]


class Delivery:
    """Gathers one batch and writes it out, in order per target."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._gathered: dict[Target, list[Envelope]] = {}

    def add(self, target: Target, envelope: Envelope) -> None:
        self._gathered.setdefault(target, []).append(envelope)

    def write(self) -> int:
        """Write what was gathered; return how many messages reached sockets."""
        gathered, self._gathered = self._gathered, {}
        return sum(self._write_to(target, envelopes) for target, envelopes in gathered.items())

    def write_channel(self, channel: str, envelopes: Sequence[Envelope]) -> int:
        """Write to a channel's members at once; return how many messages reached sockets."""
        return self._write_all(self._hub.receivers(channel), envelopes) if envelopes else 0

    def tell(self, channel: str, cmd: str, param: object) -> bool:
        """Write a message of the gateway's own to the members that speak v1; tell whether there are any."""
        envelope = Envelope(codec.encode(cmd, param, channel))
        receivers = self._hub.receivers(channel).items()
        return self._write_all({name: found for name, found in receivers if name}, (envelope,)) > 0

    def _write_to(self, target: Target, envelopes: list[Envelope]) -> int:
        match target.kind:
            case "channel":
                return self._write_all(self._hub.receivers(target.name), envelopes)
            case "user":
                return self._write_all(_by_protocol(self._hub.of_user(target.name)), envelopes)
            case "direct":
                return sum(self._write_one(envelope) for envelope in envelopes)
        return self._write_all(_by_protocol(self._hub.connections.values()), envelopes)

    def _write_one(self, envelope: Envelope) -> int:
        connection = self._hub.connections.get(envelope.connection or "")
        return 0 if connection is None else write(connection, (envelope,))

    def _write_all(self, receivers: Receivers, envelopes: Sequence[Envelope]) -> int:
        skipping = self._skipping(envelopes)
        written = 0
        for protocol, connections in receivers.items():
            data = _joined(envelopes, protocol)
            written += len(connections) * len(envelopes)
            if not skipping:
                for connection in connections:
                    connection.socket.write(data)
                continue
            for connection in connections:
                if connection not in skipping:
                    connection.socket.write(data)
                else:
                    written += write(connection, envelopes) - len(envelopes)
        return written

    def _skipping(self, envelopes: Sequence[Envelope]) -> set[Connection]:
        """Return the connections of this node that are not to get all of these."""
        here = self._hub.connections
        excluded = (id for envelope in envelopes if envelope.exclude for id in envelope.exclude)
        return {here[id] for id in excluded if id in here}


def write(connection: Connection, envelopes: Iterable[Envelope]) -> int:
    """Write to one connection what does not skip it; return how many that were."""
    wanted = [envelope for envelope in envelopes if connection.id not in envelope.exclude]
    if wanted:
        connection.socket.write(_joined(wanted, connection.protocol))
    return len(wanted)


def _joined(envelopes: Sequence[Envelope], protocol: str) -> bytes:
    if len(envelopes) == 1:
        return codec.to_client(envelopes[0], protocol)
    return b"".join([codec.to_client(envelope, protocol) for envelope in envelopes])


def _by_protocol(connections: Iterable[Connection]) -> dict[str, list[Connection]]:
    found: dict[str, list[Connection]] = {}
    for connection in connections:
        found.setdefault(connection.protocol, []).append(connection)
    return found
