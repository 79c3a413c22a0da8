"""This node's connections and who is in which channel: plain data, no waiting."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from gateway.connection import Connection

Members = dict[Connection, None]
"""Connections in the order they came."""


class Hub:
    """Knows the connections this node holds, by id, by channel and by user."""

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        self._members: dict[str, Members] = {}
        self._users: dict[str, Members] = {}

    def add(self, connection: Connection) -> bool:
        """Hold a connection; tell whether it is the first of an identified user on this node."""
        self.connections[connection.id] = connection
        return bool(connection.profile.id) and _put(self._users, connection.profile.id, connection)

    def remove(self, connection: Connection) -> bool:
        """Forget a connection that left its channels; tell whether it was an identified user's last one."""
        self.connections.pop(connection.id, None)
        return bool(connection.profile.id) and _take(self._users, connection.profile.id, connection)

    def join(self, connection: Connection, channel: str) -> bool:
        """Put a connection in a channel; tell whether it is the first one on this node."""
        connection.channels = (*connection.channels, channel)
        return _put(self._members, channel, connection)

    def leave(self, connection: Connection, channel: str) -> bool:
        """Take a connection out of a channel; tell whether it was the last one on this node."""
        connection.channels = tuple(name for name in connection.channels if name != channel)
        return _take(self._members, channel, connection)

    def members(self, channel: str) -> Collection[Connection]:
        return self._members.get(channel, ())

    def of_user(self, user_id: str) -> Collection[Connection]:
        return self._users.get(user_id, ())

    @property
    def channels(self) -> Collection[str]:
        """Channels with a member here."""
        return self._members.keys()

    def __len__(self) -> int:
        return len(self.connections)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self.connections.values()))


def _put(groups: dict[str, Members], name: str, connection: Connection) -> bool:
    members = groups.get(name)
    if members is None:
        groups[name] = {connection: None}
        return True
    members[connection] = None
    return False


def _take(groups: dict[str, Members], name: str, connection: Connection) -> bool:
    members = groups.get(name)
    if members is None or connection not in members:
        return False
    del members[connection]
    if not members:
        del groups[name]
    return not members
