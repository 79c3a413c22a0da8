"""One pipelined connection to one Redis server, as an asyncio protocol: commands are sent without waiting.

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
"""Takes the replies that were read at once, in order; pub/sub messages are among them."""


class Reply(Protocol):
    """Where an answer goes: a future, or an object with the same three methods, called by the link itself.

    Such an object is called while the link reads its socket: it must neither block nor raise.
    """

    def done(self) -> bool:
        """Return True when nobody wants the answer any more; then neither of the others is called."""

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
"""Errors that Redis gives no code of their own: how their text begins, and the code we use for them."""


class RedisRefused(GatewayError):
    """Redis answered with an error: the text begins with its code, such as NOAUTH or READONLY."""

    code = "unavailable"
    status = 503
    command: Command = ()
    """What was refused, where that is known."""
    told = False
    """Whether it was reported as a trouble already (`Troubles.refused`), so that it is not counted twice."""

    def __init__(self, text: str) -> None:
        # A server that does not know AUTH, or HELLO, repeats the arguments in its error, the password among them; and
        # this text goes to the log.
        super().__init__(text.partition(", with args beginning with")[0])

    @property
    def elsewhere(self) -> bool:
        """Whether the slot is not served here now: another server has to be asked, or this one a little later."""
        return self.word in ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN")

    @property
    def word(self) -> str:
        """The code of the error."""
        for beginning, word in _WORDLESS.items():
            if self.message.startswith(beginning):
                return word
        return self.message.partition(" ")[0]


class Witness(Protocol):
    """Observes which commands a server refuses, and which it takes."""

    is_troubled: bool
    """Whether it wants to hear of commands that were taken, too; looked at for each reply."""

    def refused(self, error: RedisRefused, at: str) -> None: ...

    def taken(self, command: Command, at: str) -> None: ...


class Link(asyncio.Protocol):
    """Pipelines commands: what is sent in one loop tick leaves in one write, and replies come in the order of sending.

    Nothing here waits for the socket: what it does not take stays in the transport's buffer, so whoever sends has to
    bound what is under way. When the connection breaks, everyone who waits gets `LinkLost`.
    """

    def __init__(self, received: Received | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done once the connection is gone. Many wait for it: by `asyncio.shield` or `asyncio.wait`."""
        self.address = ""
        """`host:port` of the server."""
        self.begun = self.heard = self._loop.time()
        """Loop times at which it was made, and at which anything last came."""
        self._received = received
        """Takes all replies where pub/sub messages come among them; else they go to the `Reply` of each `send`."""
        # What is no RESP must raise an OSError: asyncio then closes the connection, and does not log it as our fault.
        self._reader = hiredis.Reader(replyError=RedisRefused, protocolError=ConnectionError)
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._replies: deque[tuple[Reply, Command]] = deque()
        """Who waits, and for the answer to which command; the command is empty where a refusal is no trouble."""
        self.witness: Witness | None = None
        """Told of every refusal, even where nobody waits for the answer any more."""
        self.lacking: set[str] = set()
        """Commands that Redis refused to this user and that we can do without, such as `CLIENT SETNAME`."""
        self._asked: float | None = None
        """Loop time since which an answer is due that proves the server alive; None when none is."""
        self.paused = False
        """Whether reading has stopped, so that silence is our own doing."""

    def send(self, reply: Reply, *command: str | bytes | int | float) -> None:
        """Send a command; `reply` gets the answer, `RedisRefused`, or `LinkLost`, which may come before this returns.

        Not for a link with `received`, which would take the answer.
        """
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
        """Send one command and wait for its answer, for as long as the link lasts.

        Raises `RedisRefused` and `LinkLost`.
        """
        return await self.request(*command)

    async def inquire(self, *command: str, tolerating: Collection[str] = ()) -> Any:
        """Ask for something that we can do without: return None where Redis forbids the command or does not know it.

        So it does for refusals whose code is in `tolerating`. Raises other refusals, and `LinkLost`.
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
        """Send a command as `send` does, but report no trouble when it is refused."""
        if self.lost.done():
            _fail(reply, LinkLost("the connection to Redis is lost"))
            return
        self._replies.append((reply, ()))
        self.write(*command)

    def write(self, *command: str | bytes | int | float) -> None:
        """Send a command whose answer comes to `received`; over a lost link it is dropped without a word."""
        if not self._unsent:  # else it is scheduled already: all of one tick leave in one system call
            self._loop.call_soon(self._flush)
        self._unsent.append(_packed(command))

    def hand_to(self, received: Received | None) -> None:
        """Give replies to `received` from now on. Nothing may be under way: its answer would go there, too."""
        self._received = received

    def abort(self) -> None:
        """Break the connection. `lost` is done, and whoever waits gets `LinkLost`, in the next tick of the loop."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        # The connection may have broken since the tick began: whoever waits has been told, or is about to be.
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(unsent))

    # ---- signs of life

    @property
    def owes_answer(self) -> bool:
        """Whether a question noted by `ask` has not been answered."""
        return self._asked is not None

    def ask(self) -> None:
        """Note that a question was sent which every living server answers; `answered` is to follow."""
        self._asked = self._loop.time()

    def answered(self) -> None:
        """Note that the question was answered."""
        self._asked = None

    def silence(self) -> tuple[float, float]:
        """Return two times in seconds: for how long nothing at all has come, and for how long an answer has been due.

        Both are 0 while none is due, or while we do not read: then silence says nothing of the server.
        """
        if self._asked is None or self.paused:
            return 0.0, 0.0
        now = self._loop.time()
        return now - max(self._asked, self.heard), now - self._asked

    def pause(self) -> None:
        """Stop reading: what is not read fills the buffers of the socket, and then waits in Redis."""
        if self._transport is not None and not self.paused:
            self.paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again; harmless where reading had not stopped."""
        if self._transport is not None and self.paused:
            self.paused = False
            self._transport.resume_reading()
            if self._asked is not None:
                self.ask()  # its answer may stand behind all that was not read: its time counts from now on

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
        """Give replies to those who wait, in the order in which they asked."""
        witness = self.witness
        for value in replies:
            reply, command = self._replies.popleft()  # before anyone is told, who may send at once
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
        # Lost first: whoever is told below, and sends something else over this link, is refused at once, and does not
        # append to the queue that is being emptied.
        self._transport = None
        self.lost.set_result(None)
        while self._replies:
            _fail(self._replies.popleft()[0], LinkLost("the connection to Redis broke"))


def _packed(command: Command) -> bytes:
    try:
        packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    except UnicodeEncodeError:  # a lone surrogate that no check has caught: it must not end a task of the node
        legible = tuple(part.encode(errors="replace") if isinstance(part, str) else part for part in command)
        return _packed(legible)
    return packed


def _fail(reply: Reply, error: Exception) -> None:
    if not reply.done():
        reply.set_exception(error)
