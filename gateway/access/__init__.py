"""How a client gets in, and what it may do."""

__all__ = [
    "fast_path",
    "http",
    "identity",
    "keys",
    "listener",
    "log_limit",
    "origin",
    "permission",
    "proxies",
    "query",
    "request_heads",
    "tokens",
    "transports",
    "upgrade",
]
