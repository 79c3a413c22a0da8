"""Log lines that strangers can cause: one a second of each kind at most, and none in their words."""

from __future__ import annotations

import logging
import time

from aiohttp.http_exceptions import HttpProcessingError


class LogLimit:
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


def without_noise(record: logging.LogRecord) -> bool:
    """Let a request that does not parse be one line at debug level: what is wrong with it was its sender's choice."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):
        return True
    record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    record.msg, record.args = "a request did not parse: %s", (type(error).__name__,)
    record.exc_info = record.exc_text = None
    return logging.getLogger().isEnabledFor(logging.DEBUG)
