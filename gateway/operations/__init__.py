"""What operators see and do, of the whole cluster."""

__all__ = [
    "directory",
    "journal",
    "journal_store",
    "memory_limit",
    "neighbours",
    "observers",
    "operators",
    "rates",
    "revocations",
    "search",
    "silent_nodes",
    "status",
    "taps",
    "tracing",
    "vitals",
    "watchdog",
]
