"""Writes the sets: which connections there are, and which channels they are in, with the announcements of users."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from functools import partial
from typing import Any

import orjson

from gateway.backplane import Target
from gateway.config import Settings
from gateway.connections.connection import ConnectionInfo
from gateway.presence.contract import announcement
from gateway.presence.counting import Counting
from gateway.presence.scripts import FORGET_USER, JOIN, LEAVE, OPEN, RESERVE, RESTORE
from gateway.redis.keys import Keys
from gateway.redis.records import Record, Rejections, values
from gateway.redis.script import Script
from gateway.redis.store import Store, looked

FORGOTTEN = 3_600_000
"""ms after which users whose grace is over are forgotten unannounced, where no node is left to announce them."""
FIELDS = ("node", "user", "name", "channels", "started", "remote")


class RedisRegistry:
    """Notes what happens to connections: of this node, or of another one that it cleans up after.

    Each change of a channel is one script, so that of several nodes exactly one finds that a user came first or left
    last, and announces it. On one server that script also keeps the sets of all channels and users. In a cluster those
    are on other masters: they are written next, and looked at once more, because another node may have been faster.
    """

    def __init__(self, store: Store, keys: Keys, settings: Settings, counting: Counting) -> None:
        self._store = store
        self._keys = keys
        self._counting = counting
        self._presence_max = settings.presence_max
        self._rule = settings.rule
        self._grace = round(settings.presence_grace * 1000)
        self._publish = keys.verbs.publish

    def open(self, connection: ConnectionInfo, agent: str) -> Awaitable[Any]:
        """Note a connection, so that whoever cleans up after its node finds it; again when something has changed."""
        id, node, user, named = connection.id, connection.node, connection.user, self._keys
        key, held, tabs = named.connection(id), named.node_connections(node), named.user_connections(user)
        fields = (*_fields(connection), "agent", agent)
        of_user = () if user == id else (tabs, named.users)
        if self._store.whole:
            return self._store.write(id, key, OPEN((key, held, named.nodes, *of_user), id, node, user, *fields))
        self._note(id, key, held, node, *fields)
        if of_user:
            self._store.write(id, tabs, ("SADD", tabs, id))
            self._store.write(id, named.users, ("SADD", named.users, user))
        return self._store.write(id, held, ("SADD", held, id))

    def restore(self, connection: ConnectionInfo, agent: str) -> Iterator[Awaitable[Any]]:
        """Note a connection and its memberships again, announcing nothing: nobody came. Yields what to wait for."""
        if not self._store.whole:
            yield self.open(connection, agent)
            for channel in connection.channels:
                yield self.join(connection, channel, silent=True)
            return
        id, node, user, named = connection.id, connection.node, connection.user, self._keys
        key, of_user = named.connection(id), (named.user_connections(user), named.users)
        keys = [key, named.node_connections(node), named.nodes, named.channels, *of_user]
        for channel in connection.channels:
            keys += self._of_channel(channel)
        words = (id, node, user, len(connection.channels), *connection.channels, *_fields(connection), "agent", agent)
        yield self._store.write(id, key, RESTORE(keys, *words))

    async def reserve(self, connection: ConnectionInfo, agent: str, most: int) -> bool:
        """Note a connection as `open` does, if its user has fewer than `most`. Raises `Unavailable`.

        In a cluster the connection is written, and that awaited, before it is counted: if this node dies in between,
        whoever cleans up finds it, and takes it out of the user's set. Else the user had one place less for good.
        """
        id, node, user, named = connection.id, connection.node, connection.user, self._keys
        key, held, tabs = named.connection(id), named.node_connections(node), named.user_connections(user)
        fields = (*_fields(connection), "agent", agent)
        if self._store.whole:
            keys = (tabs, named.users, key, held, named.nodes)
            return bool(await self._store.ask(tabs, RESERVE(keys, most, id, node, user, *fields)))
        self._note(id, key, held, node, *fields)
        await self._store.write(id, held, ("SADD", held, id))
        has_room = bool(await self._store.ask(tabs, RESERVE((tabs,), most, id)))
        if not has_room:
            self.lose(connection)
        return has_room

    def join(self, connection: ConnectionInfo, channel: str, *, silent: bool = False) -> Awaitable[bool]:
        """Note a member; True if that created the channel. `silent` announces nothing: it is only written again."""
        id, node, user, named = connection.id, connection.node, connection.user, self._keys
        key, held, channels = named.connection(id), named.node_connections(node), _as_json(connection.channels)
        if not self._store.whole:
            self._note(id, key, held, node, "node", node, "user", user, "channels", channels)
        word = b"" if silent else self._word(connection, channel, connected=True)
        told = self._told(connection, channel, channels, word)
        own = (key, held, named.nodes)
        return self._change(JOIN, connection, channel, own_keys=own, arguments=(*told, node))

    def leave(self, connection: ConnectionInfo, channel: str) -> Awaitable[bool]:
        """Note that a member left, or was taken out, and announce that at once; True if that emptied the channel."""
        key, channels = self._keys.connection(connection.id), _as_json(connection.channels)
        emptied = self._leave(connection, channel, channels, grace=0)
        if not self._store.whole:
            self._store.write(connection.id, key, ("HSET", key, "channels", channels))
        return emptied

    def lose(self, connection: ConnectionInfo) -> Awaitable[Any]:
        """Note that a connection has ended, in all its channels: its user may come back within the grace.

        May be repeated. First the memberships and last the node's set: until all is done it can be found there.
        """
        id, user = connection.id, connection.user
        held, key = self._keys.node_connections(connection.node), self._keys.connection(id)
        for channel in connection.channels:
            self._leave(connection, channel, "", grace=self._grace)
        if user != id:
            self._lose_user(id, user)
        self._store.write(id, key, ("DEL", key))
        return self._store.write(id, held, ("SREM", held, id))

    # ----

    def _note(self, id: str, key: str, held: str, node: str, *fields: str | int) -> None:
        """Note, in a cluster, the connection and its node ahead of what refers to it.

        From the node's set inwards: whatever this process no longer gets to write, whoever cleans up finds all that it
        has written before, and every channel that the connection may be in.
        """
        self._store.write(id, self._keys.nodes, ("SADD", self._keys.nodes, node))
        self._store.write(id, held, ("SADD", held, id))
        self._store.write(id, key, ("HSET", key, *fields))

    def _word(self, connection: ConnectionInfo, channel: str, *, connected: bool) -> bytes:
        """Make the announcement; empty where the channel's rule tells nobody who is there."""
        if not self._rule(channel).presence:
            return b""
        return announcement(connection.user, channel, connected=connected, exclude=connection.id)

    def _leave(self, connection: ConnectionInfo, channel: str, channels: str, *, grace: int) -> Awaitable[bool]:
        """Take a connection out of a channel; without `channels` its hash is not written: it is gone."""
        word = self._word(connection, channel, connected=False)
        told = self._told(connection, channel, channels, word)
        own = (self._keys.connection(connection.id), self._keys.leaving_channels)
        return self._change(LEAVE, connection, channel, own_keys=own, arguments=(*told, grace, FORGOTTEN))

    def _told(
        self, connection: ConnectionInfo, channel: str, channels: str, word: bytes
    ) -> tuple[str | bytes | int, ...]:
        """Return the arguments that both scripts begin with, in their order."""
        id, user, topic = connection.id, connection.user, self._keys.topic(Target("channel", channel))
        return (id, user, channel, channels, self._publish, topic, word, self._presence_max)

    def _change(
        self,
        script: Script,
        connection: ConnectionInfo,
        channel: str,
        *,
        own_keys: tuple[str, ...],
        arguments: tuple[str | bytes | int, ...],
    ) -> Awaitable[bool]:
        """Have a script carried out on a channel; on one server it also gets the keys that are not the channel's."""
        keys = self._of_channel(channel)
        command = script((*keys, self._keys.channels, *own_keys) if self._store.whole else keys, *arguments)
        return self._store.write(connection.id, keys[0], command, partial(self._changed, script, channel))

    def _of_channel(self, channel: str) -> tuple[str, ...]:
        named = self._keys
        return named.members(channel), named.online(channel), named.tabs(channel), named.leaving(channel)

    def _changed(self, script: Script, channel: str, answer: list[int]) -> bool:
        """Do what the script's answer asks for; tell whether it created, or emptied, the channel."""
        first_or_last, crowded = bool(answer[0]), bool(answer[1])
        if crowded:
            self._counting.add(channel)
        if not self._store.whole:
            self._index(script, channel, first_or_last, answer)
        return first_or_last

    def _index(self, script: Script, channel: str, first_or_last: bool, answer: list[int]) -> None:
        """Keep the sets that the channel's script cannot reach in a Redis Cluster."""
        is_repeated = answer[3:] == [1]  # the answer that told of the end was lost, maybe, with its link
        index = self._keys.channels
        if script is JOIN:
            self._store.write(index, index, ("SADD", index, channel))
        elif first_or_last or is_repeated:
            self._drop_from(index, channel, self._keys.members(channel))
        if script is LEAVE and answer[2]:
            leaving = self._keys.leaving_channels
            self._store.write(leaving, leaving, ("ZADD", leaving, "LT", answer[2], channel))
            self._store.write(leaving, leaving, ("PEXPIREAT", leaving, answer[2] + FORGOTTEN))

    def _lose_user(self, id: str, user: str) -> None:
        tabs, users = self._keys.user_connections(user), self._keys.users
        keys = (tabs, users) if self._store.whole else (tabs,)
        self._store.write(id, tabs, FORGET_USER(keys, id, user), partial(self._user_lost, user))

    def _user_lost(self, user: str, is_offline: int) -> None:
        if is_offline and not self._store.whole:
            self._drop_from(self._keys.users, user, self._keys.user_connections(user))

    def _drop_from(self, index: str, name: str, unless: str) -> None:
        """Take a name out of an index, and put it back if what it names has come to life meanwhile.

        `unless` is the key whose existence says so. Another node may have made it, and put the name in, before our SREM
        is carried out. It is looked at behind that; whoever comes later still puts the name in again.
        """

        def put_back(exists: int) -> None:
            if exists:
                self._store.write(index, index, ("SADD", index, name))

        def look(_: object) -> None:
            self._store.write(unless, unless, ("EXISTS", unless), put_back)

        self._store.write(index, index, ("SREM", index, name), look)


def _fields(connection: ConnectionInfo) -> tuple[str | int, ...]:
    channels, started, remote = _as_json(connection.channels), connection.started, connection.remote
    values: tuple[str | int, ...] = (connection.node, connection.user, connection.name, channels, started, remote)
    return tuple(part for pair in zip(FIELDS, values, strict=True) for part in pair)


def _as_json(channels: tuple[str, ...]) -> str:
    return orjson.dumps(channels).decode()


async def described(store: Store, keys: Keys, id: str, rejections: Rejections) -> Record:
    """Fetch what was written of a connection, for `info_of`; all fields are absent if there is none.

    Raises `Unavailable`.
    """
    key = keys.connection(id)
    found = await looked(store, key, ("HMGET", key, *FIELDS), [], rejections)
    return Record(key, values(FIELDS, found), rejections)


def info_of(id: str, record: Record) -> ConnectionInfo:
    """Read what was written of a connection; what no node can have written counts as absent."""
    user = record.name("user") or id
    channels, started, remote = record.names("channels"), record.number("started"), record.line("remote")
    return ConnectionInfo(id, record.name("node"), user, record.text("name"), channels, started, remote)
