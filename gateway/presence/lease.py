"""A node's lease, by which others know that it lives, and the rewriting of all it holds when Redis has lost that."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator

from gateway.connections.connection import Connection
from gateway.connections.hub import Hub
from gateway.errors import Unavailable
from gateway.presence.claims import Claims
from gateway.presence.contract import Vital, as_fields
from gateway.presence.duplicates import Duplicates, Holder
from gateway.presence.listing import SECONDS
from gateway.presence.marks import Marks
from gateway.presence.processes import own_process
from gateway.presence.reaper import Reaper
from gateway.presence.registry import RedisRegistry
from gateway.presence.rules import Rules
from gateway.presence.scripts import END, RENEW, TAKE
from gateway.redis.keys import Keys
from gateway.redis.link import Command
from gateway.redis.store import Store
from gateway.version import __version__

logger = logging.getLogger(__name__)

PERIOD = 3.0
"""Seconds between two renewals: of the 10 s of a lease, two may fail."""
RETRY = 0.2
"""Seconds until a renewal that Redis did not take is tried again."""
AT_ONCE = 100
"""Connections that are written before the loop turns and Redis has answered: a few milliseconds."""
LOST, SHARED, FOREIGN = 0, 2, -1
"""What `renew.lua` answers when not all is well (1)."""


class Lease:
    """Keeps this node known to the others.

    Idle cost is one renewal every 3 s, and in a cluster a look at each master, however many connections there are. What
    Redis holds of this node is written anew, all of it, when the lease is gone (the node was frozen, or Redis lost its
    data), when one master of a cluster has lost its mark and so its data, when another server answers (failover,
    restart), and when writes had to be dropped.
    """

    def __init__(
        self,
        node: str,
        store: Store,
        keys: Keys,
        hub: Hub,
        registry: RedisRegistry,
        reaper: Reaper,
        claims: Claims,
        rules: Rules,
        duplicates: Duplicates,
        marks: Marks,
        vital: Callable[[], Vital] = Vital,
        proved: Callable[[float, str], None] = lambda since, at: None,
    ) -> None:
        """`proved` is called after each renewal: since a loop time a server, or the only one (""), has taken writes."""
        self._node = node
        self._proved = proved
        self._store, self._keys = store, keys
        self._hub = hub
        self._registry = registry
        self._reaper, self._claims, self._rules, self._marks = reaper, claims, rules, marks
        self._current = vital
        self._key, self._rival_key = keys.node(node), keys.rival(node)
        self._duplicates, self._incarnation = duplicates, duplicates.incarnation
        self._started = time.time_ns() // 1_000_000
        self._due = asyncio.Event()
        self._must_register = True
        self._renewed = 0.0
        self._ended = False
        self._turn = asyncio.Lock()
        self.registered = asyncio.Event()
        """Set once this node is in the set of nodes for the first time, or never will be: see `refusal`."""
        self.refusal = ""
        """Why this node cannot start, "" while nothing says so."""
        self.registering = False
        """Whether everything is being written: Redis does not have all of it yet."""
        self.steady_since = 0.0
        """Loop time since when every renewal came in time, so that the others could renew theirs as well."""

    def renew_now(self) -> None:
        """Renew at once, or behind the renewal under way."""
        self._due.set()

    def register_again(self) -> None:
        """Have everything written anew, at once or behind the renewal under way. Any number of calls count as one."""
        self._must_register = True
        self._due.set()

    async def run(self) -> None:
        """Renew, or register, until `end` is called, this node may not start, or it is cancelled."""
        while not self._ended and not self.refusal:
            self._due.clear()  # before the work: what calls for it during that is done next
            try:
                async with self._turn:
                    await self._renew()
                await self._wait(PERIOD)
            except Unavailable:
                self._renewed = 0.0  # so that the next success counts as late: others may have met the same
                await self._wait(RETRY)
        self.registered.set()

    def renewal(self) -> Command:
        """Make a command that renews the lease if it is still this process's. May be called by any thread.

        It carries its script as text: nobody has given that to the connection over which it goes.
        """
        keys, incarnation = (self._key, self._rival_key), self._incarnation
        return ("EVAL", RENEW.text, len(keys), *keys, incarnation, SECONDS, self._node, "version", __version__)

    async def end(self) -> None:
        """Take this node out of the set of nodes, for good, unless another has its name. Raises `Unavailable`."""
        # First, and then behind the renewal under way: none that follows may bring the lease back.
        self._ended = True
        self._due.set()
        async with self._turn:
            if await self._store.ask(self._key, END((self._key, self._rival_key), self._incarnation)):
                await self._store.ask(self._keys.nodes, ("SREM", self._keys.nodes, self._node))

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._due.wait()
        except TimeoutError:
            pass

    async def _renew(self) -> None:
        """Renew the lease, or register when Redis may not have what this node holds. Raises `Unavailable`."""
        if self._ended:  # while it waited for its turn
            return
        began = asyncio.get_running_loop().time()
        self._must_register |= self._store.take_overflow()
        state = LOST if self._must_register else await self._still_held()
        if state != LOST and await self._marks.are_lost():
            state = LOST
        if state == LOST:
            self._renewed, self.steady_since = 0.0, began  # others may have lost theirs with it: nobody is reaped yet
            await self.register()
        elif state == FOREIGN and not self._duplicates.present:
            await self.register()  # once: the others may have removed what is held here before that one came
        elif state != FOREIGN:
            self._duplicates.note(self._duplicates.said_of(None) if state == SHARED else "")
        if state != FOREIGN:
            self._proved(began, "" if self._store.whole else self._store.server(self._key))
        now = asyncio.get_running_loop().time()
        # Late by a whole period, or answered late: Redis was slow, or this loop, and others may have been as well.
        if began - self._renewed > 2 * PERIOD or now - began > PERIOD:
            self.steady_since = now
        self._renewed = now

    async def _still_held(self) -> int:
        """Renew the lease with the figures of now; return what `renew.lua` answers."""
        # The set of nodes is written each time, too: a reaper that was itself frozen may end its work late.
        keys = (self._key, self._rival_key, *((self._keys.nodes,) if self._store.whole else ()))
        command = RENEW(keys, self._incarnation, SECONDS, self._node, *self._vital())
        state: int = await self._store.ask(self._key, command)
        if not self._store.whole and state > LOST:
            await self._store.ask(self._keys.nodes, ("SADD", self._keys.nodes, self._node))
        return state

    async def register(self) -> None:
        """Write all that this node holds, and remove what it does not hold. Raises `Unavailable`.

        Announces nothing: nobody came or went. But if the others have reaped this node meanwhile, they have seen its
        users leave, and now see them return. What fails half-way is begun again with the next renewal.
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
        # Before all that is written: what a server loses from here on is seen when its mark is looked at next.
        await self._marks.remember()
        holder = await self._duplicates.holder()
        is_held = holder is not None and not holder.has_ended
        if is_held:
            self._stand_beside(holder)
        # The claim keeps reapers out: without a lease this node counts as dead until `_take`.
        async with self._claims.held(self._node):
            reaped = self._keys.reaped(self._node)
            was_reaped = await self._store.ask(reaped, ("GET", reaped))
            may_remove = not is_held and await self._duplicates.is_alone()
            ghosts = await self._reaper.remove_ghosts(self._node, self._hub.connections) if may_remove else 0
            if not is_held:
                await self._take(holder)
            await self._store.ask(self._keys.nodes, ("SADD", self._keys.nodes, self._node))
            await self._rules.write()
            # Announced where this node was reaped, or stands beside another one: that one, as it came, has removed what
            # is written here, and announced it as gone.
            await self._write_all(silent=not was_reaped and not is_held)
            # Last: if something fails before this, the next attempt still has to announce what the others saw leave.
            await self._store.ask(reaped, ("DEL", reaped))
        if ghosts or len(self._hub):
            logger.warning("registered anew: %s connections, %s ghosts removed", len(self._hub), ghosts)

    def _stand_beside(self, holder: Holder | None) -> None:
        """Note that another process has the lease; a node that starts must wait, and is refused if that one lives.

        Raises `Unavailable` for one that must wait.
        """
        if holder is None:
            return
        if self.registered.is_set():
            self._duplicates.note(self._duplicates.said_of(holder))
            return
        if self._duplicates.lives(holder):
            self.refusal = self._duplicates.said_of(holder)
        raise Unavailable("the lease of an earlier process of this name has not run out")

    async def _take(self, ended: Holder | None) -> None:
        """Take the lease, also from a process that is known to have ended. Raises `Unavailable` if another has it."""
        known = ended.incarnation if ended else ""
        fields = ("process", own_process(), *self._vital())
        # One step: of two that start at the same time, one gets it.
        if not await self._store.ask(self._key, TAKE((self._key,), self._incarnation, SECONDS, known, *fields)):
            raise Unavailable("another process of this name was faster")

    async def _write_all(self, *, silent: bool) -> None:
        """Write every connection, `AT_ONCE` at a time: the loop turns, and neither lease nor claim runs out meanwhile.

        Those that come meanwhile are written by whoever opens them. Raises `Unavailable` when the claim is lost.
        """
        everybody = list(self._hub)
        for start in range(0, len(everybody), AT_ONCE):
            some = everybody[start : start + AT_ONCE]
            await asyncio.gather(*(done for connection in some for done in self._write(connection, silent=silent)))
            if not await self._claims.take(self._node):
                raise Unavailable("another process has begun to remove what this node holds")
            if not self._duplicates.present:  # else it is the other one's
                await self._store.ask(self._key, ("EXPIRE", self._key, SECONDS))

    def _write(self, connection: Connection, *, silent: bool) -> Iterator[Awaitable[object]]:
        if connection.id not in self._hub.connections:  # gone while others were written: it must not come back
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
