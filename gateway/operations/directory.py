"""Looks up connections, channels and users of the whole cluster, for people and their programs.

What is listed is in every node's own memory: each is asked for its best rows, and the answers are merged. To go
through 100,000 hashes in Redis would take seconds. Sets are only counted there. A node that does not answer
within a second is named, not waited for.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, NamedTuple, TypeVar

from gateway.backplane.inflight import InFlight
from gateway.backplane.questions import Questions
from gateway.connections.connection import Connection, ConnectionInfo
from gateway.connections.hub import Hub
from gateway.errors import ConnectionNotFound, InvalidEnvelope, Unavailable
from gateway.operations.search import ConnectionQuery, ConnectionSort, Listed, NameQuery, NameSort, Sliced
from gateway.operations.search.connections import find, merge, read_info
from gateway.operations.search.names import Names, find_names, merge_names
from gateway.presence import Listing
from gateway.protocol.message import check_channel

T = TypeVar("T")

PATIENCE = 1.0
"""Seconds that nodes have to answer: a page waits for them, and a node that hangs is not to hold up all others."""
ANSWERS_BYTES = 4 << 20
"""What all answers to one question may come to: they arrive over the same connection as the traffic."""
USERS_SHOWN = 1000
"""Users named on a channel's own page."""


class ChannelRow(NamedTuple):
    """A channel in a list."""

    name: str
    members: int
    online: int


class UserRow(NamedTuple):
    """An identified user in a list. `name` is the display name that one of the connections has."""

    id: str
    name: str
    connections: int


class ChannelDetail(NamedTuple):
    """A channel by itself. One without members has zeros."""

    name: str
    members: int
    online: int
    users: list[str]
    """In order; of more than 1,000 any."""
    nodes: dict[str, int]
    """Members by node, of the nodes that answered and have any."""
    silent: list[str]
    """Nodes that did not answer in time."""


class ConnectionDetail(NamedTuple):
    """What the node of a connection knows of it, at this moment."""

    connection: ConnectionInfo
    agent: str
    protocol: str
    """The subprotocol agreed on, "" for the original's plain messages."""
    received: int
    """Messages from the client."""
    is_behind: bool
    """Whether something waits because the client does not read as fast as it is written to."""
    expires: int
    """When its token ends, in ms since the epoch; 0 is never."""


class Directory:
    """The cluster as lists and single entries. Everything raises `Unavailable` while Redis is away."""

    def __init__(self, hub: Hub, presence: Listing, questions: Questions, *, patience: float = PATIENCE) -> None:
        self._hub = hub
        self._presence = presence
        self._questions = questions
        self.patience = patience
        """Seconds that nodes have to answer."""
        self._online = InFlight[tuple[int, list[str] | None]]()
        self._searching = asyncio.Lock()
        """One search at a time goes through the hub: the slices of several would add up."""

    # ---- lists

    async def find_connections(
        self,
        *,
        text: str = "",
        id: str = "",
        user: str = "",
        name: str = "",
        remote: str = "",
        channel: str = "",
        node: str = "",
        sort: ConnectionSort = "started",
        descending: bool = False,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Listed[ConnectionInfo]:
        """Return one page of the connections that fit; see `ConnectionQuery` for what the filters mean.

        `total` counts all that fit on the nodes that answered. Raises `InvalidParam`, which names the field.
        """
        query = ConnectionQuery(text, id, user, name, remote, channel, node, sort, descending, limit=limit)
        query = query.behind(cursor)
        nodes = [known for known in await self._presence.node_ids() if node in ("", known)]
        answers, silent = await self._ask(nodes, "connections", query.as_map())
        return await _sliced(merge(answers, query, silent))

    async def find_channels(
        self, prefix: str = "", *, sort: NameSort = "name", cursor: str | None = None, limit: int = 100
    ) -> Listed[ChannelRow]:
        """Return one page of the channels with members, by name, or the largest ("size") first, 1,000 at most.

        Raises `InvalidParam`, which names the field.
        """
        found = await self._find_names(NameQuery("channels", prefix, sort, limit=limit).behind(cursor))
        names = [name.name for name in found.names]
        counts = await self._presence.channel_counts(names)
        rows = [ChannelRow(name, *count) for name, count in zip(names, counts, strict=True)]
        return Listed([row for row in rows if row.members], found.cursor, found.total, found.silent)

    async def find_users(
        self, prefix: str = "", *, sort: NameSort = "name", cursor: str | None = None, limit: int = 100
    ) -> Listed[UserRow]:
        """Return one page of the identified users, by id, or those with most connections ("size") first.

        Raises `InvalidParam`, which names the field.
        """
        found = await self._find_names(NameQuery("users", prefix, sort, limit=limit).behind(cursor))
        counts = await self._presence.user_counts([name.name for name in found.names])
        rows = [UserRow(name.name, name.label, count) for name, count in zip(found.names, counts, strict=True)]
        return Listed([row for row in rows if row.connections], found.cursor, found.total, found.silent)

    # ---- one

    async def connection(self, id: str) -> ConnectionDetail:
        """Ask the node that holds a connection all about it. Raises `ConnectionNotFound`."""
        connection = self._hub.connections.get(id)
        detail = _detail(connection) if connection else await self._questions.ask("detail", id)
        match detail:
            case [[*fields], str(agent), str(protocol), int(received), bool(is_behind), int(expires)]:
                return ConnectionDetail(read_info(fields), agent, protocol, received, is_behind, expires)
        raise Unavailable(f"the node of connection {id!r} gave no proper answer")

    async def channel(self, name: str) -> ChannelDetail:
        """Describe a channel. Raises `InvalidChannel`."""
        check_channel(name)
        (members, online), *_ = await self._presence.channel_counts([name])
        users: list[str] = []
        async for user in self._presence.online(name):
            users.append(user)
            if len(users) == USERS_SHOWN:
                break
        nodes = await self._presence.node_ids()
        heard = await self._questions.ask_all(nodes, "members", within=self.patience, channel=name)
        counts = {node: count for node, count in heard.answers.items() if isinstance(count, int) and count}
        return ChannelDetail(name, members, online, sorted(users), counts, heard.silent)

    async def online(self, channel: str, *, most: int) -> tuple[int, list[str] | None]:
        """Count the users online in a channel, and name them unless they are more than `most`; 0 is no limit.

        Looked up once for all who ask at the same time.
        """
        return await self._online.ask((channel, most), partial(self._look_online, channel, most))

    async def _look_online(self, channel: str, most: int) -> tuple[int, list[str] | None]:
        ((_, count),) = await self._presence.channel_counts([channel])
        if 0 < most < count:
            return count, None
        users = [user async for user in self._presence.online(channel)]
        return len(users), users

    # ---- what other nodes ask

    async def answer(self, verb: str, arguments: dict[str, Any]) -> object:
        """Answer for this node alone, to itself or another. Raises `InvalidEnvelope` for what it does not know."""
        match verb, arguments:
            case "connections", {"query": dict(query), "most": int(most)}:
                return await self._search(find(self._hub, ConnectionQuery.of_map(query), most))
            case "names", {"query": dict(query), "most": int(most)}:
                return await self._search(find_names(self._hub, NameQuery.of_map(query), most))
            case "members", {"channel": str(channel)}:
                return len(self._hub.members(channel))
            case "detail", {"connection": str(id)}:
                if (connection := self._hub.connections.get(id)) is None:
                    raise ConnectionNotFound(f"no connection {id!r}")
                return _detail(connection)
        raise InvalidEnvelope(f"expected a question, got {verb!r}")

    async def _find_names(self, query: NameQuery) -> Names:
        answers, silent = await self._ask(await self._presence.node_ids(), "names", query.as_map())
        return await _sliced(merge_names(answers, query, silent))

    async def _ask(self, nodes: list[str], verb: str, query: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        most = ANSWERS_BYTES // max(1, len(nodes))
        heard = await self._questions.ask_all(nodes, verb, within=self.patience, query=query, most=most)
        return heard.answers, heard.silent

    async def _search(self, work: Sliced[T]) -> T:
        """Do one slice of the work per turn of the loop, as long as somebody waits for the result."""
        try:  # whoever asked waits no longer, so neither does a search that has not had its turn
            async with asyncio.timeout(self.patience), self._searching:
                return await _sliced(work)
        except TimeoutError:
            raise Unavailable("too many searches at once") from None


VERBS = ("connections", "names", "members", "detail")
"""What `Directory.answer` answers."""


def _detail(connection: Connection) -> tuple[object, ...]:
    counted = (connection.received, connection.socket.is_behind, round(connection.profile.expires * 1000))
    return (connection.info(), connection.agent, connection.protocol, *counted)


async def _sliced(work: Sliced[T]) -> T:
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: T = done.value
            return result
        await asyncio.sleep(0)
