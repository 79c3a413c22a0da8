"""The registry of this node's connections, by id, channel and user: plain data, no waiting."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from gateway.connections.connection import Connection
from gateway.protocol.codec import Dialect

Members = dict[Connection, None]
"""Connections in the order they came."""
Receivers = tuple[tuple[Dialect, tuple[Connection, ...]], ...]
"""Connections by their dialect: each is written its own bytes. Never changes: who comes or goes
makes another one, so that a fan-out under way keeps to those who were there when it began."""


class Hub:
    """Knows the connections this node holds, by id, by channel and by user."""

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        self._channels: dict[str, Members] = {}
        self._arriving: dict[str, Members] = {}
        """Members that are not yet written to."""
        self._users: dict[str, Members] = {}
        self._receivers: dict[str, Receivers] = {}
        """By channel; made when it is first written to, forgotten when anybody comes or goes."""
        self._everyone: Receivers | None = None

    def add(self, connection: Connection) -> bool:
        """Hold a connection; tell whether it is the first of an identified user on this node."""
        self.connections[connection.id] = connection
        self._everyone = None
        return bool(connection.profile.id) and _put(self._users, connection.profile.id, connection)

    def remove(self, connection: Connection) -> bool:
        """Forget a connection that left its channels; tell whether it was an identified user's last one."""
        self.connections.pop(connection.id, None)
        self._everyone = None
        return bool(connection.profile.id) and bool(_take(self._users, connection.profile.id, connection))

    def join(self, connection: Connection, channel: str, *, receiving: bool = True) -> bool:
        """Put a connection in a channel; tell whether it is the first one on this node.

        Unless it is `receiving`, it gets nothing that is written to the channel before `receive`.
        """
        connection.channels = (*connection.channels, channel)
        if not receiving:
            _put(self._arriving, channel, connection)
        self._receivers.pop(channel, None)
        return _put(self._channels, channel, connection)

    def receive(self, connection: Connection, channel: str) -> None:
        """Let a member get what is written to the channel from now on."""
        if _take(self._arriving, channel, connection) is not None:
            self._receivers.pop(channel, None)

    def leave(self, connection: Connection, channel: str) -> bool:
        """Take a connection out of a channel; tell whether it was the last one on this node."""
        if channel not in connection.channels:
            return False
        connection.channels = tuple(name for name in connection.channels if name != channel)
        self._receivers.pop(channel, None)
        _take(self._arriving, channel, connection)
        return bool(_take(self._channels, channel, connection))

    def members(self, channel: str) -> Collection[Connection]:
        """Return all members, those that are not yet written to included."""
        return self._channels.get(channel, {}).keys()

    def receivers(self, channel: str) -> Receivers:
        """Return the members to write to."""
        found = self._receivers.get(channel)
        if found is None:
            arriving = self._arriving.get(channel, ())
            present = (member for member in self._channels.get(channel, ()) if member not in arriving)
            found = by_dialect(present)
            if channel in self._channels:
                self._receivers[channel] = found
        return found

    def everyone(self) -> Receivers:
        """Return all connections."""
        if self._everyone is None:
            self._everyone = by_dialect(self.connections.values())
        return self._everyone

    def of_user(self, user_id: str) -> Collection[Connection]:
        return self._users.get(user_id, ())

    @property
    def channels(self) -> Collection[str]:
        """Channels with a member here."""
        return self._channels.keys()

    @property
    def users(self) -> Collection[str]:
        """Identified users with a connection here."""
        return self._users.keys()

    def __len__(self) -> int:
        return len(self.connections)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self.connections.values()))


def by_dialect(connections: Iterable[Connection]) -> Receivers:
    """Sort connections by what they speak."""
    found: dict[Dialect, list[Connection]] = {}
    for connection in connections:
        found.setdefault(connection.dialect, []).append(connection)
    return tuple((dialect, tuple(members)) for dialect, members in found.items())


def _put(groups: dict[str, Members], name: str, connection: Connection) -> bool:
    members = groups.get(name)
    if members is None:
        groups[name] = {connection: None}
        return True
    members[connection] = None
    return False


def _take(groups: dict[str, Members], name: str, connection: Connection) -> bool | None:
    """Take a connection out of its group; tell whether that is empty now, or None if it was not there."""
    members = groups.get(name)
    if members is None or connection not in members:
        return None
    del members[connection]
    if not members:
        del groups[name]
    return not members
