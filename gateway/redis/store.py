"""Where sets and books are kept: one Redis server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
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
    """A key holds what no node writes there: a string instead of a set, say."""


Misplaced = Callable[[Command], None]
"""Hears of a command that met a key of a wrong type."""


class Store(Protocol):
    """Takes writes in order, and answers questions, over however many servers."""

    whole: bool
    """Whether all keys live on one server, so that one script may touch any of them."""
    tags: Sequence[str]
    """A hash tag in a slot of each server, where they are several."""
    connected: list[Callable[[Link], Awaitable[None]]]
    """Who hears of every new link to the only server, before anything is written over it."""
    rearranged: list[Callable[[], None]]
    """Who hears that other masters of a cluster answer than before, or one that was restarted: they may not have all
    there was."""
    misplaced: list[Misplaced]
    """Who hears of a command that met a key of a wrong type."""

    async def run(self) -> None: ...

    def write(self, turn: str, key: str, command: Command, read: Read | None = None) -> Awaitable[Any]:
        """Note a command on `key`; the future is what `read` makes of the answer, and need not be awaited.

        Those of one `turn` (a connection id, say) are carried out one after the other, in order, and again
        after a broken connection, so every one must bear being repeated.
        """

    async def ask(self, key: str, command: Command) -> Any:
        """Send a command on `key` at once, ahead of the writes that wait, and return the answer.

        Raises `Unavailable`, and `WrongType`, which is one, where a hand has put something else under the key.
        """

    async def flushed(self) -> None:
        """Wait until everything noted is written."""

    def take_overflow(self) -> bool:
        """Tell, once, whether writes had to be dropped since this was last asked."""

    def server(self, key: str) -> str:
        """Name the server that has a key, as `host:port`; "" where none is known, or only the URL tells.

        May be called by any thread.
        """


class SingleStore:
    """One server, standalone or found by Sentinel: one link, one queue."""

    whole = True
    tags: Sequence[str] = ()

    def __init__(
        self,
        dialer: Dials,
        troubles: Troubles,
        *,
        scripts: Sequence[Script] = (),
    ) -> None:
        self._dialer = dialer
        self._troubles = troubles
        self._scripts = scripts
        """What every server is given before it is asked for anything."""
        self.connected: list[Callable[[Link], Awaitable[None]]] = []
        self.rearranged: list[Callable[[], None]] = []
        self.misplaced: list[Misplaced] = []
        self._writer = Writer(misplaced=self._misplaced)

    async def run(self) -> None:
        await stay_connected(self._dialer, self._use, "presence", self._troubles)

    async def _use(self, link: Link) -> None:
        await load_scripts(link, self._scripts)
        self._troubles.notice("eviction", warning_of(await eviction_of(link)))
        self._troubles.does_without(link.lacking)
        for hear in self.connected:
            await hear(link)  # who hears of it may ask at once: nothing is waited for in between
        await self._writer.use(link)

    def _misplaced(self, command: Command) -> None:
        for hear in self.misplaced:
            hear(command)

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
    """Name the run of the server that a link leads to: another one may not have what the last one had."""
    info = await link.inquire("INFO", "server") or b""
    found = dict(line.split(b":", 1) for line in info.split(b"\r\n") if b":" in line)
    # Where INFO is forbidden any new link may lead to another server.
    return found.get(b"run_id", b"").decode() or secrets.token_hex(8)


def refusal_of(command: Command, error: RedisRefused, misplaced: Misplaced) -> RefusedCommand:
    """Make what is raised for a refusal, and pass on word of a key that is to be mended."""
    if not is_wrong_type(error):
        return RefusedCommand(f"Redis did not answer: {error}")
    misplaced(command)
    return WrongType(f"{' '.join(keys_of(command))[:200]}: {error}")


async def looked(store: Store, key: str, command: Command, nothing: Any, rejections: Rejections) -> Any:
    """Ask what is there, for whoever only looks: where a key is of a wrong type, nothing is. Raises `Unavailable`."""
    try:
        return await store.ask(key, command)
    except WrongType:
        rejections.stands(key, "expected another type of key", b"")
        return nothing
