"""The admin pages: any node shows the whole cluster."""

from __future__ import annotations

from gateway.admin.application import create_admin
from gateway.admin.guard import PREFIX
from gateway.admin.links import Links

__all__ = ["PREFIX", "Links", "create_admin"]
