"""The layout of a Redis Cluster: which master serves which slots, asked from its members and kept up to date."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import Any, NamedTuple

from redis.crc import key_slot as key_slot

from gateway.config.redis_url import Host, RedisAddress
from gateway.errors import Unavailable
from gateway.redis.dialer import Dialer
from gateway.redis.link import Link, LinkLost, Received, RedisRefused
from gateway.redis.slots import SLOTS
from gateway.redis.trouble import Troubles

logger = logging.getLogger(__name__)

# All in seconds.
REFRESH = 5.0
"""Time between two looks while nobody suspects anything: a master that hangs up or says MOVED is noticed at once."""
HURRY = 0.2
"""The longest pause before a look that somebody asked for; between two looks there is at least half of it."""
ASK_TIMEOUT = 1.0
"""How long one member is given to answer, log-in included: the next one may be well."""

Layout = list[str]
"""The address of the master of each slot, "" where there is none."""


class View(NamedTuple):
    """The cluster as one member sees it; of two views that of the higher epoch is the newer one."""

    epoch: int
    slots: Layout
    members: list[str]


class Topology:
    """Knows the masters of a cluster and the slots of each; kept fresh by `run`.

    A master is named by its address, `host:port`. Whoever meets a sign of change (MOVED, a lost link) calls `suspect`.
    """

    def __init__(self, address: RedisAddress, name: str, troubles: Troubles) -> None:
        self._address = address
        self._name = name
        self._troubles = troubles
        self._slots: Layout = [""] * SLOTS
        self._members: list[str] = [_joined(host) for host in address.hosts]
        """Whom to ask, in this order: those that failed, or were behind, stand last."""
        self._epoch = -1
        self._link: Link | None = None
        self._suspected = asyncio.Event()
        self._changed = asyncio.Event()
        self.version = 0
        """Grows with every change."""

    @property
    def masters(self) -> set[str]:
        """The addresses of all masters that serve slots; empty until the first look."""
        return set(self._slots) - {""}

    def shard_of(self, key: str | bytes) -> str:
        """Return the address of the master that serves a key. Raises `Unavailable` while none does."""
        if shard := self._slots[key_slot(key if isinstance(key, bytes) else key.encode())]:
            return shard
        raise Unavailable("the cluster serves no such slot at the moment")

    def shard_at(self, slot: int) -> str:
        """Return the address of the master of a slot, empty while there is none."""
        return self._slots[slot]

    def tag_of(self, shard: str) -> str:
        """Return a hash tag whose slot is served by a master; "" for one that serves none.

        So many numbers are tried that even one with a single slot is missed with a probability of e^-64.
        """
        return next((str(n) for n in range(64 * SLOTS) if self._slots[key_slot(b"%d" % n)] == shard), "")

    async def changed(self, since: int) -> int:
        """Wait until the version differs from `since`, and return it; changes meanwhile are told as one."""
        while self.version == since:
            await self._changed.wait()
        return self.version

    def suspect(self, hint: str = "") -> None:
        """Have the layout looked at soon; `hint` is the address of a member to ask first, if one was named."""
        if hint:
            self._ask_first(hint)
        self._suspected.set()

    def dialer(self, shard: str) -> ShardDialer:
        """Make a dialer for one master."""
        return ShardDialer(self, shard)

    def plain_dialer(self, member: str) -> Dialer:
        """Make a dialer for any member, master or replica."""
        host, port = _split(member)
        return Dialer(self._address.url, self._name, host=host, port=port)

    # ---- looking

    async def run(self) -> None:
        """Keep looking, until cancelled."""
        try:
            while True:
                self._suspected.clear()  # before the look: whoever suspects something during it wants another one
                pause = REFRESH if await self._look() else HURRY
                # In any case, and not the same for all nodes: a slot that moves is met by all of them at once.
                await asyncio.sleep(random.uniform(HURRY / 2, HURRY))
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._suspected.wait()
        finally:
            self._hang_up()

    async def _look(self) -> bool:
        """Take the layout of the first member whose view is not behind what is known; tell whether there are masters.

        If all that answer are behind, the newest of their views is taken: the cluster may have been made anew.
        """
        best: View | None = None
        failure: OSError | LinkLost | RedisRefused = LinkLost()
        for member in tuple(self._members):
            try:
                view = await self._ask(member)
            except (OSError, LinkLost, RedisRefused) as error:
                failure = error
            else:
                best = view if best is None or view.epoch > best.epoch else best
                if view.epoch >= self._epoch:
                    break
            self._ask_last(member)
        if best is None:
            self._troubles.note("cluster", failure)
            return False
        self._troubles.clear("cluster")
        self._take(best)
        return bool(self.masters)

    async def _ask(self, member: str) -> View:
        """Ask over the link of the last time, if it leads there."""
        if self._link is None or self._link.address != member or self._link.lost.done():
            self._hang_up()
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                self._link = self._link or await self._reach(member)
                return await _view(self._link)
        except BaseException:  # a timeout as well: an answer that comes late must not be taken for the next one's
            self._hang_up()
            raise

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.abort()
            self._link = None

    async def dial_any(self) -> Link:
        """Connect to any member, whatever its role. Raises what the last one raised: see `Dials.dial`."""
        failure: Exception = LinkLost("no member answers")
        for member in tuple(self._members):
            try:
                return await self._reach(member)
            except (OSError, LinkLost, RedisRefused) as error:
                failure = error
        raise failure

    async def _reach(self, member: str) -> Link:
        return await self.plain_dialer(member).dial(master=False)

    def _take(self, view: View) -> None:
        """Make a view the layout that is known; the members it names, and those of the URL, are asked from now on."""
        self._epoch = view.epoch
        known = [*view.members, *map(_joined, self._address.hosts)]
        self._members = [*(member for member in self._members if member in known), *known]
        self._members = list(dict.fromkeys(self._members))
        if view.slots != self._slots:
            self._slots = view.slots
            self.version += 1
            logger.info("the cluster has %s masters, epoch %s", len(self.masters), view.epoch)
            self._changed.set()  # wakes those who wait now; those who come later compare versions
            self._changed.clear()

    def _ask_first(self, member: str) -> None:
        self._members = [member, *(other for other in self._members if other != member)]

    def _ask_last(self, member: str) -> None:
        self._members = [*(other for other in self._members if other != member), member]


class ShardDialer:
    """Opens links to one master of a cluster; what goes wrong makes the topology look again."""

    def __init__(self, topology: Topology, shard: str) -> None:
        self._topology = topology
        self._shard = shard

    async def dial(self, received: Received | None = None) -> Link:
        try:
            return await self._topology.plain_dialer(self._shard).dial(received)
        except BaseException:  # cancelled as well: who gave up waiting met a server that does not answer
            self._topology.suspect()
            raise

    async def is_stale(self, link: Link) -> bool:
        # While no master is known at all, nobody knows of a better one.
        return bool(self._topology.masters) and self._shard not in self._topology.masters


async def _view(link: Link) -> View:
    """Ask a member how it sees the cluster.

    The epoch is asked first: if the cluster changes in between, a newer layout counts as older, and the next look
    takes it again. The other way round an old layout would count as new, and keep newer ones out.
    """
    state, ranges = await asyncio.gather(link.call("CLUSTER", "INFO"), link.call("CLUSTER", "SLOTS"))
    fields = dict(line.split(b":", 1) for line in state.splitlines() if b":" in line)
    slots, members = [""] * SLOTS, dict[str, None]()
    for first, last, *servers in ranges:
        addresses = [_address(server, link) for server in servers]
        members.update(dict.fromkeys(addresses))
        slots[first : last + 1] = [addresses[0]] * (last - first + 1)
    return View(int(fields[b"cluster_current_epoch"]), slots, list(members))


def _address(server: list[Any], link: Link) -> str:
    """Name a server; one that does not know its own host is where we reached it."""
    host = (server[0] or b"").decode() or _split(link.address)[0]
    return _joined((host, int(server[1])))


def _joined(host: Host) -> str:
    return f"{host[0]}:{host[1]}"


def _split(address: str) -> Host:
    host, _, port = address.rpartition(":")
    return host, int(port)
