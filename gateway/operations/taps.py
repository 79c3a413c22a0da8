"""Observers that see the traffic of the whole cluster: what clients send, and what is written to anybody.

A wish to see something is announced to all nodes and renewed; a node whose wish is not renewed has stopped
tapping, however it ended. While there are wishes, every node copies what fits one of them into a small buffer,
which is published some times a second. What does not fit the buffer is counted and not shown: no copy is
waited for, by nobody. While nobody taps, a message costs one look at an empty dict.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from gateway.backplane import Target
from gateway.connections.connection import Connection
from gateway.errors import InvalidEnvelope, InvalidParam, Unavailable
from gateway.operations.rates import Rates
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope, pack_map, unpack_map
from gateway.protocol.message import Message, is_name
from gateway.redis.records import is_moment

RENEW = 3.0  # seconds: two announcements in a row may be lost before a wish expires
EXPIRE = 10.0  # seconds for which an observer that is gone still costs copies
REPORTED_WITHIN = 5.0
"""Seconds in which all nodes have reported the same injection."""
MOST_REPORTED = 20_000
"""Injections whose reports are compared; in a flood the oldest ones, reported again, would be shown again."""
MOST_WAITING = 1000
"""Messages that wait for one observer; further ones are not shown to it, and counted."""
FLUSH = 0.05  # seconds: a person takes it for live, and one publication holds what came meanwhile
MOST_COPIED = 1000
"""Messages a node copies between two flushes: a burst of what one observer has room for is shown whole."""
MOST_TAPPING, MOST_FILTERS = 1000, 1000
"""Nodes, and observers on one, whose wishes are heard."""
MOST_COPIED_BYTES = 512 * 1024  # 10 MiB a second and node at most, over the connection that the traffic needs


class Filter(NamedTuple):
    """What an observer wants to see; an empty field is any."""

    channel: str = ""
    user: str = ""
    """Whose message it is, or to whom it is written."""
    connection: str = ""
    cmd: str = ""
    direction: str = ""
    """`in`: from a client; `out`: written to a channel, a user, a connection or everyone."""
    also: str = ""
    """With `connection`: what else it is written by, as `channel:NAME` and `user:ID` with spaces between."""


class Sight(NamedTuple):
    """One message that was seen. `at` is in ms since the epoch, by the clock of the node that saw it."""

    at: int
    node: str
    direction: str
    kind: str
    """Where to: `channel`, `user`, `connection` or `all`; of a client's message always `channel`."""
    name: str
    """Of that channel, user or connection."""
    connection: str
    """The client's whose message it is, or the one that it is written to."""
    user: str
    """Who sent it, "" where nobody says."""
    payload: bytes
    """JSON with `channel`, `cmd`, `param`, and `from` where there is one."""

    @property
    def message(self) -> Message:
        """The message itself. Raises `InvalidEnvelope`."""
        return _read(self.payload)


@lru_cache(maxsize=1)
def _read(payload: bytes) -> Message:
    """Look inside a message once, however many filters ask about it one after the other."""
    return codec.read(payload)


class Tap:
    """One observer's queue. Filling it never waits: what does not fit is counted in `missed`."""

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.waiting: asyncio.Queue[Sight] = asyncio.Queue(MOST_WAITING)
        self.missed = 0
        """What fitted the filter and is not shown, on whatever node it was lost."""

    def show(self, sight: Sight) -> None:
        if not fits(self.wanted, sight):
            return
        try:
            self.waiting.put_nowait(sight)
        except asyncio.QueueFull:
            self.missed += 1


@dataclass(slots=True)
class _Wish:
    """What one other node's observers want to see."""

    filters: list[Filter]
    until: float


@dataclass(slots=True)
class _Buffer:
    """Copies that wait to be published."""

    sights: list[Sight] = field(default_factory=list)
    reports: list[bytes] = field(default_factory=list)
    """Of what people published."""
    size: int = 0
    missed: int = 0
    unreported: int = 0
    """Reports for which there was no room."""

    def takes(self, size: int) -> bool:
        """Count one more copy in, if there is room for it."""
        if len(self.sights) + len(self.reports) >= MOST_COPIED or self.size + size > MOST_COPIED_BYTES:
            return False
        self.size += size
        return True


class Taps:
    """Which observers are on this node, and what the observers of all nodes want to see."""

    def __init__(self, node: str) -> None:
        self._node = node
        self.rates = Rates()
        """Counts what arrives."""
        self.here: set[Tap] = set()
        self._wishes: dict[str, _Wish] = {}
        self._buffer = _Buffer()
        self._due = asyncio.Event()
        self._injected: OrderedDict[tuple[Target, bytes], tuple[Counter[str], float]] = OrderedDict()
        """By where it went and a digest: how often each node has reported it, and when last; the latest at the end."""
        self._unreported: Counter[str] = Counter()
        """By node: how many it had no room to report."""

    @property
    def wanted(self) -> bool:
        """Whether anybody may want to see anything; free when nobody does."""
        return bool(self._wishes) or self.rates.is_on

    # ---- what is seen

    def heard(self, connection: Connection, message: Message) -> None:
        """Take note of what a client sent, if anybody wants to see it."""
        if not self._any_awake():
            return
        channel = message.channel or connection.channel
        param = "***" if message.cmd == "$auth" else message.param
        try:
            payload = codec.encode(message.cmd, param, channel)
        except InvalidParam:  # msgpack can say what JSON cannot
            payload = codec.encode(message.cmd, None, channel)
        self._copy(self._sight("in", "channel", channel, connection.id, connection.user, payload))

    def written(self, target: Target, envelope: Envelope) -> None:
        """Take note of what this node writes, if anybody wants to see it."""
        if self._any_awake():
            self._copy(self._written(target, envelope))

    def _written(self, target: Target, envelope: Envelope) -> Sight:
        kind, name, connection = target.kind, target.name, envelope.connection or ""
        if connection:
            kind, name = "connection", connection
        return self._sight("out", kind, name, connection, "", envelope.payload)

    def _sight(self, direction: str, kind: str, name: str, connection: str, user: str, payload: bytes) -> Sight:
        now = time.time_ns() // 1_000_000
        return Sight(now, self._node, direction, kind, name, connection, user, payload)

    def _copy(self, sight: Sight) -> None:
        if not self._is_wanted(sight):
            return
        if self._buffer.takes(len(sight.payload)):
            self._buffer.sights.append(sight)
        else:
            self._buffer.missed += 1
        self._due.set()

    def _is_wanted(self, sight: Sight) -> bool:
        return any(fits(wanted, sight) for wish in self._wishes.values() for wanted in wish.filters)

    async def run(self, publish: Callable[[bytes], Awaitable[object]]) -> None:
        """Publish the copies, until cancelled."""
        while await self._due.wait():
            await asyncio.sleep(FLUSH)
            await self.flush(publish)

    async def flush(self, publish: Callable[[bytes], Awaitable[object]]) -> None:
        """Publish the copies that wait, if there are any."""
        if not self._due.is_set():
            return
        self._due.clear()
        full, self._buffer = self._buffer, _Buffer()
        copies = {"node": self._node, "sights": full.sights, "missed": full.missed}
        if full.reports or full.unreported:
            copies |= {"reports": full.reports, "unreported": full.unreported}
        try:
            await publish(pack_map(copies))
        except Unavailable:
            self._buffer.missed += len(full.sights) + full.missed
            self._buffer.unreported += len(full.reports) + full.unreported

    # ---- what observers want

    def wish(self) -> bytes:
        """Say what the observers of this node want to see."""
        return pack_map({"tap": self._node, "filters": list({tap.wanted for tap in self.here})})

    def suppose(self) -> None:
        """Take everything for wanted until each wish must have been renewed: who comes late has not heard them."""
        self._wishes[""] = _Wish([Filter()], asyncio.get_running_loop().time() + EXPIRE)

    def wished(self, data: bytes) -> None:
        """Note what the observers of a node want to see, until it stops renewing this. Raises `InvalidEnvelope`."""
        match unpack_map(data):
            case {"tap": str(node), "filters": []} if is_name(node):
                self._wishes.pop(node, None)
            case {"tap": str(node), "filters": [*filters]} if is_name(node) and len(filters) <= MOST_FILTERS:
                if node not in self._wishes and len(self._wishes) >= MOST_TAPPING:
                    raise InvalidEnvelope(f"more than {MOST_TAPPING} nodes wish to see messages")
                until = asyncio.get_running_loop().time() + EXPIRE
                self._wishes[node] = _Wish([_filter_of(wanted) for wanted in filters], until)
            case _:
                raise InvalidEnvelope("expected a wish to see messages")

    def show(self, data: bytes) -> None:
        """Show the observers here what a node saw. Raises `InvalidEnvelope`."""
        match unpack_map(data):
            case {"node": str(node), "sights": [*sights], "missed": int(missed), **rest} if is_moment(missed):
                seen = list(map(_sight_of, sights))  # all of them are looked at before any is shown
                self._miss(missed)
                for sight in seen:
                    self._show(sight)
                self._show_reports(node, rest)
            case {"injected": bytes()} as report:
                self._show_injected(report)
            case _:
                raise InvalidEnvelope("expected copies of messages")

    def _show_reports(self, node: str, parts: dict[str, object]) -> None:
        """Show what people published; what several nodes had no room to report is missed once, too."""
        match parts:
            case {"reports": [*reports], "unreported": int(unreported)} if is_moment(unreported):
                for report in reports:
                    self._show_injected(unpack_map(report if isinstance(report, bytes) else b""))
                before = max(self._unreported.values(), default=0)
                self._unreported[node] += unreported
                self._miss(max(0, self._unreported[node] - before))

    def _miss(self, count: int) -> None:
        for tap in self.here:
            tap.missed += count

    def _show(self, sight: Sight) -> None:
        for tap in self.here:
            tap.show(sight)

    def arrived(self, target: Target, data: bytes) -> bool:
        """Take note of what came from the backplane; tell whether observers are to be told of it.

        They are when a person published it: of everything else the node that wrote it makes the copy.
        """
        if self.rates.is_on and target.kind == "channel":
            self.rates.count(target.name, asyncio.get_running_loop().time())
        return data[:1] == b"{" and bool(self._wishes)

    def report(self, data: bytes, target: Target, envelope: Envelope) -> None:
        """Copy what a person published, which no node did, if anybody wants to see it."""
        if not self._is_wanted(self._written(target, envelope)):
            return
        report = self.injection(data, target, envelope)
        if self._buffer.takes(len(report)):
            self._buffer.reports.append(report)
        else:
            self._buffer.unreported += 1
        self._due.set()

    def injection(self, data: bytes, target: Target, envelope: Envelope) -> bytes:
        """Make the report of what a person published."""
        return pack_map(
            {
                "node": self._node,
                "injected": blake2b(data, digest_size=16).digest(),
                "kind": target.kind,
                "name": target.name,
                "payload": envelope.payload,
                "connection": envelope.connection or "",
            }
        )

    def _show_injected(self, report: dict[str, object]) -> None:
        """Show what a person published, which every node that has a receiver reports: once, all the same.

        The n-th report of the same bytes by one node is the same publication as the n-th by another.
        """
        match report:
            case {"node": str(node), "injected": bytes(injected), "kind": str(kind), "name": str(name), **rest}:
                target, envelope = Target(kind, name), _envelope_of(rest)
            case _:
                raise InvalidEnvelope("expected a copy of what was published")
        now = asyncio.get_running_loop().time()
        self._forget_reports(now)
        reports, _ = self._injected.pop((target, injected), (Counter[str](), 0.0))
        shown = max(reports.values(), default=0)
        reports[node] += 1
        self._injected[target, injected] = reports, now
        if reports[node] > shown:
            self._show(self._written(target, envelope)._replace(node=""))

    def _forget_reports(self, now: float) -> None:
        """Drop those that nobody repeats any more: they stand first, so that a flood costs no look at all of it."""
        while self._injected:
            _, seen = next(iter(self._injected.values()))
            if seen + REPORTED_WITHIN >= now and len(self._injected) < MOST_REPORTED:
                return
            self._injected.popitem(last=False)

    @contextmanager
    def observing(self, wanted: Filter) -> Iterator[Tap]:
        """Have a queue that what fits is put in."""
        tap = Tap(wanted)
        if not self.here:
            self._unreported.clear()
        self.here.add(tap)
        try:
            yield tap
        finally:
            self.here.discard(tap)

    def _any_awake(self) -> bool:
        now = asyncio.get_running_loop().time()
        for node in [node for node, wish in self._wishes.items() if wish.until <= now]:
            del self._wishes[node]
        return bool(self._wishes)


def fits(wanted: Filter, sight: Sight) -> bool:
    """Tell whether an observer wants to see this. Looks inside the message only where the filter does."""
    if wanted.direction not in ("", sight.direction):
        return False
    if wanted.connection not in ("", sight.connection) and not _reaches(wanted.also, sight):
        return False
    if wanted.channel and (sight.kind, sight.name) != ("channel", wanted.channel):
        return False
    return not (wanted.user or wanted.cmd) or _fits_inside(wanted, sight)


def _reaches(also: str, sight: Sight) -> bool:
    """Tell whether a message goes to one of several targets, or to everyone."""
    return bool(also) and (sight.kind == "all" or f"{sight.kind}:{sight.name}" in also.split(" "))


def _fits_inside(wanted: Filter, sight: Sight) -> bool:
    try:
        message = sight.message
    except InvalidEnvelope:
        return False
    addressed = sight.name if sight.kind == "user" else ""
    return wanted.cmd in ("", message.cmd) and wanted.user in ("", sight.user, message.sender, addressed)


def _filter_of(parts: object) -> Filter:
    """Read what a node wants to see; one of another version may say more or less."""
    match parts:
        case [*fields] if all(isinstance(field, str) for field in fields):
            return Filter(*map(str, fields[: len(Filter._fields)]))
    raise InvalidEnvelope("expected a filter")


def _envelope_of(parts: object) -> Envelope:
    match parts:
        case {"payload": bytes(payload), "connection": str(connection)}:
            _read(payload)  # observers do, and are not to fail at what a stranger has published there
            return Envelope(payload, connection=connection or None)
    raise InvalidEnvelope("expected a copy of what was published")


def _sight_of(parts: object) -> Sight:
    match parts:
        case [int(at), str(node), str(way), str(kind), str(name), str(id), str(user), bytes(payload)] if is_moment(at):
            codec.read(payload)
            return Sight(at, node, way, kind, name, id, user, payload)
    raise InvalidEnvelope("expected a copy of a message")
