"""The HTTP surface."""

__all__ = [
    "admin",
    "api",
    "app",
    "connect",
    "demo",
    "files",
    "home",
    "metrics",
    "middlewares",
    "port",
    "probes",
    "running",
]
