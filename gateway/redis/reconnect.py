"""Keeps a link to Redis up: notices when one has died silently, and dials again with backoff and full jitter."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from gateway.redis.dialer import Dials, check_role
from gateway.redis.link import Link, LinkLost, Received, RedisRefused
from gateway.redis.trouble import Troubles

logger = logging.getLogger(__name__)

# All in seconds.
FIRST_RETRY, LAST_RETRY = 0.05, 1.0
"""Bounds of the pause between two attempts, of which a random part is waited. With the last, each link makes about two
attempts a second: few enough for a Redis to which many nodes come back, and soon enough for those who wait."""
STABLE = 5.0
"""How long a link must last before the next loss begins with the first pause again."""
SETTLED = 1.0
"""How long a link must last before the outage is called over: a server that hangs up at once is not back."""
TICK = 0.25
"""How often a link is looked at."""
PING = 1.0
"""How often a link is asked for a sign of life."""
SILENT = 2.5
"""Silence after which a link is suspected: Redis is frozen, or the connection is dead and does not say so. With `PING`
and `TICK` that is noticed within 4 s; `/readyz` is to say so within 5 s."""
IGNORED = 6.0
"""The same where other things still come: our direction may be dead, or the answer has a long queue before it."""
PROBE = 2.0
"""How long a fresh link is given to be made while another one is suspected."""
GRACE = 0.25
"""How long a suspected link is given to answer once a fresh one did; a Redis that thaws answers both at once."""
RECHECK = 3.0
"""How often those who know the masters are asked whether the link still leads to one."""


async def stay_connected(
    dialer: Dials,
    use: Callable[[Link], Awaitable[None]],
    what: str,
    troubles: Troubles | None = None,
    *,
    received: Received | None = None,
    ping: Callable[[Link], None] | None = None,
) -> None:
    """Dial, hand the link to `use` until it is lost, and dial again, with full jitter, until cancelled.

    A link that has gone silent is dropped as soon as a fresh one proves that Redis answers, and never before: what was
    sent to a frozen Redis is carried out when it thaws, and who gave it up early would send it twice. `use` may also
    raise `LinkLost` or `RedisRefused` to have another link dialled. `what` names the link in the log and in `troubles`.
    Where replies go to `received`, `ping` sends a question whose answer ends in `link.answered()`; else it is ROLE.
    """
    loop, pause = asyncio.get_running_loop(), FIRST_RETRY
    troubles = troubles or Troubles()
    try:
        while True:
            dialled = loop.time()
            try:
                link = await dialer.dial(received)
                link.witness = troubles
                troubles.does_without(link.lacking)
                await _use(link, use, _Watch(link, dialer, ping or _ask_role, what, troubles))
                troubles.note(what, LinkLost())
            except (OSError, LinkLost, RedisRefused) as error:  # a TimeoutError is an OSError
                troubles.note(what, error)
            pause = FIRST_RETRY if loop.time() - dialled > STABLE else min(pause * 2, LAST_RETRY)
            await asyncio.sleep(random.uniform(0, pause))
    finally:
        troubles.forget(what)


async def _use(link: Link, use: Callable[[Link], Awaitable[None]], watch: _Watch) -> None:
    watching = asyncio.create_task(watch.run())
    try:
        await use(link)
    finally:
        # What needs no waiting first: if this task is cancelled, the link is closed whatever becomes of the wait.
        link.abort()
        watching.cancel()
        await asyncio.wait((watching,))  # unlike `await watching` this raises nothing: the link is gone anyway


class _Watch:
    """Watches one link while it lasts: aborts it when it is dead, or leads to a server that is no master any more."""

    def __init__(self, link: Link, dialer: Dials, ping: Callable[[Link], None], what: str, troubles: Troubles) -> None:
        self._link = link
        self._dialer = dialer
        self._ping = ping
        self._what = what
        self._troubles = troubles
        self._next_ping = self._next_check = 0.0

    async def run(self) -> None:
        link, loop = self._link, asyncio.get_running_loop()
        self._next_check = loop.time() + RECHECK  # it has just been dialled, and so leads to the master
        while not link.lost.done():
            now = loop.time()
            if now >= self._next_ping and not link.owes_answer:
                self._next_ping = now + PING
                self._ping(link)
                link.ask()
            if now >= self._next_check:
                self._next_check = now + RECHECK
                await self._check_place()
            await asyncio.sleep(TICK)
            await self._judge()

    async def _judge(self) -> None:
        if self._is_silent():
            self._troubles.note(self._what, TimeoutError())
            await self._probe()
        elif not self._link.owes_answer and asyncio.get_running_loop().time() - self._link.begun > SETTLED:
            self._troubles.clear(self._what)

    def _is_silent(self) -> bool:
        nothing, no_answer = self._link.silence()
        return nothing > SILENT or no_answer > IGNORED

    async def _probe(self) -> None:
        """Drop the link if a fresh one gets an answer and this one still does not.

        Where the fresh one gets none either, it is Redis that is silent, and the link is kept.
        """
        try:
            async with asyncio.timeout(PROBE):
                (await self._dialer.dial()).abort()
        except (OSError, LinkLost, RedisRefused) as error:
            self._troubles.note(self._what, error)
            return
        await asyncio.sleep(GRACE)
        if self._is_silent():
            logger.warning("%s: the connection is dead while Redis answers: dialling again", self._what)
            self._link.abort()

    async def _check_place(self) -> None:
        place = f"{self._what} (place)"
        try:
            is_stale = await self._dialer.is_stale(self._link)
        except RedisRefused as refusal:  # by a sentinel, which would not tell of a failover either
            self._troubles.note(place, refusal)
            return
        self._troubles.clear(place)
        if is_stale:
            logger.warning("%s: %s is not the master any more: dialling again", self._what, self._link.address)
            self._link.abort()


class _Role:
    """Takes the answer to ROLE on a link, which is its sign of life: a server that became a replica is left."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def done(self) -> bool:
        return False

    def set_result(self, role: object) -> None:
        self._link.answered()
        try:
            check_role(role)
        except RedisRefused:
            self._link.abort()

    def set_exception(self, error: Exception) -> None:
        self._link.answered()  # who refuses lives


def _ask_role(link: Link) -> None:
    link.wonder(_Role(link), "ROLE")
