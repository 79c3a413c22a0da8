"""The start of a node, as far as it waits for Redis: what it waits for is told in the log and by `/readyz`."""

from __future__ import annotations

import asyncio
import logging

from gateway.config import Settings
from gateway.errors import CannotStart, Unavailable
from gateway.redis.trouble import Troubles
from gateway.redis.wait import Steps, Wait

logger = logging.getLogger(__name__)

FIRST_WORD = 2.0
"""Seconds of waiting that nobody need hear of: a Redis that starts beside the node is there by then."""
WORDS = 5.0
"""Seconds between two lines about it: six within the default `startup_timeout`."""


class Startup:
    """The start of one node, as far as it needs Redis."""

    def __init__(self, settings: Settings) -> None:
        self._wait = Wait(settings.redis_url, limit=settings.startup_timeout)
        self.is_over = False
        """Whether the node is up."""

    @property
    def reason(self) -> str:
        """What keeps the node from being up."""
        return f"starting: {self._wait.reason}"

    async def go_through(self, steps: Steps, troubles: Troubles) -> None:
        """Do all of it, and say what is met meanwhile.

        Raises `CannotStart` when Redis stays away for `startup_timeout`, or refuses the log-in.
        """
        telling = asyncio.create_task(self._tell())
        try:
            await self._wait.go_through(steps, troubles)
        except Unavailable as error:
            raise CannotStart(error.message) from None
        finally:
            telling.cancel()
        self.is_over = True

    async def _tell(self) -> None:
        await asyncio.sleep(FIRST_WORD)
        while True:
            logger.warning("%(reason)s", {"reason": self.reason})
            await asyncio.sleep(WORDS)
