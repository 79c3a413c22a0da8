"""`gateway serve --workers N`: a supervisor starts nodes that share a port, and replaces whichever dies.

Each has a line to the supervisor. What the supervisor says first is for nobody else to read: what log-in links are
signed with, the same for all, since any may be asked. Later the node says on it that it is up; the supervisor, that it
is to drain, or to hurry. A signal would not do: whoever signals a whole group of processes would then have each
signalled twice, and the second one ends a node at once. A line that breaks has the node drain: its supervisor is gone.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from gateway.config import Settings
from gateway.errors import CannotStart

logger = logging.getLogger(__name__)

UP, DRAIN, HURRY = b"u", b"d", b"h"
"""What is said on the line."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before another one is started; they double while workers keep dying young."""
YOUNG = 10.0
"""Seconds: one that dies later had started well, and is replaced without a longer pause."""


class Greeting(NamedTuple):
    """What a worker is told first."""

    secret: str
    """Of log-in links, in hex; "" where there are none."""
    is_first: bool
    """Whether it is the first of all workers to start, which says how to log in."""

    def written(self) -> bytes:
        return f"{self.secret} {self.is_first:d}\n".encode()

    @classmethod
    def read(cls, line: socket.socket) -> Greeting:
        """Wait for it; a supervisor that is gone before says nothing, and has no node that would run for long."""
        came = b""
        while not came.endswith(b"\n") and (byte := line.recv(1)):
            came += byte
        secret, _, is_first = came.decode().rstrip("\n").partition(" ")
        return cls(secret, is_first == "1")


def supervise(settings: Settings, greeting: Greeting) -> int:
    """Run as many workers as the settings say until SIGTERM or SIGINT; return the exit code.

    The first one starts alone: what keeps it from starting would keep all, and is said once.
    """
    with _reserved(settings) as port, asyncio.Runner() as runner:
        return runner.run(Supervisor(settings, port, greeting).run())


class Worker:
    """One place among the workers, and the process that has it now."""

    def __init__(self, id: str, port: int, greeting: Greeting) -> None:
        self.id = id
        self._greeting = greeting
        # What is given last wins over what the supervisor itself was given.
        own = ["--node-id", id, "--port", str(port)]
        self._command = [sys.executable, "-m", "gateway", *sys.argv[1:], *own]
        self._process: asyncio.subprocess.Process
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def start(self) -> None:
        """Start a process."""
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            self._process = await asyncio.create_subprocess_exec(*self._command, "--worker", str(fd), pass_fds=[fd])
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        self._writer.write(self._greeting.written())
        self._greeting = self._greeting._replace(is_first=False)

    async def up(self) -> bool:
        """Wait until it has started; tell whether it has."""
        try:
            return await self._reader.read(1) == UP
        except OSError:
            return False

    async def ended(self) -> int:
        """Wait for the end of the process; return its exit code."""
        code = await self._process.wait()
        assert self._writer is not None
        self._writer.close()
        self._writer = None
        return code

    def tell(self, order: bytes) -> None:
        """Have the process end; harmless where there is none."""
        if self._writer is not None:
            self._writer.write(order)


class Supervisor:
    """Keeps the workers running until it is asked to end."""

    def __init__(self, settings: Settings, port: int, greeting: Greeting) -> None:
        self._workers = [
            Worker(f"{settings.node_id}-{number}", port, greeting._replace(is_first=greeting.is_first and number == 1))
            for number in range(1, settings.workers + 1)
        ]
        self._order = b""
        """The last one given."""
        self._ending = asyncio.Event()

    async def run(self) -> int:
        """Return 0 when all have drained, and otherwise what the first one gave for not starting, or 1."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminate)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._end, HURRY)
        first, *others = self._workers
        await self._start(first)
        if not await first.up():
            return await first.ended()
        codes = await asyncio.gather(self._keep(first), *map(self._begin, others))
        return 1 if any(codes) else 0

    async def _start(self, worker: Worker) -> None:
        await worker.start()
        if self._order:  # it was given while this one was being started, and told to those that were there
            worker.tell(self._order)

    async def _begin(self, worker: Worker) -> int:
        if self._ending.is_set():
            return 0
        await self._start(worker)
        return await self._keep(worker)

    async def _keep(self, worker: Worker) -> int:
        """Replace the process of a worker whenever it ends unasked; return the exit code of the last one."""
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE
        while True:
            began = loop.time()
            code = await worker.ended()
            if self._ending.is_set():
                return code
            pause = FIRST_PAUSE if loop.time() - began > YOUNG else pause
            facts = {"node": worker.id, "code": code, "pause": pause}
            logger.warning("worker ended: node=%(node)s code=%(code)s; another one starts in %(pause)g s", facts)
            if await self._is_ending_within(pause):
                return 0
            pause = min(2 * pause, LONGEST_PAUSE)
            await self._start(worker)

    async def _is_ending_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        return self._ending.is_set()

    def _terminate(self) -> None:
        self._end(HURRY if self._order else DRAIN)

    def _end(self, order: bytes) -> None:
        self._order = order
        self._ending.set()
        for worker in self._workers:
            worker.tell(order)


@contextmanager
def _reserved(settings: Settings) -> Iterator[int]:
    """Keep the port for the workers, whichever of them lives; yield it. Raises `CannotStart`.

    It is bound and never listened on, so that it gets no connection.
    """
    try:
        found = socket.getaddrinfo(
            settings.host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        with _bound(family, address, shared=False) as alone:  # the workers of somebody else would share it
            address = alone.getsockname()
        kept = _bound(family, address, shared=True)
    except OSError as error:
        raise CannotStart(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}") from None
    with kept:
        yield int(address[1])


def _bound(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound
