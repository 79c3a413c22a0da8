"""What an application writes, and what it is given."""

__all__ = ["guest", "loading", "outbound", "publisher", "router", "schema", "service", "writing"]
