"""A node that is not up yet: what it waits for, for how long, and why; said in the log, by `/readyz` and at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.backplane.link import RedisRefused
from gateway.backplane.trouble import Troubles
from gateway.config import Settings, without_password
from gateway.errors import CannotStart

logger = logging.getLogger(__name__)

FIRST_WORD = 2.0
"""Seconds of waiting that nobody need hear of."""
WORDS = 5.0
"""Seconds between two lines about it."""

Steps = dict[str, Callable[[], Awaitable[object]]]
"""What is to be done, in order, by what is waited for meanwhile."""


class Starting:
    """The start of one node, as far as it needs Redis."""

    def __init__(self, settings: Settings) -> None:
        self._url = without_password(settings.redis_url)
        self._limit = settings.startup_timeout
        self._troubles: Troubles | None = None
        """What its backplane meets, once it has one."""
        self._stage = "to be asked"
        self._began = 0.0
        self.is_over = False
        """Whether the node is up."""

    @property
    def reason(self) -> str:
        """What keeps the node from being up."""
        seconds = asyncio.get_running_loop().time() - self._began if self._began else 0
        return f"starting: waiting for Redis {self._stage}, for {seconds:.0f} s: {self._why}"

    @property
    def _why(self) -> str:
        # There is always something: nothing is known of a server that takes calls and says nothing.
        return (
            "; ".join(self._troubles.causes if self._troubles else ())
            or f"it does not answer (waiting for it {self._stage})"
        )

    async def go_through(self, steps: Steps, troubles: Troubles) -> None:
        """Do all of it, and say what is met meanwhile.

        Raises `CannotStart` when Redis stays away for `startup_timeout`, or refuses the log-in.
        """
        self._troubles = troubles
        self._began = asyncio.get_running_loop().time()
        telling = asyncio.create_task(self._tell())
        try:
            async with asyncio.timeout(self._limit):
                for self._stage, step in steps.items():
                    await step()
        except RedisRefused as error:
            raise CannotStart(f"Redis at {self._url} refuses: {error}") from None
        except TimeoutError:
            raise CannotStart(f"no Redis at {self._url} within {self._limit:g} s: {self._why}") from None
        finally:
            telling.cancel()
        self.is_over = True

    async def _tell(self) -> None:
        await asyncio.sleep(FIRST_WORD)
        while True:
            logger.warning("%(reason)s", {"reason": self.reason})
            await asyncio.sleep(WORDS)
