"""The admin pages: any node shows the whole cluster."""

from __future__ import annotations

from gateway.server.admin.application import create_admin
from gateway.server.admin.guard import PREFIX
from gateway.server.admin.links import Links

__all__ = ["PREFIX", "Links", "create_admin"]
