"""What probes and monitoring are told: by a node that is up, and by one that still waits for Redis."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from gateway.node.service import NodeService
from gateway.server import metrics
from gateway.version import __version__


def healthz(service: NodeService) -> web.Response:
    """Say that the event loop turns."""
    return web.json_response({"status": "ok", "node": service.node_id, "version": __version__})


def readyz(service: NodeService) -> web.Response:
    """Say whether clients should be sent here, and what is wrong."""
    ready = service.readiness
    return web.json_response({"status": ready.status, "reasons": ready.reasons}, status=200 if ready.serves else 503)


def figures(service: NodeService) -> web.Response:
    """Tell everything that is counted."""
    return web.Response(body=metrics.render(service), headers={"Content-Type": metrics.CONTENT_TYPE})


PROBES: dict[str, Callable[[NodeService], web.Response]] = {"/healthz": healthz, "/readyz": readyz, "/metrics": figures}
