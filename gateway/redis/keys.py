"""Names of all Redis keys and pub/sub topics, and the commands for topics: they are made here and nowhere else."""

from __future__ import annotations

from typing import NamedTuple

from redis.crc import key_slot

from gateway.config import Settings
from gateway.config.redis_url import RedisAddress
from gateway.protocol.envelope import Target
from gateway.redis.slots import tag_in

TOPICS_REMEMBERED = 4096
"""Topics kept, so that a publication need not build the name of its own. Clients choose channels: it is bounded."""
SOLE_TYPES = {
    **dict.fromkeys(("nodes", "channels", "users"), "set"),
    **dict.fromkeys(("events", "audit", "refusals"), "stream"),
    **dict.fromkeys(("rules", "database", "seed"), "string"),
    "leaving": "zset",
}
TYPES = {
    **dict.fromkeys(("members", "online"), "set"),
    **dict.fromkeys(("node", "connection", "position", "tabs"), "hash"),
    **dict.fromkeys(("sent", "counted", "claim", "reaped", "rival", "revoked", "seed", "mark"), "string"),
    "leaving": "zset",
    "stream": "stream",
}
"""The Redis type of each key, by the word behind the prefix. `SOLE_TYPES` are those of keys that end with the word,
`TYPES` those of keys where a name follows."""


class Verbs(NamedTuple):
    """The pub/sub commands of a single Redis, or the sharded ones of a Redis Cluster."""

    publish: bytes
    subscribe: bytes
    unsubscribe: bytes


PLAIN = Verbs(b"PUBLISH", b"SUBSCRIBE", b"UNSUBSCRIBE")
SHARDED = Verbs(b"SPUBLISH", b"SSUBSCRIBE", b"SUNSUBSCRIBE")


class Keys:
    """Names keys and topics under a prefix.

    For a Redis Cluster each name is wrapped in a hash tag, so that all keys of one channel (user, node) share a slot
    and one script may touch them all.
    """

    def __init__(self, prefix: str, *, cluster: bool = False) -> None:
        self.prefix = prefix
        self.cluster = cluster
        self.verbs = SHARDED if cluster else PLAIN
        """The commands with which topics are published and subscribed."""
        self.nodes = f"{prefix}:nodes"
        self.channels = f"{prefix}:channels"
        self.users = f"{prefix}:users"
        self._topics: dict[Target, bytes] = {}

    def topic(self, target: Target) -> bytes:
        """Name the pub/sub topic of a target."""
        if (known := self._topics.get(target)) is not None:
            return known
        if len(self._topics) >= TOPICS_REMEMBERED:
            self._topics.clear()  # all: to note which were used lately would cost more than to build them again
        name = f":{self._tag(target.name)}" if target.name else ""
        topic = self._topics[target] = f"{self.prefix}:{target.kind}{name}".encode()
        return topic

    def beat(self, node: str, tag: str = "") -> bytes:
        """Name the topic on which a node publishes to itself; with a hash tag, one in the slot of that tag."""
        return f"{self.prefix}:beat:{node}{f':{{{tag}}}' if tag else ''}".encode()

    def node(self, id: str) -> str:
        return f"{self.prefix}:node:{self._tag(id)}"

    def node_connections(self, id: str) -> str:
        return f"{self.prefix}:node:{self._tag(id)}:connections"

    def members(self, channel: str) -> str:
        return f"{self.prefix}:members:{self._tag(channel)}"

    def online(self, channel: str) -> str:
        return f"{self.prefix}:online:{self._tag(channel)}"

    def user_connections(self, id: str) -> str:
        return f"{self.prefix}:user:{self._tag(id)}:connections"

    def connection(self, id: str) -> str:
        return f"{self.prefix}:connection:{self._tag(id)}"

    def stream(self, channel: str) -> str:
        return f"{self.prefix}:stream:{self._tag(channel)}"

    # ---- internal

    @property
    def rules(self) -> str:
        """Rules of channels, as the node wrote them that registered last; not there when it has none."""
        return f"{self.prefix}:rules"

    def book(self, name: str) -> str:
        """The stream of one of the cluster's books: `events`, `audit`, `refusals`."""
        return f"{self.prefix}:{name}"

    def revoked(self, id: str) -> str:
        """Exists once an operator logged out, or a log-in link was used, for as long as that would have been valid."""
        return f"{self.prefix}:revoked:{self._tag(id)}"

    def position(self, channel: str) -> str:
        """Epoch and newest offset of a channel's history."""
        return f"{self.prefix}:position:{self._tag(channel)}"

    def seed(self, channel: str) -> str:
        """Random word from which the epochs of channels without a history are derived; in a cluster one for each slot.

        The scripts that read and append need it beside the channel's keys, hence in the same slot.
        """
        if not self.cluster:
            return f"{self.prefix}:seed"
        return f"{self.prefix}:seed:{{{tag_in(key_slot(self.stream(channel).encode()))}}}"

    def sent(self, channel: str, sender: str) -> str:
        """Number of the last message that a process appended to a channel's history; expires after a minute or so."""
        return f"{self.prefix}:sent:{self._tag(channel)}:{sender}"

    def tabs(self, channel: str) -> str:
        """For users with several connections in a channel: how many they have beyond the first."""
        return f"{self.prefix}:tabs:{self._tag(channel)}"

    def leaving(self, channel: str) -> str:
        """Users whose last connection was lost, by the time (ms) until which they may come back unnoticed."""
        return f"{self.prefix}:leaving:{self._tag(channel)}"

    @property
    def leaving_channels(self) -> str:
        """Channels in which somebody is leaving, by the time (ms) at which the first of them is due."""
        return f"{self.prefix}:leaving"

    def counted(self, channel: str) -> str:
        """Exists for three seconds after the online count of a channel was published, by whichever node."""
        return f"{self.prefix}:counted:{self._tag(channel)}"

    def claim(self, node: str) -> str:
        """Names the process that is writing, or removing, everything a node holds: one at a time."""
        return f"{self.prefix}:claim:{self._tag(node)}"

    def reaped(self, node: str) -> str:
        """Exists when others have removed what a node held and announced its users as gone."""
        return f"{self.prefix}:reaped:{self._tag(node)}"

    @property
    def database(self) -> str:
        """A random word that all nodes on the same database read, and so recognize each other by."""
        return f"{self.prefix}:database"

    def rival(self, node: str) -> str:
        """Names a living process that has this node's name but not its lease; expires unless that one renews it."""
        return f"{self.prefix}:rival:{self._tag(node)}"

    def mark(self, tag: str) -> str:
        """A random word on the master of a cluster that serves the tag: when it is lost, so is that master's data."""
        return f"{self.prefix}:mark:{self._tag(tag)}"

    def type_of(self, key: str) -> str:
        """Return the type that a key should have, as the command TYPE names it; "" for a key that is not ours."""
        if not key.startswith(f"{self.prefix}:"):
            return ""
        kind, colon, name = key.removeprefix(f"{self.prefix}:").partition(":")
        if kind in ("node", "user") and name.endswith(":connections"):
            return "set"
        return (TYPES if colon else SOLE_TYPES).get(kind, "")

    def _tag(self, name: str) -> str:
        return f"{{{name}}}" if self.cluster else name


def keys_of(settings: Settings) -> Keys:
    """Make the keys for these settings; a node that is alone (`memory://`) gets them too, and does not use them."""
    return Keys(settings.prefix, cluster=RedisAddress.parse(settings.redis_url).kind == "cluster")
