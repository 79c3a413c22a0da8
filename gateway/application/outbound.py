"""The one way from a write to the backplane: traced, counted, appended to history or published, copied to taps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.backplane import DIRECT, TAP, Backplane, Target
from gateway.backplane.questions import Questions
from gateway.config import Rule
from gateway.connections.counters import Counters
from gateway.errors import Unavailable
from gateway.operations.taps import Taps
from gateway.operations.tracing import publishing
from gateway.protocol.envelope import Envelope, pack
from gateway.protocol.message import Position

if TYPE_CHECKING:
    from gateway.operations.tracing.spans import Tracing


def _unknown(channel: str) -> str:
    return ""


class Outbound:
    """Carries what this process writes, a node or not, to its target.

    Each call returns once the backplane has taken the message, and raises `Unavailable` when it does not in time;
    then observers are shown nothing.
    """

    def __init__(
        self,
        backplane: Backplane,
        questions: Questions,
        taps: Taps,
        counters: Counters,
        *,
        tracing: Tracing | None,
        rule: Callable[[str], Rule],
        epoch: Callable[[str], str] = _unknown,
        shows_at_once: bool = False,
    ) -> None:
        """`shows_at_once` is for a process that has no `run`, and may end with its next line: no copy waits there."""
        self._backplane = backplane
        self._questions = questions
        self._taps = taps
        self._counters = counters
        self._tracing = tracing
        self._rule = rule
        self._epoch = epoch
        """The epoch in which the members here know a channel's history, "" where they do not."""
        self._shows_at_once = shows_at_once
        self._has_ended = False

    def end(self) -> None:
        """Refuse every write from now on."""
        self._has_ended = True

    async def publish(self, target: Target, envelope: Envelope) -> Position | None:
        """Carry an envelope to a target; return its position where the channel keeps history."""
        if self._tracing is not None and envelope.trace is None:
            with self._tracing.publishing(target, envelope.payload) as trace:
                return await self.publish(target, envelope._replace(trace=trace))
        # The backplane's tasks have ended with the node: what is put in its queue now would wait for ever. Whoever
        # still writes, such as a task of the application that outlives it, is told at once.
        if self._has_ended:
            raise Unavailable("this node has stopped")
        self._counters.published += 1
        rule, position = self._rule(target.name) if target.kind == "channel" else None, None
        if rule is not None and rule.history:
            position = await self._backplane.append(target.name, envelope, rule, known=self._epoch(target.name))
        else:
            await self._backplane.publish(target, pack(envelope))
        if self._taps.wanted:
            await self._show(target, envelope)
        return position

    async def write_elsewhere(self, payload: bytes, connection: str) -> None:
        """Have another node write to a connection that it holds. Raises `ConnectionNotFound`."""
        if self._has_ended:  # nobody would answer any more
            raise Unavailable("this node has stopped")
        with publishing(self._tracing, Target("connection", connection), payload) as trace:
            await self._questions.ask("write", connection, payload=payload, **({"trace": trace} if trace else {}))
        if self._taps.wanted:
            await self._show(DIRECT, Envelope(payload, connection=connection))

    async def run(self) -> None:
        """Publish from time to time what observers are to see, until cancelled."""
        await self._taps.run(self._publish_copies)

    async def _show(self, target: Target, envelope: Envelope) -> None:
        self._taps.written(target, envelope)
        if self._shows_at_once:
            await self._taps.flush(self._publish_copies)

    async def _publish_copies(self, copies: bytes) -> None:
        await self._backplane.publish(TAP, copies)
