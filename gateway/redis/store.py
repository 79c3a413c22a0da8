"""The store of sets and books: what every store promises, and the one over a single Redis server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

from gateway.errors import Unavailable
from gateway.redis.dialer import Dials
from gateway.redis.eviction import eviction_of, warning_of
from gateway.redis.link import Command, Link, LinkLost, RedisRefused
from gateway.redis.pipeline import Read, Writer, answer_of, is_wrong_type, keys_of, load_scripts
from gateway.redis.reconnect import stay_connected
from gateway.redis.records import Rejections
from gateway.redis.script import Script
from gateway.redis.trouble import Troubles


class RefusedCommand(Unavailable):
    """Redis refused a command."""


class WrongType(RefusedCommand):
    """A key holds another type than the command needs: somebody has written a string instead of a set, say."""


Misplaced = Callable[[Command], None]
"""Called with a command that met a key of a wrong type."""


class Store(Protocol):
    """Takes writes in order, and answers questions, over however many servers.

    A question overtakes the writes that wait: where it must see a write, await the write first.
    """

    whole: bool
    """Whether all keys live on one server, so that one script may touch any of them."""
    tags: Sequence[str]
    """A hash tag in a slot of each master of a cluster; empty for a single server, or while no master is known."""
    connected: list[Callable[[], None]]
    """Called for every new link, just before anything is written over it."""
    rearranged: list[Callable[[], None]]
    """Called when other servers answer than before, or one was restarted: they may not have the data there was."""
    misplaced: list[Misplaced]
    """Called with each command that met a key of a wrong type."""

    async def run(self) -> None:
        """Be connected, and connect again whenever that is lost, until cancelled."""

    def write(self, turn: str, key: str, command: Command, read: Read | None = None) -> Awaitable[Any]:
        """Note a command on `key`; what comes back is what `read` makes of the answer, and need not be awaited.

        The commands of one `turn` (a connection id, say) are carried out in the order of the calls, at least once: one
        whose connection broke is sent again, so each must bear being repeated. The result is None for a command that
        Redis refused for good, and raises `Unavailable` for one that was dropped because too many waited. Cancelling it
        does not take it back, and may let the next of its turn overtake it: limit the wait by `asyncio.wait`.
        """

    async def ask(self, key: str, command: Command) -> Any:
        """Send a command on `key` at once, ahead of the writes that wait, and return the answer.

        Waits for as long as the link lasts, and a frozen Redis may answer after minutes: who cannot wait sets a limit.
        Raises `Unavailable` when Redis is away, refuses, or the link breaks, after which the command may have been
        carried out or not. `WrongType`, which is one of these, says that the key holds something else.
        """

    async def flushed(self) -> None:
        """Wait until everything noted is written; while Redis is away that takes as long as the outage."""

    def take_overflow(self) -> bool:
        """Tell, once, whether writes had to be dropped since this was last asked."""

    def server(self, key: str) -> str:
        """Return the address, `host:port`, of the server that has a key; "" while there is none, or for a Unix socket.

        May be called by any thread.
        """


class LinkedStore:
    """What both stores do with each new link, and whom they tell what they met."""

    def __init__(self, troubles: Troubles, scripts: Sequence[Script]) -> None:
        self._troubles = troubles
        self._scripts = scripts
        """Given to every server before it is asked for anything."""
        self.connected: list[Callable[[], None]] = []
        self.rearranged: list[Callable[[], None]] = []
        self.misplaced: list[Misplaced] = []
        self._runs: dict[str, str] = {}
        """The run to which the last link led, by shard: another one was restarted, and may have lost its data."""

    async def _use_with(self, writer: Writer, link: Link, *, shard: str = "") -> None:
        """Prepare a new link to a shard ("" where there is one server), tell of it, and write over it until it ends."""
        # Before anybody may ask: a restarted Redis knows no scripts.
        await load_scripts(link, self._scripts)
        at = f" at {link.address}" if shard else ""
        self._troubles.notice(f"eviction{at}", warning_of(await eviction_of(link)))
        run = await run_of(link) if self.rearranged else ""  # who only reads has nothing to write again
        self._troubles.does_without(link.lacking)
        if self._runs.setdefault(shard, run) != run:
            self._runs[shard] = run
            self._rearranged()
        for hear in self.connected:
            hear()
        # Whoever was woken by that finds the link in use: nothing is awaited in between.
        await writer.use(link)

    def _rearranged(self) -> None:
        for hear in self.rearranged:
            hear()

    def _misplaced(self, command: Command) -> None:
        for hear in self.misplaced:
            hear(command)


class SingleStore(LinkedStore):
    """One server, standalone or found by Sentinel: one link, one queue."""

    whole = True
    tags: Sequence[str] = ()

    def __init__(self, dialer: Dials, troubles: Troubles, *, scripts: Sequence[Script] = ()) -> None:
        super().__init__(troubles, scripts)
        self._dialer = dialer
        self._writer = Writer(misplaced=self._misplaced)

    async def run(self) -> None:
        await stay_connected(self._dialer, partial(self._use_with, self._writer), "presence", self._troubles)

    def write(self, turn: str, key: str, command: Command, read: Read | None = None) -> asyncio.Future[Any]:
        return self._writer.put(command, read)

    async def ask(self, key: str, command: Command) -> Any:
        if self._writer.link is None:
            raise Unavailable("Redis is away")
        try:
            return await answer_of(self._writer.link, command, self._scripts)
        except RedisRefused as error:
            raise refusal_of(command, error, self._misplaced) from None
        except LinkLost as error:
            raise Unavailable(f"Redis did not answer: {error}") from None

    async def flushed(self) -> None:
        await self._writer.flushed()

    def take_overflow(self) -> bool:
        overflowed, self._writer.overflowed = self._writer.overflowed, False
        return overflowed

    def server(self, key: str) -> str:
        link = self._writer.link
        return link.address if link is not None else ""


async def run_of(link: Link) -> str:
    """Return the id of the run of the server that a link leads to: another run may not have the data of the last one.

    Where INFO is forbidden each link counts as another run, so that everything is written again.
    """
    info = await link.inquire("INFO", "server") or b""
    found = dict(line.split(b":", 1) for line in info.split(b"\r\n") if b":" in line)
    return found.get(b"run_id", b"").decode() or secrets.token_hex(8)


def refusal_of(command: Command, error: RedisRefused, misplaced: Misplaced) -> RefusedCommand:
    """Make the error to raise for a refusal; `misplaced` hears of it if the key was of a wrong type."""
    if not is_wrong_type(error):
        return RefusedCommand(f"Redis did not answer: {error}")
    misplaced(command)
    return WrongType(f"{' '.join(keys_of(command))[:200]}: {error}")


async def looked(store: Store, key: str, command: Command, nothing: Any, rejections: Rejections) -> Any:
    """Ask as `Store.ask` does, for whoever only looks: where the key is of a wrong type, return `nothing`."""
    try:
        return await store.ask(key, command)
    except WrongType:
        rejections.stands(key, "expected another type of key", b"")
        return nothing
