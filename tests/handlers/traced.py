"""A handler for nodes in processes of their own, which print their spans as lines of JSON."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from gateway.server.demo.chat import DemoHandler

BEGIN = "span: "


def _line(span: ReadableSpan) -> str:
    return f"{BEGIN}{span.to_json(indent=None)}\n"


_provider = TracerProvider()
_provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=_line)))
trace.set_tracer_provider(_provider)
handler = DemoHandler()
