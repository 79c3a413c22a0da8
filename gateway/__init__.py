"""Gateway: a WebSocket service for applications, on any number of nodes.

What is public is loaded when it is first asked for: who only publishes loads no server.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gateway.version import __version__

if TYPE_CHECKING:
    from gateway.application.publisher import Publisher, SyncPublisher
    from gateway.application.router import Router
    from gateway.application.service import Handler, Service
    from gateway.config import Rule, Settings
    from gateway.connections.connection import Connection, ConnectionInfo, Profile
    from gateway.errors import (
        BadMessage,
        CannotStart,
        ConnectionNotFound,
        Forbidden,
        GatewayError,
        InvalidChannel,
        InvalidParam,
        InvalidRouter,
        InvalidSettings,
        InvalidUser,
        RateLimited,
        TooManyChannels,
        Unauthorized,
        Unavailable,
        UnknownCommand,
    )
    from gateway.operations.status import Status
    from gateway.protocol.message import Message, Position
    from gateway.server.app import SERVICE, add_routes, create_app, setup

__all__ = [
    "SERVICE",
    "BadMessage",
    "CannotStart",
    "Connection",
    "ConnectionInfo",
    "ConnectionNotFound",
    "Forbidden",
    "GatewayError",
    "Handler",
    "InvalidChannel",
    "InvalidParam",
    "InvalidRouter",
    "InvalidSettings",
    "InvalidUser",
    "Message",
    "Position",
    "Profile",
    "Publisher",
    "RateLimited",
    "Router",
    "Rule",
    "Service",
    "Settings",
    "Status",
    "SyncPublisher",
    "TooManyChannels",
    "Unauthorized",
    "Unavailable",
    "UnknownCommand",
    "__version__",
    "add_routes",
    "create_app",
    "setup",
]

_HOMES = {
    "application.service": ("Handler", "Service"),
    "config": ("Rule", "Settings"),
    "connections.connection": ("Connection", "ConnectionInfo", "Profile"),
    "protocol.message": ("Message", "Position"),
    "application.publisher": ("Publisher", "SyncPublisher"),
    "application.router": ("Router",),
    "server.app": ("SERVICE", "add_routes", "create_app", "setup"),
    "operations.status": ("Status",),
}
"""The module of each public name; those that are not here are errors."""


def __getattr__(name: str) -> Any:
    """Load a public name with the module that defines it (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'gateway' has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "errors")
    value = globals()[name] = getattr(import_module(f"gateway.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
