"""The OpenTelemetry spans of commands, publications and deliveries; the one module that imports OpenTelemetry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.access.upgrade import status_of
from gateway.backplane import Target
from gateway.connections.connection import Connection
from gateway.errors import GatewayError, Unavailable
from gateway.protocol.envelope import Envelope
from gateway.protocol.message import Message
from gateway.version import __version__

CarryOut = Callable[[Connection, Message], Awaitable[object]]

_W3C = TraceContextTextMapPropagator()
"""What nodes say to each other, whatever the propagators are that clients are understood by."""


class Tracing:
    """Makes the spans of one node, or of one publisher."""

    def __init__(self, node: str) -> None:
        self._tracer = trace.get_tracer("gateway", __version__)
        self._node = node
        self._arrived: list[Span] = []

    # ---- clients

    @contextmanager
    def handshake(self, headers: Mapping[str, str], path: str) -> Iterator[None]:
        """Span a handshake, in the client's trace if it names one. What is refused is no error of ours."""
        refusal: Exception | None = None
        attributes = {"url.path": path}
        with _during(self._begin("gateway handshake", SpanKind.SERVER, attributes, parent=_parent_in(headers))) as span:
            try:
                yield
            except Exception as error:
                if (status := status_of(error)) >= 500:
                    raise
                span.set_attribute("http.response.status_code", status)
                refusal = error
        if refusal is not None:
            raise refusal

    def opened(self, connection: Connection) -> None:
        """Let the commands of a connection refer to the handshake it comes from, which is being spanned."""
        span = trace.get_current_span()
        span.set_attribute("gateway.connection", connection.id)
        connection.handshake = span.get_span_context()

    def of_commands(self, carry_out: CarryOut) -> CarryOut:
        """Span what carries out a command: a trace of its own, since connections last for days, linked to that one."""

        async def spanned(connection: Connection, message: Message) -> object:
            attributes = {"gateway.connection": connection.id, "gateway.cmd": message.cmd}
            if message.channel:
                attributes["messaging.destination.name"] = message.channel
            links = [Link(connection.handshake)] if isinstance(connection.handshake, SpanContext) else []
            with _during(self._begin("gateway command", SpanKind.SERVER, attributes, parent=Context(), links=links)):
                return await carry_out(connection, message)

        return spanned

    # ---- messages

    @contextmanager
    def calling(self, headers: Mapping[str, str]) -> Iterator[None]:
        """Continue the trace that a request's headers name."""
        token = context.attach(_parent_in(headers))
        try:
            yield
        finally:
            context.detach(token)

    @contextmanager
    def publishing(self, target: Target, payload: bytes) -> Iterator[str]:
        """Span a publication; yield the `traceparent` that it is to carry, "" where no node needs to know."""
        attributes = _of_message(target, payload) | {"messaging.operation.type": "send"}
        with _during(self._begin("gateway publish", SpanKind.PRODUCER, attributes)) as span:
            yield _traceparent(span.get_span_context())

    def arrived(self, target: Target, envelope: Envelope) -> None:
        """Begin to span the delivery of a message that carries a trace; whatever it carries, nothing is raised."""
        if not envelope.trace:
            return
        parent = _W3C.extract({"traceparent": envelope.trace}, Context())
        if trace.get_current_span(parent).get_span_context().is_valid:
            attributes = _of_message(target, envelope.payload) | {"messaging.operation.type": "process"}
            self._arrived.append(self._begin("gateway deliver", SpanKind.CONSUMER, attributes, parent=parent))

    def written(self) -> None:
        """End what `arrived` began: it is with the sockets, or on its way to them."""
        arrived, self._arrived = self._arrived, []
        for span in arrived:
            span.end()

    # ---- spans

    def _begin(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, str | int],
        *,
        parent: Context | None = None,
        links: Sequence[Link] = (),
    ) -> Span:
        return self._tracer.start_span(name, parent, kind, {**attributes, "gateway.node": self._node}, links)


@contextmanager
def _during(span: Span) -> Iterator[Span]:
    """Let what is done belong to a span, and end that with it."""
    with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield span
        except BaseException as error:
            _tell(span, error)
            raise


def _tell(span: Span, error: BaseException) -> None:
    """Note what went wrong. What the gateway refuses is the client's fault, and no error of ours."""
    span.set_attribute("error.type", error.code if isinstance(error, GatewayError) else type(error).__name__)
    if isinstance(error, Unavailable) or not isinstance(error, GatewayError):
        span.record_exception(error)
        span.set_status(StatusCode.ERROR, type(error).__name__)


def _of_message(target: Target, payload: bytes) -> dict[str, str | int]:
    return {
        "messaging.system": "gateway",
        "messaging.destination.name": target.name or target.kind,
        "gateway.target": target.kind,
        "messaging.message.body.size": len(payload),
    }


def _parent_in(headers: Mapping[str, str]) -> Context:
    """Return the trace of a request: the one that is under way already, else the one that its headers name."""
    here = context.get_current()
    return here if trace.get_current_span(here).get_span_context().is_valid else propagate.extract(headers, here)


def _traceparent(at: SpanContext) -> str:
    """Write what W3C Trace Context says; "" for a trace that nobody records."""
    if not at.trace_flags.sampled:
        return ""
    return f"00-{trace.format_trace_id(at.trace_id)}-{trace.format_span_id(at.span_id)}-{at.trace_flags:02x}"
