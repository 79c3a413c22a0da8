"""Every Redis key and topic of the product, and the commands for topics: here and nowhere else."""

from __future__ import annotations

from typing import NamedTuple

from redis.crc import key_slot

from gateway.config import Settings
from gateway.config.redis_url import RedisAddress
from gateway.protocol.envelope import Target
from gateway.redis.slots import tag_in

TOPICS_REMEMBERED = 4096
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
"""What keys hold, by the word behind the prefix: alone, and with a name behind it."""


class Verbs(NamedTuple):
    """The commands of plain or of sharded pub/sub."""

    publish: bytes
    subscribe: bytes
    unsubscribe: bytes


PLAIN = Verbs(b"PUBLISH", b"SUBSCRIBE", b"UNSUBSCRIBE")
SHARDED = Verbs(b"SPUBLISH", b"SSUBSCRIBE", b"SUNSUBSCRIBE")


class Keys:
    """Names keys and topics under a prefix; in a Redis Cluster what belongs to one name shares a slot."""

    def __init__(self, prefix: str, *, cluster: bool = False) -> None:
        self.prefix = prefix
        self.cluster = cluster
        self.verbs = SHARDED if cluster else PLAIN
        """How what goes to a topic is published, and heard."""
        self.nodes = f"{prefix}:nodes"
        self.channels = f"{prefix}:channels"
        self.users = f"{prefix}:users"
        self._topics: dict[Target, bytes] = {}

    def topic(self, target: Target) -> bytes:
        """Name the pub/sub topic of a target."""
        if (known := self._topics.get(target)) is not None:
            return known
        if len(self._topics) >= TOPICS_REMEMBERED:
            self._topics.clear()
        name = f":{self._tag(target.name)}" if target.name else ""
        topic = self._topics[target] = f"{self.prefix}:{target.kind}{name}".encode()
        return topic

    def beat(self, node: str, tag: str = "") -> bytes:
        """Name the topic on which a node hears itself; with a tag, in the slot of that tag."""
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
        """The newest entries of one of the cluster's books: `events`, `audit`, `refusals`."""
        return f"{self.prefix}:{name}"

    def revoked(self, id: str) -> str:
        """There when an operator's session was ended, or a log-in link used, as long as it would have held."""
        return f"{self.prefix}:revoked:{self._tag(id)}"

    def position(self, channel: str) -> str:
        """Epoch and newest offset of a channel's history."""
        return f"{self.prefix}:position:{self._tag(channel)}"

    def seed(self, channel: str) -> str:
        """What the epochs of channels follow from that have no history yet; in a cluster those of the same slot."""
        if not self.cluster:
            return f"{self.prefix}:seed"
        return f"{self.prefix}:seed:{{{tag_in(key_slot(self.stream(channel).encode()))}}}"

    def sent(self, channel: str, sender: str) -> str:
        """Number of the last message that a sender appended to a channel's history, for a while."""
        return f"{self.prefix}:sent:{self._tag(channel)}:{sender}"

    def tabs(self, channel: str) -> str:
        """Of users with several connections in a channel: how many beside the first."""
        return f"{self.prefix}:tabs:{self._tag(channel)}"

    def leaving(self, channel: str) -> str:
        """Users whose last connection was lost, by the time (ms) until which they may come back unnoticed."""
        return f"{self.prefix}:leaving:{self._tag(channel)}"

    @property
    def leaving_channels(self) -> str:
        """Channels with somebody leaving, by the time (ms) of the first."""
        return f"{self.prefix}:leaving"

    def counted(self, channel: str) -> str:
        """There while the online count of a channel was published a few seconds ago."""
        return f"{self.prefix}:counted:{self._tag(channel)}"

    def claim(self, node: str) -> str:
        """Held by whoever writes or removes all that a node holds."""
        return f"{self.prefix}:claim:{self._tag(node)}"

    def reaped(self, node: str) -> str:
        """There when others have removed, and announced the end of, what a node held."""
        return f"{self.prefix}:reaped:{self._tag(node)}"

    @property
    def database(self) -> str:
        """A word by which nodes of the same database know each other, for a while."""
        return f"{self.prefix}:database"

    def rival(self, node: str) -> str:
        """There while a process lives that has this node's name and not its lease."""
        return f"{self.prefix}:rival:{self._tag(node)}"

    def mark(self, tag: str) -> str:
        """A random word, lost with the data of the master of a cluster that serves the tag: nodes notice by it."""
        return f"{self.prefix}:mark:{self._tag(tag)}"

    def type_of(self, key: str) -> str:
        """Tell what a key holds, as Redis calls it; "" for what is no key of ours."""
        if not key.startswith(f"{self.prefix}:"):
            return ""
        kind, colon, name = key.removeprefix(f"{self.prefix}:").partition(":")
        if kind in ("node", "user") and name.endswith(":connections"):
            return "set"
        return (TYPES if colon else SOLE_TYPES).get(kind, "")

    def _tag(self, name: str) -> str:
        return f"{{{name}}}" if self.cluster else name


def keys_of(settings: Settings) -> Keys:
    """Return the keys and topics of the cluster that settings are about; a node that is alone has the same, unused."""
    return Keys(settings.prefix, cluster=RedisAddress.parse(settings.redis_url).kind == "cluster")
