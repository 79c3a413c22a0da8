"""Gateway: a WebSocket service for applications, on any number of nodes."""

from gateway.config import Rule, Settings
from gateway.connection import Connection, ConnectionInfo, Profile
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
from gateway.handler import Handler
from gateway.message import Message, Position
from gateway.publisher import Publisher, SyncPublisher
from gateway.router import Router
from gateway.server import SERVICE, add_routes, create_app, setup
from gateway.service import Service
from gateway.status import Status
from gateway.version import __version__

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
