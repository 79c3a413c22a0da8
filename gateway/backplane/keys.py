"""Every Redis key and topic of the product, made here and nowhere else (DESIGN section 6)."""

from __future__ import annotations

from gateway.backplane.target import Target


class Keys:
    """Names keys and topics under a prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes = f"{prefix}:nodes"
        self.channels = f"{prefix}:channels"
        self.users = f"{prefix}:users"

    def topic(self, target: Target) -> bytes:
        """Name the pub/sub topic of a target."""
        name = f":{target.name}" if target.name else ""
        return f"{self.prefix}:{target.kind}{name}".encode()

    def node(self, id: str) -> str:
        return f"{self.prefix}:node:{id}"

    def node_connections(self, id: str) -> str:
        return f"{self.prefix}:node:{id}:connections"

    def members(self, channel: str) -> str:
        return f"{self.prefix}:members:{channel}"

    def online(self, channel: str) -> str:
        return f"{self.prefix}:online:{channel}"

    def tabs(self, channel: str) -> str:
        """Of users with several connections in a channel: how many beside the first (internal)."""
        return f"{self.prefix}:tabs:{channel}"

    def user_connections(self, id: str) -> str:
        return f"{self.prefix}:user:{id}:connections"

    def connection(self, id: str) -> str:
        return f"{self.prefix}:connection:{id}"
