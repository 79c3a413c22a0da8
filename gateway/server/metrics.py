"""What a node counts, as Prometheus reads it: gathered when it asks, so that counting costs nothing else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from gateway.connections.counters import BOUNDS, Histogram
from gateway.errors import KINDS, GatewayError
from gateway.node.service import NodeService
from gateway.operations.memory_limit import memory_limit
from gateway.redis.refusal import REASONS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS = {
    "opened": ("connections_opened", "WebSocket connections opened"),
    "closed": ("connections_closed", "WebSocket connections closed"),
    "received": ("messages_received", "Messages received from clients"),
    "received_bytes": ("received_bytes", "Bytes of messages received from clients"),
    "refused": ("messages_refused", "Messages of clients answered with $error"),
    "published": ("messages_published", "Messages published to the backplane"),
    "delivered": ("messages_delivered", "Messages written to sockets, counted for each receiver"),
    "delivered_bytes": ("delivered_bytes", "Bytes of messages written to sockets, counted for each receiver"),
    "rejected": ("injections_rejected", "Payloads and values found in Redis that are none of the gateway's"),
    "slow": ("slow_consumers", "Connections closed because they read too slowly"),
    "dropped": ("messages_dropped", "Messages not sent to slow readers, as the rules of their channels say"),
    "no_pong": ("pongs_missed", "Connections closed because no pong came"),
    "gaps_told": ("gaps", "Channels whose members were told that messages may be lost"),
    "recovered": ("messages_recovered", "Messages that came from history after an outage or a reconnect"),
    "handler_errors": ("handler_errors", "Exceptions of the application's handler"),
    "stalls": ("loop_stalls", "Times the event loop stood still, because a handler blocked it"),
    "repairs": ("presence_repairs", "Times Redis differed from what the node holds, and was repaired"),
}
_BACKPLANE_COUNTERS = {
    "reconnects": ("backplane_reconnects", "Links to Redis made anew after a loss"),
    "gaps": ("backplane_losses", "Times subscriptions were lost and restored"),
    "deaf_seconds": ("backplane_deaf_seconds", "Time in which the node's own beats did not come back through Redis"),
    "history_trimmed": ("history_trimmed", "Messages that history_bytes, not history, let go"),
    "histories_dropped": ("histories_dropped", "Histories given up because all exceeded history_total_bytes"),
}
_BACKPLANE_GAUGES = {
    "lag": (
        "backplane_lag_seconds",
        "From a beat's publication until it was heard; while none comes, since one did",
    ),
    "waiting": ("publish_queue_messages", "Publications that Redis has not answered yet"),
    "waiting_bytes": ("publish_queue_bytes", "Bytes of publications that Redis has not answered yet"),
}


_HISTOGRAMS = {
    "fanout": ("fanout_seconds", "From the arrival of messages through Redis until the last socket was written"),
    "handling": ("handler_seconds", "How long the commands of clients took"),
}


_PROCESS = ProcessCollector(registry=None)
"""What Prometheus' own clients tell of every process: memory, descriptors, processor time, when it was started."""


class _Collector:
    def __init__(self, service: NodeService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service = self._service
        held, lag, counted = service.held, service.node.beats.lag, service.node.backplane.counters
        yield _states(service.readiness.status)
        yield _gauge("ready", "1, or 0 when clients should be sent elsewhere", service.readiness.serves)
        yield _gauge("connections", "Connections held by this node", held.connections)
        yield _gauge("transports", "TCP connections to the node's port, of any kind", service.counters.transports)
        yield _gauge(
            "transports_max",
            "TCP connections that the node's port may hold; 0 where it is an application's",
            service.counters.transports_most,
        )
        yield _gauge("channels", "Channels with a member on this node", held.channels)
        yield _gauge("users", "Identified users with a connection on this node", held.users)
        yield _gauge("outbox_bytes", "Bytes that wait for clients that read too slowly", held.outbox_bytes)
        yield _gauge("loop_lag_seconds", "By how much the event loop was late last", lag.last)
        yield _gauge("loop_lag_max_seconds", "The most of it within the last minute", lag.most)
        yield _gauge(
            "memory_blocks", "Blocks of memory that Python objects of this process use", sys.getallocatedblocks()
        )
        yield _counter("log_lines_dropped", "Log lines dropped because nobody read them", _dropped_lines())
        yield from _limits(service)
        for field, (name, text) in _COUNTERS.items():
            yield _counter(name, text, getattr(service.counters, field))
        for field, (name, text) in _BACKPLANE_COUNTERS.items():
            yield _counter(name, text, getattr(counted, field))
        for field, (name, text) in _BACKPLANE_GAUGES.items():
            yield _gauge(name, text, getattr(counted, field))
        for field, (name, text) in _HISTOGRAMS.items():
            yield _histogram(name, text, getattr(service.counters, field))
        yield _closes(service.counters.closes)
        yield _refusals(service.counters.refusals)
        yield _redis_refusals(counted.refusals)


def render(service: NodeService) -> bytes:
    """Write all metrics of a node in Prometheus' text format. No label ever names a channel or a user."""
    registry = CollectorRegistry()
    registry.register(_Collector(service))
    registry.register(_PROCESS)
    return generate_latest(registry)


def _dropped_lines() -> int:
    """Sum up what the handlers of the root logger have dropped: one that does not wait for its reader counts it."""
    return sum(getattr(handler, "dropped", 0) for handler in logging.getLogger().handlers)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"gateway_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"gateway_{name}", text, value=value)


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    bounds = [*map(str, BOUNDS), "+Inf"]
    buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
    return HistogramMetricFamily(f"gateway_{name}", text, buckets=buckets, sum_value=histogram.total)


def _closes(codes: Mapping[int, int]) -> Metric:
    closes = CounterMetricFamily("gateway_closes", "Connections closed, by close code", labels=["code"])
    for code, count in sorted(codes.items()):
        closes.add_metric([str(code) if code else "other"], count)
    return closes


def _limits(service: NodeService) -> Iterator[Metric]:
    """Tell what a node may have at most, so that a rule can say "almost" whatever the settings are."""
    settings = service.settings
    yield _gauge("max_connections", "Connections held at most; 0 is no limit", settings.max_connections)
    yield _gauge("publish_queue_max_messages", "Publications that may wait; 0 is no limit", settings.publish_queue)
    yield _gauge("memory_limit_bytes", "Memory this process may use: its cgroup's, or the machine's", memory_limit())


_STATES = ("ok", "degraded", "deaf", "draining", "crashed")


def _states(state: str) -> Metric:
    """Tell which state the node is in: of one that has not started yet, none."""
    states = GaugeMetricFamily("gateway_state", "1 for the state this node is in, 0 for others", labels=["state"])
    for each in _STATES:
        states.add_metric([each], each == state)
    return states


def _redis_refusals(reasons: Mapping[str, int]) -> Metric:
    refusals = CounterMetricFamily(
        "gateway_redis_refusals", "Commands that Redis refused, by reason", labels=["reason"]
    )
    for reason in REASONS:
        refusals.add_metric([reason], reasons.get(reason, 0))
    return refusals


REFUSED_WITH = {405, 408, 426, 431, GatewayError.status, *(kind.status for kind in KINDS.values())}
"""Told from the start: the rate of a counter that begins with its first event does not know that one."""


def _refusals(statuses: Mapping[int, int]) -> Metric:
    told = "Handshakes, and log-ins and actions of operators, that were refused, by status"
    refusals = CounterMetricFamily("gateway_connections_refused", told, labels=["status"])
    for status, count in sorted((dict.fromkeys(REFUSED_WITH, 0) | dict(statuses)).items()):
        refusals.add_metric([str(status)], count)
    return refusals
