"""The wait of a starting process for its Redis, with a limit, and with a reason to show meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.config import without_password
from gateway.errors import Unavailable
from gateway.redis.link import RedisRefused
from gateway.redis.trouble import Troubles

Steps = dict[str, Callable[[], Awaitable[object]]]
"""What is to be done, in order. The keys complete the sentence "waiting for Redis ..."."""


class Wait:
    """The wait of one process for its Redis, for `limit` seconds at most."""

    def __init__(self, url: str, *, limit: float) -> None:
        self._url = without_password(url)
        self._limit = limit
        self._troubles: Troubles | None = None
        """What is wrong, as the links note it; None before `go_through`."""
        self._stage = "to be asked"
        self._began = 0.0

    @property
    def reason(self) -> str:
        """What the process waits for, for how long it has, and why, in one line."""
        seconds = asyncio.get_running_loop().time() - self._began if self._began else 0
        return f"waiting for Redis {self._stage}, for {seconds:.0f} s: {self._why}"

    @property
    def _why(self) -> str:
        # A server that accepts connections and says nothing leaves no trouble at first.
        return (
            "; ".join(self._troubles.causes if self._troubles else ())
            or f"it does not answer (waiting for it {self._stage})"
        )

    async def go_through(self, steps: Steps, troubles: Troubles) -> None:
        """Take the steps in order. Raises `Unavailable` when that takes too long, or Redis refuses the log-in."""
        self._troubles = troubles
        self._began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._limit):
                for self._stage, step in steps.items():
                    await step()
        except RedisRefused as error:
            raise Unavailable(f"Redis at {self._url} refuses: {error}") from None
        except TimeoutError:
            raise Unavailable(f"{troubles.in_vain(self._url, self._limit)}: {self._why}") from None
        except Unavailable as error:
            raise Unavailable(f"no Redis at {self._url}: {error}") from None
