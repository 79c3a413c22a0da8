"""Where something listens: the same two addresses for a node and for a balancer in front of nodes."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

from .ports import HOST

__all__ = ["Addressed"]


class Addressed:
    """Something that speaks HTTP and WebSocket on a loopback port."""

    port: int

    def url(self, path: str = "/", **query: str) -> str:
        """Return the HTTP address of a path."""
        return f"http://{HOST}:{self.port}{path}{_query(query.items())}"

    def ws_url(self, *channels: str, path: str = "/connect", **query: str) -> str:
        """Return the WebSocket address that joins these channels; `query` is whatever else it carries."""
        return f"ws://{HOST}:{self.port}{path}{_query([*(('ch', name) for name in channels), *query.items()])}"


def _query(pairs: Iterable[tuple[str, str]]) -> str:
    encoded = urlencode(list(pairs))
    return f"?{encoded}" if encoded else ""
