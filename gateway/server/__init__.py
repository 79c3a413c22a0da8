"""The HTTP surface."""

__all__ = ["admin", "api", "app", "demo", "files", "home", "metrics", "port", "probes"]
