"""One connection to one Redis server, spoken to without waiting.

Not redis-py's asyncio client, for two reasons, measured by `scripts/redis-link` on 2026-11-29 with redis-py 8.1.0 and
Python 3.11. A message that is read costs 17 times the CPU there (7 rounds, 8 to 20). And it decides by itself what only
we can: of 20 PUBLISHes whose answer was lost it made 220, and 85 of 200 cancelled tasks went on. A link that breaks
says so once and is never used again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Protocol, cast

import hiredis

from gateway.errors import GatewayError

Command = tuple[str | bytes | int | float, ...]
Received = Callable[[list[Any]], None]
"""Takes a batch of replies."""


class Reply(Protocol):
    """Where an answer goes: a future, or what stands in for one."""

    def done(self) -> bool: ...

    def set_result(self, value: Any, /) -> None: ...

    def set_exception(self, error: Exception, /) -> None: ...


class LinkLost(GatewayError):
    """The connection to Redis broke; whether commands under way were carried out is not known."""

    code = "unavailable"
    status = 503


_WORDLESS = {
    "ERR The user executing the script can't": "NOPERM",
    "ERR unknown command": "UNKNOWN",
    "ERR unknown subcommand": "UNKNOWN",
    "ERR Unknown Redis command called from script": "UNKNOWN",
    "ERR max number of clients": "MAXCLIENTS",
    "ERR This instance has cluster support disabled": "NOCLUSTER",
}
"""Errors that matter here and have no code of their own: how they begin, and what they are called here."""


class RedisRefused(GatewayError):
    """Redis answered with an error: the text begins with its code, such as NOAUTH or READONLY."""

    code = "unavailable"
    status = 503
    command: Command = ()
    """What was refused, where that is known."""
    told = False
    """Whether the witness of its link has heard of it."""

    def __init__(self, text: str) -> None:
        # A server that does not know AUTH, or HELLO, repeats what it was given with it: the password.
        super().__init__(text.partition(", with args beginning with")[0])

    @property
    def elsewhere(self) -> bool:
        """Whether another server of the cluster has to be asked, or this one a little later."""
        return self.word in ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN")

    @property
    def word(self) -> str:
        """The code of the error."""
        for beginning, word in _WORDLESS.items():
            if self.message.startswith(beginning):
                return word
        return self.message.partition(" ")[0]


class Witness(Protocol):
    """Hears how servers take commands."""

    is_troubled: bool
    """Whether it wants to hear of commands that were taken, too."""

    def refused(self, error: RedisRefused, at: str) -> None: ...

    def taken(self, command: Command, at: str) -> None: ...


class Link(asyncio.Protocol):
    """Pipelines commands: what is sent in one loop tick leaves in one write, replies come in order."""

    def __init__(self, received: Received | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.address = ""
        """`host:port` of the server."""
        self.begun = self.heard = self._loop.time()
        """When it was made, and when anything last came."""
        self._received = received
        """Takes whole batches of replies, where pushes come unasked; else they go to the futures of `send`."""
        self._reader = hiredis.Reader(replyError=RedisRefused, protocolError=ConnectionError)
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._replies: deque[tuple[Reply, Command]] = deque()
        """Who waits, and for the answer to what; that is empty where a refusal is no trouble."""
        self.witness: Witness | None = None
        """Hears of every refusal, whoever asked and whatever becomes of the answer."""
        self.lacking: set[str] = set()
        """What was asked and is refused, and can be done without."""
        self._asked: float | None = None
        """Since when a sign of life is due."""
        self.paused = False

    def send(self, reply: Reply, *command: str | bytes | int | float) -> None:
        """Send a command whose answer, or `LinkLost` or `RedisRefused`, goes to `reply`."""
        if self.lost.done():
            _fail(reply, LinkLost("the connection to Redis is lost"))
            return
        self._replies.append((reply, command))
        self.write(*command)

    def request(self, *command: str | bytes | int | float) -> asyncio.Future[Any]:
        """Send one command; return the future of its answer."""
        reply: asyncio.Future[Any] = self._loop.create_future()
        self.send(reply, *command)
        return reply

    async def call(self, *command: str | bytes | int | float) -> Any:
        """Send one command and wait for its answer."""
        return await self.request(*command)

    async def inquire(self, *command: str, tolerating: Collection[str] = ()) -> Any:
        """Ask what can be done without: None where it is forbidden or unknown, or refused for one of these reasons.

        Raises other refusals.
        """
        reply: asyncio.Future[Any] = self._loop.create_future()
        self.wonder(reply, *command)
        try:
            return await reply
        except RedisRefused as error:
            if error.word in ("NOPERM", "UNKNOWN"):
                self.lacking.add(" ".join(command[:2]))
            elif error.word not in tolerating:
                error.command = command
                raise
            return None

    def wonder(self, reply: Reply, *command: str) -> None:
        """Send a command that may be refused without harm."""
        if self.lost.done():
            _fail(reply, LinkLost("the connection to Redis is lost"))
            return
        self._replies.append((reply, ()))
        self.write(*command)

    def write(self, *command: str | bytes | int | float) -> None:
        """Send a command whose answer comes to `received`."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(_packed(command))

    def hand_to(self, received: Received | None) -> None:
        """Give replies to `received` from now on."""
        self._received = received

    def abort(self) -> None:
        """Break the connection at once: what waits is answered with `LinkLost`."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(unsent))

    # ---- signs of life

    @property
    def owes_answer(self) -> bool:
        return self._asked is not None

    def ask(self) -> None:
        """Note that a question was sent which a living server answers."""
        self._asked = self._loop.time()

    def answered(self) -> None:
        """Note that the question was answered."""
        self._asked = None

    def silence(self) -> tuple[float, float]:
        """For how long nothing has come though an answer is due, and for how long that answer is due."""
        if self._asked is None or self.paused:
            return 0.0, 0.0
        now = self._loop.time()
        return now - max(self._asked, self.heard), now - self._asked

    def pause(self) -> None:
        """Read no more, so that what is not read waits in Redis."""
        if self._transport is not None and not self.paused:
            self.paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._transport is not None and self.paused:
            self.paused = False
            self._transport.resume_reading()
            if self._asked is not None:
                self.ask()

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        self._reader.feed(data)
        replies = []
        while (reply := self._reader.gets()) is not False:
            replies.append(reply)
        if self._received is not None:
            self._received(replies)
        else:
            self._settle(replies)

    def _settle(self, replies: list[Any]) -> None:
        witness = self.witness
        for value in replies:
            reply, command = self._replies.popleft()
            if isinstance(value, RedisRefused):
                value.command = command
                if witness is not None and command:
                    witness.refused(value, self.address)
                if not reply.done():
                    reply.set_exception(value)
                continue
            if witness is not None and witness.is_troubled:
                witness.taken(command, self.address)
            if not reply.done():
                reply.set_result(value)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.lost.set_result(None)
        while self._replies:
            _fail(self._replies.popleft()[0], LinkLost("the connection to Redis broke"))


def _packed(command: Command) -> bytes:
    try:
        packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    except UnicodeEncodeError:  # a lone surrogate, which no check has found: not worth a node
        legible = tuple(part.encode(errors="replace") if isinstance(part, str) else part for part in command)
        return _packed(legible)
    return packed


def _fail(reply: Reply, error: Exception) -> None:
    if not reply.done():
        reply.set_exception(error)
