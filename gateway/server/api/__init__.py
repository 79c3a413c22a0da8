"""The server API: what other programs ask of a cluster over HTTP, at any node."""

from __future__ import annotations

from gateway.server.api.dispatch import Api

__all__ = ["Api"]
