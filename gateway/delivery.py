"""Writes what came from the backplane to the sockets of this node.

What one read of the backplane brought is joined per target and written once to every member, the same
bytes object to each. Nothing here waits for a client: what a socket does not take goes to its outbox.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from gateway import codec
from gateway.backplane import Target
from gateway.codec import Envelope
from gateway.connection import Connection
from gateway.hub import Hub


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

    def _write_to(self, target: Target, envelopes: list[Envelope]) -> int:
        if target.kind == "direct":
            return sum(_write(self._one(envelope), _frame(envelope)) for envelope in envelopes)
        receivers = self._receivers(target)
        return sum(_write_except(receivers, data, exclude) * messages for exclude, data, messages in _joined(envelopes))

    def _receivers(self, target: Target) -> Collection[Connection]:
        match target.kind:
            case "channel":
                return self._hub.members(target.name)
            case "user":
                return self._hub.of_user(target.name)
        return self._hub.connections.values()

    def _one(self, envelope: Envelope) -> Iterable[Connection]:
        connection = self._hub.connections.get(envelope.connection or "")
        return () if connection is None or connection.id in envelope.exclude else (connection,)


def _joined(envelopes: list[Envelope]) -> Iterator[tuple[Collection[str], bytes, int]]:
    """Join the frames of neighbours that skip the same connections."""
    frames: list[bytes] = []
    exclude: Collection[str] = ()
    for envelope in envelopes:
        if envelope.exclude != exclude and frames:
            yield exclude, b"".join(frames), len(frames)
            frames = []
        exclude = envelope.exclude
        frames.append(_frame(envelope))
    yield exclude, b"".join(frames) if len(frames) > 1 else frames[0], len(frames)


def _write_except(receivers: Collection[Connection], data: bytes, exclude: Collection[str]) -> int:
    if not exclude:
        return _write(receivers, data)
    return _write([connection for connection in receivers if connection.id not in exclude], data)


def _write(receivers: Iterable[Connection], data: bytes) -> int:
    written = 0
    for connection in receivers:
        connection.socket.write(data)
        written += 1
    return written


def _frame(envelope: Envelope) -> bytes:
    return codec.frame(codec.TEXT, envelope.payload)
