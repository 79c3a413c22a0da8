"""Made-up connections: which there are, where, and in which channels. All of it follows from their numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from gateway import Connection, Handler, Profile
from gateway.protocol.codec import dialect_of
from gateway.protocol.message import make_id

CHAT, CROWD, NEWS = 10, 5000, 10
"""Members of a small channel, members of a large one, and how many channels everybody is spread over."""
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like "
"""As much as is kept of what a browser sends."""
TABS = 20
"""One in so many connections is another one of the user before it."""
STARTED = 1_800_000_000_000
HANDLER, DIALECT = Handler(), dialect_of()


class Unheard:
    """Stands where a socket would: what is written to it is gone, but for how often somebody was announced."""

    is_behind = False
    waiting_bytes = 0
    announced = 0

    def write(self, frames: bytes) -> None:
        self.announced += frames.count(b"online-update")

    def write_sparable(self, messages: object) -> None: ...

    def close(self, close: object) -> None: ...


UNHEARD = Unheard()


@dataclass(frozen=True)
class Population:
    """So many connections, one after the other on each of so many nodes."""

    connections: int
    nodes: int

    def node(self, number: int) -> str:
        """Name a node as Kubernetes would."""
        return f"gateway-7d9f8c6b5-x2x{number:02}"

    def held(self, node: int) -> range:
        """Return the numbers of the connections that a node holds."""
        return range(node, self.connections, self.nodes)

    def id(self, number: int) -> str:
        return make_id(self.node(number % self.nodes), f"{number:010x}")

    def user(self, number: int) -> str:
        return f"user-{number - (number % TABS == TABS - 1):07}"

    def channels(self, number: int) -> tuple[str, str, str]:
        """Return a channel of ten, one of thousands, and one of a tenth of everybody."""
        return f"chat-{number // CHAT}", f"crowd-{number % self._crowds}", f"news-{number % NEWS}"

    @property
    def _crowds(self) -> int:
        return max(1, self.connections // CROWD)

    def connection(self, number: int) -> Connection:
        profile = Profile(self.user(number), f"Name {number}")
        remote = f"192.0.2.{number % 256}"
        made = Connection(
            self.id(number),
            profile,
            HANDLER,
            dialect=DIALECT,
            started=STARTED + number // 10,
            remote=remote,
            agent=AGENT,
        )
        made.socket = UNHEARD  # type: ignore[assignment]  # nobody reads from it
        return made

    def members(self, channel: str) -> range:
        """Return the numbers of a channel's members."""
        kind, _, text = channel.partition("-")
        match kind, int(text):
            case "chat", number:
                return range(number * CHAT, min(number * CHAT + CHAT, self.connections))
            case "crowd", number:
                return range(number, self.connections, self._crowds)
            case _, number:
                return range(number, self.connections, NEWS)

    @lru_cache(maxsize=1)  # noqa: B019 - there is one population
    def expected(self, nodes: tuple[int, ...]) -> dict[str, Counter[str]]:
        """Count what the sets of presence must have, by kind of set and name, when only these nodes are alive."""
        found: dict[str, Counter[str]] = {kind: Counter() for kind in ("node", "user", "members", "online")}
        online: dict[str, set[str]] = {}
        for node in nodes:
            found["node"][self.node(node)] = len(self.held(node))
            for number in self.held(node):
                user = self.user(number)
                found["user"][user] += 1
                for channel in self.channels(number):
                    found["members"][channel] += 1
                    online.setdefault(channel, set()).add(user)
        found["online"].update({channel: len(users) for channel, users in online.items()})
        return found
