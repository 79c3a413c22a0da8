"""OpenTelemetry traces, for whoever asks for them: the setting `tracing`, and the extra `gateway[otel]`.

Where nobody asks there is no `Tracing`, nothing of OpenTelemetry is imported, and the way of a message has one look
at a None. Where somebody does, a trace reads so: a client's command, what was published while it was carried out,
and its delivery by every node that has receivers. How spans are exported is OpenTelemetry's own business: its
environment variables (OTEL_...), or what the application has set up.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from gateway.errors import InvalidSettings

if TYPE_CHECKING:
    from gateway.backplane import Target
    from gateway.operations.tracing.spans import Tracing

__all__ = ["calling", "handshaking", "open_tracing", "publishing"]

_UNTRACED = nullcontext("")


def open_tracing(wanted: bool, *, node: str) -> Tracing | None:
    """Return what makes the spans of a node, or None. Raises `InvalidSettings` where OpenTelemetry is missing."""
    if not wanted:
        return None
    try:
        from gateway.operations.tracing.spans import Tracing
    except ImportError as error:
        raise InvalidSettings(f"tracing: expected OpenTelemetry, which gateway[otel] installs: {error}") from None
    return Tracing(node)


def handshaking(tracing: Tracing | None, headers: Mapping[str, str], path: str) -> AbstractContextManager[object]:
    """Make the span of a handshake, if there is tracing."""
    return _UNTRACED if tracing is None else tracing.handshake(headers, path)


def calling(tracing: Tracing | None, headers: Mapping[str, str]) -> AbstractContextManager[object]:
    """Let what is written belong to the trace of the request that has it written, if there is tracing."""
    return _UNTRACED if tracing is None else tracing.calling(headers)


def publishing(tracing: Tracing | None, target: Target, payload: bytes) -> AbstractContextManager[str]:
    """Make the span of a publication, if there is tracing; yield what it is to carry, "" for nothing."""
    return _UNTRACED if tracing is None else tracing.publishing(target, payload)
