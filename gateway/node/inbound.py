"""Reads the backplane, batch by batch: messages are delivered, gaps seen to, questions of other nodes answered."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.backplane import DIRECT, GAP, NODES, TAP, Arrival, Backplane, Target
from gateway.backplane.questions import Questions
from gateway.connections.counters import Counters
from gateway.errors import GatewayError, InvalidEnvelope
from gateway.node.delivery import Delivery
from gateway.node.history import History
from gateway.operations.neighbours import Neighbours
from gateway.operations.taps import Taps
from gateway.protocol.envelope import is_envelope, unpack, unpack_map
from gateway.redis.records import Rejections

if TYPE_CHECKING:
    from gateway.operations.tracing.spans import Tracing

logger = logging.getLogger(__name__)


class Inbound:
    """What comes in over the backplane, of which this is the one reader on a node."""

    def __init__(
        self,
        backplane: Backplane,
        delivery: Delivery,
        history: History,
        taps: Taps,
        questions: Questions,
        neighbours: Neighbours,
        counters: Counters,
        rejections: Rejections,
        *,
        tracing: Tracing | None = None,
    ) -> None:
        self._backplane = backplane
        self._delivery = delivery
        self._history = history
        self._taps = taps
        self._questions = questions
        self._neighbours = neighbours
        self._counters = counters
        self._tasks = asyncio.TaskGroup()
        """Own what is being answered."""
        self._tracing = tracing
        self._node = questions.node
        self._rejections = rejections

    async def run(self) -> None:
        """Read until cancelled; that cancels what is being answered, too."""
        async with self._tasks:
            await self._read()

    async def _read(self) -> None:
        time = asyncio.get_running_loop().time
        async for batch in self._backplane.batches():
            began = time()
            for arrival in batch:
                self._take(arrival)
            self._delivery.write()
            if self._tracing is not None:
                self._tracing.written()
            self._counters.fanout.observe(time() - began)
            # The back pressure: nothing is read while much waits to be written, and what is not read waits with Redis.
            await self._delivery.room()

    def _take(self, arrival: Arrival) -> None:
        """Hand on one arrival. Whatever its bytes are, only this one is lost, and that is counted."""
        target, data = arrival
        try:
            match target.kind:
                case "channel" | "user" | "all" | "direct":
                    self._message(target, data)
                case "node":
                    self._for_this_node(data)
                case NODES.kind:
                    self._said_to_all(data)
                case TAP.kind:
                    self._taps.show(data)
                case GAP.kind:
                    self._gap(target.name)
        except InvalidEnvelope as error:
            self._rejections.published(":".join(filter(None, target)), error, data)

    def _message(self, target: Target, data: bytes) -> None:
        envelope = unpack(data, target.name if target.kind == "channel" else "")
        if target == DIRECT and envelope.connection is None:
            raise InvalidEnvelope("expected connection to say whom this is for")
        if envelope.position is None or self._history.arrived(target.name, envelope):
            self._delivery.add(target, envelope)
            if self._tracing is not None:
                self._tracing.arrived(target, envelope)
        if self._taps.wanted and self._taps.arrived(target, data):
            self._taps.report(data, target, envelope)

    def _said_to_all(self, data: bytes) -> None:
        fields = unpack_map(data)
        if "greets" in fields:
            self._neighbours.heard(fields)
        else:
            self._taps.wished(data)

    def _gap(self, channel: str) -> None:
        """Let what came before the loss be written, then see to it: a `$gap` stands where the messages are missing."""
        self._delivery.write()
        if channel:
            self._history.lost(channel)
        else:
            self._counters.gaps += 1

    def _for_this_node(self, data: bytes) -> None:
        """Deliver what this node wrote to a connection of its own; everything else is talk between nodes."""
        if is_envelope(data):
            envelope = unpack(data)
            self._delivery.add(DIRECT, envelope)
            if self._tracing is not None:
                self._tracing.arrived(DIRECT, envelope)
        else:
            # In a task: to answer may wait for Redis, and messages are not to wait for that. So questions may overtake
            # each other, as calls that are made at the same time may.
            self._tasks.create_task(self._talk(data))

    async def _talk(self, data: bytes) -> None:
        try:
            await self._questions.heard(data)
        except InvalidEnvelope as error:
            self._rejections.published("node", error, data)
        except GatewayError as error:
            logger.warning("another node's question was not answered: %s", error)
        except Exception as error:
            self._rejections.fault("node", error)
