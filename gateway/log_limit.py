"""Log lines that strangers can cause: one a second of each kind, so that nobody can fill a log."""

from __future__ import annotations

import logging
import time


class Seldom:
    """Logs what strangers can cause as often as they like: a line a second, which tells of the others."""

    def __init__(self, logger: logging.Logger, level: int) -> None:
        self._logger = logger
        self._level = level
        self._said = float("-inf")
        self._unsaid = 0

    def __call__(self, message: str, *arguments: object) -> None:
        now = time.monotonic()
        if now - self._said < 1:
            self._unsaid += 1
            return
        more = f" (and {self._unsaid} times before)" if self._unsaid else ""
        self._said, self._unsaid = now, 0
        self._logger.log(self._level, "%s%s", message % arguments, more)
