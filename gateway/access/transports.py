"""All TCP connections of a node's port: how many there may be, how long each may wait, and who makes way for whom.

A descriptor is what a node runs out of first, and whoever can open a connection can take one. So all are counted, idle
ones end when others come, and a few are kept for probes: a node that is full answers those who ask how it is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from gateway.access.log_limit import LogLimit
from gateway.access.request_heads import FULL, REASONS
from gateway.connections.counters import Counters

logger = logging.getLogger(__name__)

LINGER = 1.0
"""Seconds in which who was refused may read why: closing at once while it is still writing would be a reset."""
STALL = 10.0
"""Seconds in which a client must take something of what waits for it: TCP repeats a lost packet within a few seconds,
and who has lost several is still there."""
CROWDED_KEEP_ALIVE = 5.0
"""Seconds for which a connection may wait between two requests while many do: a page loads its files within that."""
CROWD = 1000
"""Connections beside the WebSockets, from which on that holds; or half of all that there may be. Balancers and probes
keep some dozens open."""
BESIDE = 1024
"""Connections that may come on top of `max_connections`: requests, and those who have not said yet what they want."""
SPARE = 16
"""Connections beyond the most, for probes: an orchestrator, a few balancers, and Prometheus ask at the same time."""
OTHERS = 32
"""Descriptors that a node may need later: links to Redis, several where that is a cluster, and files."""
PROBES = tuple(
    f"{method} {path}{end}".encode()
    for method in ("GET", "HEAD")
    for path in ("/healthz", "/readyz", "/metrics")
    for end in "? "
)

Answering = Coroutine[Any, Any, None]
FastAnswer = Callable[["Newcomer", bytes, asyncio.AbstractEventLoop], Answering | None]
"""What answers a first request with this head, or None where a server must."""


class Waiting(Protocol):
    """A connection that waits for its client."""

    def too_late(self) -> None:
        """End: its client takes too long over the head of a request."""

    def make_way(self) -> bool:
        """End for somebody else, or because nothing was asked for long; tell whether it did."""


class Newcomer(Waiting, Protocol):
    """A connection whose first request is awaited, or is being answered the short way."""

    transport: asyncio.Transport
    is_spare: bool
    """Whether it came when there were too many, and may only ask how the node is."""

    def refuse(self, response: bytes) -> None:
        """Say why not, and end the connection."""


class Server(Protocol):
    """What takes a connection over with its first request."""

    def begin(self, transport: asyncio.Transport, head: bytes, rest: bytes) -> None:
        """Take a connection over, with the head of its first request and what came behind it."""


class Transports:
    """Counts the connections of a port, and ends those that wait for too long."""

    def __init__(
        self,
        serve: Callable[[Transports, bool], Server],
        fast_path: FastAnswer,
        counters: Counters,
        *,
        timeout: float,
        keep_alive: float,
        most: int,
    ) -> None:
        """Needs a running loop. `serve` is told whether the connection is one of those kept for probes."""
        self.loop = asyncio.get_running_loop()
        """Asked for once: on CPython 3.11 each time is a system call."""
        self.serve = serve
        self.fast_path = fast_path
        self._counters = counters
        self._timeout = timeout or float("inf")
        self._keep_alive = keep_alive
        counters.transports_most = self._most = most
        self._crowd = min(CROWD, most // 2)
        # Since when each waits, longest first: every dictionary has one patience, and who waits anew goes to its end.
        self._heads: dict[Waiting, float] = {}
        self._resting: dict[Waiting, float] = {}
        self._writing: dict[asyncio.Transport, tuple[float, int]] = {}
        """Since when so many bytes have been waiting for a client."""
        self._timer: asyncio.TimerHandle | None = None
        self._due = float("inf")
        self._tasks: dict[asyncio.Task[None], Newcomer] = {}
        """What is being answered, and to whom."""
        self._said = LogLimit(logger, logging.INFO)
        self._crowded = LogLimit(logger, logging.WARNING)

    # ---- how many

    @property
    def is_full(self) -> bool:
        """Whether there are more connections than there may be."""
        return self._counters.transports > self._most

    def refuses(self, head: bytes, *, is_spare: bool) -> bool:
        """Tell whether there is no room for a request: on a connection that is kept for probes."""
        return is_spare and self.is_full and not head.startswith(PROBES)

    def arrived(self, newcomer: Newcomer) -> None:
        """Count a connection, and let it wait as long as it may. When there are too many, the oldest idle one ends."""
        self._counters.http += 1
        # Counted until the transport says that it is lost, and that of the one that makes way comes a turn of the loop
        # later: so for a moment there is one more than there may be, which `SPARE` has room for.
        if self.is_full:
            self._crowded("%s connections, the most there may be: those that wait longest end", self._most)
            newcomer.is_spare = not self._make_room()
            if self._counters.transports > self._most + SPARE and newcomer.is_spare:
                self.count_refusal(FULL, newcomer.transport)
                newcomer.transport.abort()
                return
        self.await_head(newcomer)

    def left(self, waiting: Waiting) -> None:
        """Hear that a connection has ended, or become a WebSocket, which counts as such."""
        self._counters.http -= 1
        self.forget(waiting)

    def _make_room(self) -> bool:
        """End what has been idle for longest; tell whether there was anything. It is closed when the loop turns."""
        while self._heads or self._resting:
            oldest = min(filter(None, (self._heads, self._resting)), key=lambda each: next(iter(each.values())))
            waiting = next(iter(oldest))
            del oldest[waiting]
            if waiting.make_way():
                return True
        return False

    # ---- how long

    def await_head(self, waiting: Waiting) -> None:
        """Give a connection its time for the head of a request."""
        self._resting.pop(waiting, None)
        self._heads[waiting] = now = self.loop.time()
        self._look_at(now + self._timeout)

    def rest(self, waiting: Waiting) -> None:
        """Let a connection wait for its next request."""
        self._resting.pop(waiting, None)
        self._resting[waiting] = now = self.loop.time()
        self._look_at(now + self._patience)

    def forget(self, waiting: Waiting) -> None:
        """Watch a connection no longer: it has said what it wants, or is gone."""
        self._heads.pop(waiting, None)
        self._resting.pop(waiting, None)

    def await_reading(self, transport: asyncio.Transport) -> None:
        """End a connection whose client takes nothing of what is written to it for `STALL` seconds."""
        if size := transport.get_write_buffer_size():
            now = self.loop.time()
            self._writing[transport] = (now, size)
            self._look_at(now + STALL)

    def await_no_reading(self, transport: asyncio.Transport) -> None:
        """Let a client read as it likes: all has left, or is somebody else's."""
        self._writing.pop(transport, None)

    @property
    def _patience(self) -> float:
        return min(self._keep_alive, CROWDED_KEEP_ALIVE) if self._counters.http > self._crowd else self._keep_alive

    def _look_at(self, due: float) -> None:
        if due < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due, self._timer = due, self.loop.call_at(due, self._sweep)

    def _sweep(self) -> None:
        # One timer for all: who was answered, or has left, since it was set is not in the dictionaries any more.
        self._timer, self._due = None, float("inf")
        now = self.loop.time()
        for waiting in _first(self._heads, now - self._timeout):
            waiting.too_late()
        for waiting in _first(self._resting, now - self._patience):
            waiting.make_way()
        self._end_stalled(now)
        for each, patience in ((self._heads, self._timeout), (self._resting, self._patience)):
            if each:
                self._look_at(next(iter(each.values())) + patience)
        if self._writing:
            self._look_at(next(iter(self._writing.values()))[0] + STALL)

    def _end_stalled(self, now: float) -> None:
        for transport, (since, size) in list(self._writing.items()):  # a copy: those that go on are put at its end
            if since > now - STALL:
                break
            del self._writing[transport]
            # More than before is the server's doing: it stops soon, and then less is the client's.
            if transport.get_write_buffer_size() == size:
                transport.abort()
            else:
                self.await_reading(transport)

    # ---- what is said

    def refuse(self, status: int, transport: asyncio.Transport) -> None:
        """Say why not, before there is a request, and end the connection. The client may go on writing for a moment."""
        self.count_refusal(status, transport)
        more = "Retry-After: 1\r\n" if status == FULL else ""
        head = f"HTTP/1.1 {status} {REASONS[status]}\r\n{more}Connection: close\r\nContent-Length: 0\r\n\r\n"
        self.end(transport, head.encode())

    def end(self, transport: asyncio.Transport, response: bytes) -> None:
        """Write the last that is written on a connection."""
        transport.write(response)
        self.loop.call_later(LINGER, transport.abort)

    def count_refusal(self, status: int, transport: asyncio.Transport | None) -> None:
        """Count what was refused before a handler heard of it, and say so: seldom, whoever wants to fill the log."""
        self._counters.refusals[status] += 1
        peer = transport.get_extra_info("peername") if transport is not None else None
        remote = peer[0] if isinstance(peer, tuple) else peer or ""
        self._said("refused: remote=%s status=%s reason=%r", remote, status, REASONS[status])

    # ---- the short way

    def run(self, answering: Answering, newcomer: Newcomer) -> None:
        """Let a first request be answered the short way."""
        task = self.loop.create_task(answering)
        self._tasks[task] = newcomer
        task.add_done_callback(self._tasks.pop)

    async def close(self) -> None:
        """Break the connections that have not asked for anything; give up answering."""
        if self._timer is not None:
            self._timer.cancel()
        for waiting in list(self._heads):
            waiting.make_way()
        for newcomer in self._tasks.values():
            newcomer.transport.abort()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _first(each: dict[Waiting, float], since: float) -> list[Waiting]:
    """Take out those that have waited since then or longer."""
    found = []
    for waiting, began in each.items():
        if began > since:
            break
        found.append(waiting)
    for waiting in found:
        del each[waiting]
    return found


def most_transports(max_connections: int) -> int:
    """Return how many connections the port may hold: as the process may open descriptors, and as the settings say."""
    may_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if may_open == resource.RLIM_INFINITY:
        may_open = 1 << 30
    most = max(may_open - _open_descriptors() - OTHERS - SPARE, may_open // 4)
    if max_connections > most:
        logger.warning(
            "max_connections is %s, but this process may open %s descriptors, of which %s can be connections",
            max_connections,
            may_open,
            most,
        )
    return min(most, max_connections + BESIDE) if max_connections else most


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:  # not on every platform
        return OTHERS
