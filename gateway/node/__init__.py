"""One node: where the parts meet."""

__all__ = [
    "answers",
    "commands",
    "delivery",
    "drain",
    "gateway_commands",
    "health",
    "history",
    "inbound",
    "lifecycle",
    "membership",
    "node",
    "progress",
    "rights",
    "service",
    "startup",
]
