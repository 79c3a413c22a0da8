"""A node's own place in the cluster: its lease, and everything written again when Redis no longer has it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterator

from gateway.backplane.keys import Keys
from gateway.backplane.link import Command, Link
from gateway.connection import Connection
from gateway.errors import Unavailable
from gateway.hub import Hub
from gateway.presence.claims import Claims
from gateway.presence.listing import SECONDS
from gateway.presence.reaper import Reaper
from gateway.presence.registry import Registry
from gateway.presence.rules import Rules
from gateway.presence.scripts import RENEW
from gateway.presence.store import Store
from gateway.version import __version__
from gateway.vitals import Vital, as_fields

logger = logging.getLogger(__name__)

PERIOD = 3.0
RETRY = 0.2
AT_ONCE = 100
"""Connections that are written before the loop turns and Redis has answered: a few milliseconds."""
LOST, FOREIGN = 0, -1


class Lease:
    """Keeps this node known to the others.

    Idle cost is one renewal every 3 s, however many connections there are. What Redis holds of this node is
    written anew, all of it, when the lease is gone (the node was frozen, or Redis lost its data), when
    another server answers (failover, restart), and when writes had to be dropped.
    """

    def __init__(
        self,
        node: str,
        store: Store,
        keys: Keys,
        hub: Hub,
        registry: Registry,
        reaper: Reaper,
        claims: Claims,
        rules: Rules,
        vital: Callable[[], Vital] = Vital,
    ) -> None:
        self._node = node
        self._store = store
        self._keys = keys
        self._hub = hub
        self._registry = registry
        self._reaper = reaper
        self._claims = claims
        self._rules = rules
        self._current = vital
        self._key = keys.node(node)
        self._incarnation = secrets.token_hex(8)
        self._started = time.time_ns() // 1_000_000
        self._due = asyncio.Event()
        self._must_register = True
        self._server = ""
        self._renewed = 0.0
        self._warned = False
        self._ended = False
        self._turn = asyncio.Lock()
        self.registered = asyncio.Event()
        """Set once this node is in the set of nodes for the first time."""
        self.registering = False
        """Whether everything is being written: Redis does not have all of it yet."""
        self.steady_since = 0.0
        """Loop time since when every renewal came in time: as long as the others could renew theirs."""

    async def connected(self, link: Link) -> None:
        """Look at the server a new link leads to: another one than before may not have what the last one had."""
        info = dict(line.split(b":", 1) for line in (await link.call("INFO", "server")).split(b"\r\n") if b":" in line)
        server = info.get(b"run_id", b"").decode()
        self._must_register |= self._server not in ("", server)
        self._server = server
        self._due.set()

    def register_again(self) -> None:
        """Have everything written anew, soon."""
        self._must_register = True
        self._due.set()

    async def run(self) -> None:
        while not self._ended:
            self._due.clear()
            try:
                async with self._turn:
                    await self._renew()
                await self._wait(PERIOD)
            except Unavailable:
                self._renewed = 0.0
                await self._wait(RETRY)

    def renewal(self) -> Command:
        """Make a command that renews the lease if it is still this incarnation's, whatever the state of the loop."""
        key, incarnation = self._key, self._incarnation
        return ("EVAL", RENEW.text, 1, key, incarnation, SECONDS, self._node, "version", __version__)

    async def end(self) -> None:
        """Take this node out of the set of nodes, for good. Raises `Unavailable`."""
        self._ended = True
        self._due.set()
        async with self._turn:
            await self._store.ask(self._keys.nodes, ("SREM", self._keys.nodes, self._node))
            await self._store.ask(self._key, ("DEL", self._key))

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._due.wait()
        except TimeoutError:
            pass

    async def _renew(self) -> None:
        if self._ended:
            return
        began = asyncio.get_running_loop().time()
        self._must_register |= self._store.take_overflow()
        state = LOST if self._must_register else await self._still_held()
        if state == LOST:
            self._renewed = 0.0  # others may have lost theirs with it
            await self.register()
        elif state == FOREIGN and not self._warned:
            self._warned = True
            logger.error("another process calls itself node %s: node_id must be unique", self._node)
        now = asyncio.get_running_loop().time()
        if began - self._renewed > 2 * PERIOD or now - began > PERIOD:
            self.steady_since = now
        self._renewed = now

    async def _still_held(self) -> int:
        # The set of nodes is written each time, too: a reaper that was itself frozen may end its work late.
        keys = (self._key, self._keys.nodes) if self._store.whole else (self._key,)
        command = RENEW(keys, self._incarnation, SECONDS, self._node, *self._vital())
        state: int = await self._store.ask(self._key, command)
        if not self._store.whole and state > LOST:
            await self._store.ask(self._keys.nodes, ("SADD", self._keys.nodes, self._node))
        return state

    async def register(self) -> None:
        """Write all this node holds, and remove what it does not hold. Raises `Unavailable`.

        Announces nothing: nobody came or went. But when the others have reaped this node meanwhile they
        have seen its users leave, and see them return.
        """
        self._must_register = False  # whatever calls for it from now on calls for it again
        self.registering = True
        try:
            await self._register()
        except Unavailable:
            self._must_register = True
            raise
        finally:
            self.registering = False
        self.registered.set()

    async def _register(self) -> None:
        async with self._claims.held(self._node):
            reaped = self._keys.reaped(self._node)
            was_reaped = await self._store.ask(reaped, ("GET", reaped))
            ghosts = await self._reaper.remove_ghosts(self._node, self._hub.connections)
            await self._store.ask(self._key, ("HSET", self._key, "incarnation", self._incarnation, *self._vital()))
            await self._store.ask(self._key, ("EXPIRE", self._key, SECONDS))
            await self._store.ask(self._keys.nodes, ("SADD", self._keys.nodes, self._node))
            await self._rules.write()
            await self._write_all(silent=not was_reaped)
            await self._store.ask(reaped, ("DEL", reaped))  # now, and not before: what fails half-way is begun anew
        if ghosts or len(self._hub):
            logger.warning("registered anew: %s connections, %s ghosts removed", len(self._hub), ghosts)

    async def _write_all(self, *, silent: bool) -> None:
        """Write every connection, some at a time: the loop turns, and neither lease nor claim runs out meanwhile."""
        everybody = list(self._hub)
        for start in range(0, len(everybody), AT_ONCE):
            some = everybody[start : start + AT_ONCE]
            await asyncio.gather(*(done for connection in some for done in self._write(connection, silent=silent)))
            if not await self._claims.take(self._node):
                raise Unavailable("another process has begun to remove what this node holds")
            await self._store.ask(self._key, ("EXPIRE", self._key, SECONDS))

    def _write(self, connection: Connection, *, silent: bool) -> Iterator[Awaitable[object]]:
        if connection.id not in self._hub.connections:  # gone while others were written
            return
        known = connection.info()
        if silent:
            yield from self._registry.restore(known, connection.agent)
            return
        yield self._registry.open(known, connection.agent)
        for channel in known.channels:
            yield self._registry.join(known, channel)

    def _vital(self) -> tuple[str | int, ...]:
        return (
            *("host", socket.gethostname(), "version", __version__, "started", self._started),
            *as_fields(self._current()),
            *("connections", len(self._hub), "channels", len(self._hub.channels)),
        )
