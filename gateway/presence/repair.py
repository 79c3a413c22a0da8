"""Compares, once a minute, what Redis holds of this node with what the node holds, and has differences repaired."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection
from contextlib import suppress
from itertools import islice
from typing import Any

from gateway.connections.counters import Counters
from gateway.connections.hub import Hub
from gateway.errors import Unavailable
from gateway.presence.duplicates import Duplicates
from gateway.presence.lease import Lease
from gateway.presence.rules import Rules
from gateway.redis.keys import Keys
from gateway.redis.link import Command
from gateway.redis.store import Store

logger = logging.getLogger(__name__)

PERIOD = 60.0
"""Seconds between two looks, more or less a tenth, lest all nodes look at the same moment."""
AGAIN = 1.0
"""Seconds until a difference is looked at again."""
SOON = 5.0
"""Seconds until the next look, after one that Redis refused: the refusal lasts, and is shown for as long as it is met,
within the ten seconds after which a trouble lapses."""
SURE = 3
"""A difference must be seen this often in a row: joins under way look like one."""
SAMPLE = 10
"""Channels looked at each time, in rotation, so that the cost does not grow with the connections."""
MEMBERS = 100
"""Members looked at in each of these."""


class Repair:
    """Finds what no event tells: a replica that was behind when it became master, or keys changed by hand."""

    def __init__(
        self,
        node: str,
        store: Store,
        keys: Keys,
        hub: Hub,
        lease: Lease,
        duplicates: Duplicates,
        rules: Rules,
        counters: Counters,
        arriving: Collection[str],
    ) -> None:
        self._node = node
        self._arriving = arriving
        """Connections that Redis may have and the hub does not have yet (`RedisPresence.reserve`)."""
        self._store = store
        self._keys = keys
        self._hub = hub
        self._lease = lease
        self._duplicates = duplicates
        self._rules = rules
        self._counters = counters
        self._position = 0
        self._is_refused = False
        """Whether Redis refused something that the last look asked."""

    async def run(self) -> None:
        """Look every minute until cancelled."""
        while True:
            await asyncio.sleep(SOON if self._is_refused else PERIOD * random.uniform(0.9, 1.1))
            self._is_refused = False
            await self.check()
            with suppress(Unavailable):
                await self._rules.mend()

    async def check(self) -> bool:
        """Compare, and have this node registered again if that finds a difference; tell whether it did.

        Takes some seconds where there is one, and as long as an outage while Redis is away.
        """
        sample, self._position = self._sample()
        difference: str | None = ""
        for _ in range(SURE):
            difference = await self._difference(sample)
            if difference is None or self._lease.registering:
                return False
            await asyncio.sleep(AGAIN)
        logger.warning("Redis differed from what this node holds, repairing: %s", difference)
        self._counters.repairs += 1
        self._lease.register_again()
        return True

    def _sample(self) -> tuple[list[str], int]:
        channels = list(self._hub.channels)
        start = self._position if self._position < len(channels) else 0
        return channels[start : start + SAMPLE], start + SAMPLE

    async def _difference(self, sample: list[str]) -> str | None:
        """Describe the first difference that is found; None where there is none."""
        # Read before Redis is asked: the question stands behind the writes of all that is held by now.
        held, arriving = len(self._hub), len(self._arriving)
        stored = await self._answer(self._keys.node_connections(self._node), "SCARD")
        # Beside another process of this name more is stored than is held here, and none of that is ours to remove.
        if not self._duplicates.present and stored is not None and not held <= stored <= held + arriving:
            return f"{held} connections here, {stored} in Redis"
        for channel in sample:
            joined = (each for each in self._hub.members(channel) if channel not in each.joining)
            members = list(islice(joined, MEMBERS))
            if not members:
                continue
            known = await self._known(self._keys.members(channel), [connection.id for connection in members])
            online = await self._known(self._keys.online(channel), [connection.user for connection in members])
            if not (known and online and await self._known(self._keys.channels, [channel])):
                return f"members of {channel} are missing"
        return None

    async def _known(self, key: str, names: list[str]) -> bool:
        return all(await self._answer(key, "SMISMEMBER", *names) or ())

    async def _answer(self, key: str, *rest: str) -> Any:
        """Ask behind the writes that wait, so that the answer is about the same moment; None where Redis refuses.

        What is refused is no difference. A key that is no set is mended by `WrongTypes`, which hears of the refusal.
        """
        command: Command = (rest[0], key, *rest[1:])
        answer = await self._store.write(self._node, key, command)
        self._is_refused |= answer is None
        return answer
