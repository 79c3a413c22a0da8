"""Gateway: a WebSocket service for applications, on any number of nodes."""

from gateway.config import Settings
from gateway.connection import Connection, ConnectionInfo, Profile
from gateway.errors import (
    BadMessage,
    ConnectionNotFound,
    Forbidden,
    GatewayError,
    InvalidChannel,
    InvalidParam,
    InvalidSettings,
    InvalidUser,
    RateLimited,
    TooManyChannels,
    Unauthorized,
    Unavailable,
    UnknownCommand,
)
from gateway.handler import Handler
from gateway.message import Message
from gateway.publisher import Publisher, SyncPublisher
from gateway.router import Router
from gateway.server import SERVICE, create_app, setup
from gateway.service import Service
from gateway.status import Status
from gateway.version import __version__

__all__ = [
    "SERVICE",
    "BadMessage",
    "Connection",
    "ConnectionInfo",
    "ConnectionNotFound",
    "Forbidden",
    "GatewayError",
    "Handler",
    "InvalidChannel",
    "InvalidParam",
    "InvalidSettings",
    "InvalidUser",
    "Message",
    "Profile",
    "Publisher",
    "RateLimited",
    "Router",
    "Service",
    "Settings",
    "Status",
    "SyncPublisher",
    "TooManyChannels",
    "Unauthorized",
    "Unavailable",
    "UnknownCommand",
    "__version__",
    "create_app",
    "setup",
]
