"""This node's connections and who is in which channel: plain data, no waiting."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from gateway.connection import Connection

Members = dict[Connection, None]
"""Connections in the order they came."""
Receivers = dict[str, Members]
"""Connections by the subprotocol they speak: each is written its own bytes."""


class Hub:
    """Knows the connections this node holds, by id, by channel and by user."""

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        self._channels: dict[str, Receivers] = {}
        self._arriving: dict[str, Members] = {}
        """Members that are not yet written to."""
        self._users: dict[str, Members] = {}

    def add(self, connection: Connection) -> bool:
        """Hold a connection; tell whether it is the first of an identified user on this node."""
        self.connections[connection.id] = connection
        return bool(connection.profile.id) and _put(self._users, connection.profile.id, connection)

    def remove(self, connection: Connection) -> bool:
        """Forget a connection that left its channels; tell whether it was an identified user's last one."""
        self.connections.pop(connection.id, None)
        return bool(connection.profile.id) and bool(_take(self._users, connection.profile.id, connection))

    def join(self, connection: Connection, channel: str, *, receiving: bool = True) -> bool:
        """Put a connection in a channel; tell whether it is the first one on this node.

        Unless it is `receiving`, it gets nothing that is written to the channel before `receive`.
        """
        first = channel not in self._channels
        connection.channels = (*connection.channels, channel)
        receivers = self._channels.setdefault(channel, {})
        if receiving:
            _put(receivers, connection.protocol, connection)
        else:
            _put(self._arriving, channel, connection)
        return first

    def receive(self, connection: Connection, channel: str) -> None:
        """Let a member get what is written to the channel from now on."""
        if _take(self._arriving, channel, connection) is not None:
            _put(self._channels[channel], connection.protocol, connection)

    def leave(self, connection: Connection, channel: str) -> bool:
        """Take a connection out of a channel; tell whether it was the last one on this node."""
        if channel not in connection.channels:
            return False
        connection.channels = tuple(name for name in connection.channels if name != channel)
        receivers = self._channels[channel]
        _take(receivers, connection.protocol, connection)
        _take(self._arriving, channel, connection)
        if receivers or channel in self._arriving:
            return False
        del self._channels[channel]
        return True

    def members(self, channel: str) -> Collection[Connection]:
        """Return all members, those that are not yet written to included."""
        found = (*self._channels.get(channel, {}).values(), self._arriving.get(channel, {}))
        return [connection for members in found for connection in members]

    def receivers(self, channel: str) -> Mapping[str, Collection[Connection]]:
        """Return the members to write to, by the subprotocol they speak."""
        return self._channels.get(channel, {})

    def of_user(self, user_id: str) -> Collection[Connection]:
        return self._users.get(user_id, ())

    @property
    def channels(self) -> Collection[str]:
        """Channels with a member here."""
        return self._channels.keys()

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


def _take(groups: dict[str, Members], name: str, connection: Connection) -> bool | None:
    """Take a connection out of its group; tell whether that is empty now, or None if it was not there."""
    members = groups.get(name)
    if members is None or connection not in members:
        return None
    del members[connection]
    if not members:
        del groups[name]
    return not members
