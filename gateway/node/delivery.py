"""Fan-out: writes what came from the backplane to the sockets of this node.

What one read of the backplane brought is joined per target and written once to every member, the same
bytes object to all of the same dialect. Nothing here waits for a client: what a socket does not
take goes to its outbox. And no client waits for a fan-out to many others: past a number of sockets the rest
is written in slices, between which the loop turns; what arrives meanwhile for the same target queues behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from gateway.backplane import Target
from gateway.config import DEFAULT_RULE, Rule
from gateway.connections.connection import Connection
from gateway.connections.counters import Counters
from gateway.connections.fanout import Batch, write, write_all
from gateway.connections.hub import Hub, Receivers, by_dialect
from gateway.protocol import codec
from gateway.protocol.codec import Dialect
from gateway.protocol.envelope import Envelope

AT_ONCE = 1000
"""Sockets written before the loop turns: about 10 ms."""
SLICE = 500
"""Sockets written per turn of the loop by what could not be written at once: 5 ms, in which nothing else is done."""
MOST_WAITING = 8 << 20
"""Bytes of messages in fan-outs that wait, at which the backplane is not read: a flood does not fill the memory."""
OVERHEAD = 100
"""Bytes of each beside its payload, so that very many very small ones count, too."""


class _FanOut:
    """Messages on their way to many receivers, some sockets at a time."""

    def __init__(self, receivers: Receivers, envelopes: list[Envelope]) -> None:
        self.receivers = receivers
        self.envelopes = envelopes
        self.began = asyncio.get_running_loop().time()
        self.batch: Batch | None = None
        """What is written, once that has begun."""
        self.slices = deque(_sliced(receivers))
        """Whom it is still to be written to."""
        self.written = asyncio.Event()

    def takes(self, receivers: Receivers) -> bool:
        """Tell whether more messages to these receivers may join: not once the first were written.

        The same object is the same receivers: whoever comes or goes makes another one (`Receivers`).
        """
        return self.batch is None and self.receivers is receivers


class Delivery:
    """Gathers one batch and writes it out, in order per target."""

    def __init__(self, hub: Hub, rule: Callable[[str], Rule], counters: Counters) -> None:
        self._hub = hub
        self._rule = rule
        self._counters = counters
        self._gathered: dict[Target, list[Envelope]] = {}
        self._waiting: dict[Target, deque[_FanOut]] = {}
        self._waiting_bytes = 0
        self._due = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Write what could not be written at once, until cancelled: a slice of each target in turn."""
        while await self._due.wait():
            room = SLICE
            for target in list(self._waiting):
                room -= self._turn(target)
                if room <= 0:
                    await asyncio.sleep(0)
                    room = SLICE
            await asyncio.sleep(0)
            if not self._waiting:
                self._due.clear()

    async def room(self) -> None:
        """Wait until so little waits that there is room for another batch."""
        while self._waiting_bytes > MOST_WAITING:
            self._room.clear()
            await self._room.wait()

    async def written(self, channel: str) -> None:
        """Wait until what is on its way to a channel's members by now has been written."""
        if waiting := self._waiting.get(Target("channel", channel)):
            await waiting[-1].written.wait()

    def add(self, target: Target, envelope: Envelope) -> None:
        self._gathered.setdefault(target, []).append(envelope)

    def write(self) -> None:
        """Write what was gathered: to so many sockets at once, and soon to the others."""
        gathered, self._gathered = self._gathered, {}
        room = AT_ONCE
        for target, envelopes in gathered.items():
            if target.kind == "direct":
                self._counters.delivered += sum(self._write_one(envelope) for envelope in envelopes)
            else:
                room -= self._put(target, self._receivers(target), envelopes, room=room)

    def write_channel(self, channel: str, envelopes: Sequence[Envelope]) -> None:
        """Write to a channel's members, behind what is on its way to them."""
        if envelopes:
            self._put(Target("channel", channel), self._hub.receivers(channel), list(envelopes))

    def tell(self, channel: str, cmd: str, param: object) -> bool:
        """Write a message of the gateway's own to the members that speak v1; tell whether there are any."""
        receivers = tuple((dialect, found) for dialect, found in self._hub.receivers(channel) if dialect.protocol)
        self._put(Target("channel", channel), receivers, [Envelope(codec.encode(cmd, param, channel))])
        return bool(receivers)

    def _receivers(self, target: Target) -> Receivers:
        match target.kind:
            case "channel":
                return self._hub.receivers(target.name)
            case "user":
                return by_dialect(self._hub.of_user(target.name))
        return self._hub.everyone()

    def _write_one(self, envelope: Envelope) -> int:
        connection = self._hub.connections.get(envelope.connection or "")
        if connection is None:
            return 0
        self._counters.delivered_bytes += len(envelope.payload)
        return write(connection, (envelope,))

    def _put(self, target: Target, receivers: Receivers, envelopes: list[Envelope], *, room: int = AT_ONCE) -> int:
        """Write at once if there is room for so many sockets, else soon; return how many were written now."""
        sockets = sum(len(connections) for _, connections in receivers)
        if not sockets:
            return 0
        if sockets <= room and target not in self._waiting:  # not past what waits: order is per target
            channel, rule = self._rule_of(target)
            batch = Batch(envelopes, channel, rule)
            self._counters.delivered += write_all(receivers, batch)
            self._counters.delivered_bytes += batch.bytes
            return sockets
        self._waiting_bytes += _size(envelopes)
        waiting = self._waiting.setdefault(target, deque())
        if waiting and waiting[-1].takes(receivers):
            waiting[-1].envelopes += envelopes
        else:
            waiting.append(_FanOut(receivers, envelopes))
        self._due.set()
        return 0

    def _turn(self, target: Target) -> int:
        """Write one slice of what waits for a target; return how many sockets that were."""
        waiting = self._waiting[target]
        fan_out = waiting[0]
        if fan_out.batch is None:
            fan_out.batch = Batch(fan_out.envelopes, *self._rule_of(target))
        dialect, part = fan_out.slices.popleft()
        # Some may have left since, and are not to get it. Who left and came back may get it twice, if it was among what
        # history had for him: clients tell by the offset. To connections that are gone nothing is written.
        if target.kind == "channel":
            part = tuple(connection for connection in part if target.name in connection.channels)
        self._counters.delivered += write_all(((dialect, part),), fan_out.batch)
        if not fan_out.slices:
            self._end(target, waiting.popleft())
        return len(part)

    def _end(self, target: Target, done: _FanOut) -> None:
        self._waiting_bytes -= _size(done.envelopes)
        self._counters.delivered_bytes += done.batch.bytes if done.batch else 0
        self._room.set()
        done.written.set()
        self._counters.fanout.observe(asyncio.get_running_loop().time() - done.began)
        if not self._waiting[target]:
            del self._waiting[target]

    def _rule_of(self, target: Target) -> tuple[str, Rule]:
        return (target.name, self._rule(target.name)) if target.kind == "channel" else ("", DEFAULT_RULE)


def _sliced(receivers: Receivers) -> Iterator[tuple[Dialect, tuple[Connection, ...]]]:
    for dialect, connections in receivers:
        for start in range(0, len(connections), SLICE):
            yield dialect, connections[start : start + SLICE]


def _size(envelopes: list[Envelope]) -> int:
    return sum(len(envelope.payload) + OVERHEAD for envelope in envelopes)
