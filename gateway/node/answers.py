"""Carries out what other nodes ask: to join, leave, write to or close a connection held here, or about this node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gateway.application.service import Service
from gateway.backplane import DIRECT
from gateway.backplane.questions import Act
from gateway.connections.fanout import write
from gateway.connections.hub import Hub
from gateway.errors import ConnectionNotFound, InvalidEnvelope
from gateway.protocol.envelope import Envelope, check_payload
from gateway.protocol.json_values import shown

if TYPE_CHECKING:
    from gateway.operations.tracing.spans import Tracing


class Answers:
    """Carries out questions. Their arguments came through Redis, where anybody may have written them."""

    def __init__(self, service: Service, hub: Hub, tracing: Tracing | None = None) -> None:
        self._service = service
        self._hub = hub
        self._tracing = tracing
        self._others: dict[str, Act] = {}
        """Who answers what is not about a connection, by verb."""

    def add(self, verbs: Iterable[str], act: Act) -> None:
        """Let these questions be answered by somebody else."""
        self._others.update(dict.fromkeys(verbs, act))

    async def give(self, verb: str, arguments: dict[str, Any]) -> object:
        """Do what is asked, and return what came of it.

        Raises what doing it raises, and `InvalidEnvelope` for what no node asks.
        """
        act = self._others.get(verb, self._of_connection)
        return await act(verb, arguments)

    async def _of_connection(self, verb: str, arguments: dict[str, Any]) -> object:
        match verb, arguments:
            case "join", {"connection": str(id), "channel": str(channel)}:
                return await self._service.join(self._held(id), channel)
            case "leave", {"connection": str(id), "channel": str(channel)}:
                return await self._service.leave(self._held(id), channel)
            case "write", {"connection": str(id), "payload": bytes(payload), **rest}:
                check_payload(payload)
                self._write(Envelope(payload, connection=self._held(id), trace=str(rest.get("trace", ""))))
                return None
            case "disconnect", {"connection": str(id), "code": int(code), "reason": str(reason)}:
                await self._service.disconnect(self._held(id), code=code, reason=reason)
                return None
        raise InvalidEnvelope(f"expected a question, got {shown(verb)}")

    def _held(self, id: str) -> str:
        """Return the id of a connection held here. Raises `ConnectionNotFound`.

        Asked first, because the service would ask the node that the id names: this one, again.
        """
        if id not in self._hub.connections:
            raise ConnectionNotFound(f"no connection {id!r}")
        return id

    def _write(self, envelope: Envelope) -> None:
        write(self._hub.connections[envelope.connection or ""], (envelope,))
        if self._tracing is not None:
            self._tracing.arrived(DIRECT, envelope)
            self._tracing.written()
