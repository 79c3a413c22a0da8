"""Log formats, text and JSON: one line for each record, whatever clients put into it.

Characters that a terminal would act on are written as escapes, line ends included, so that no client can colour,
hide or forge a line. The lines of a traceback are indented: none of them can pass for a record.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from gateway.access.log_limit import without_noise
from gateway.cli.log_writer import LogWriter

Format = Literal["text", "json"]

_NO_DESCRIPTOR = "socket.accept() out of system resource"
"""What asyncio's own loop says for each connection that it cannot take; uvloop ends those without a word."""


class TextLines(logging.Formatter):
    """Time, level, logger and message; tracebacks on lines of their own."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname} {record.name} {record.getMessage()}"
        return "\n".join([printable(line), *(f"  {printable(part)}" for part in _traceback(record).splitlines())])


class JsonLines(logging.Formatter):
    """One JSON object a line: ts, level, logger, node, connection when known, message, traceback where there is one.

    What a line is made of stands beside its message, each fact under its name: those of `extra`, and those of a
    message whose arguments have names, as in `logger.info("opened: user=%(user)s", {"user": user})`.
    """

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            **_facts(record),
            "ts": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "node": self._node,
            "message": record.getMessage(),
            "traceback": _traceback(record) or None,
        }
        known = {name: value for name, value in fields.items() if value is not None}
        return json.dumps(known, default=str).replace("\x7f", "\\u007f")


_OWN = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}
"""What every record has."""


def _facts(record: logging.LogRecord) -> dict[str, object]:
    named = record.args if isinstance(record.args, Mapping) else {}
    return {**named, **{name: value for name, value in record.__dict__.items() if name not in _OWN}}


def use(format: Format, node: str, level: int) -> None:
    """Log to standard error from now on; nobody waits until it is read, see `LogWriter`."""
    output = _writer()
    output.setFormatter(JsonLines(node) if format == "json" else TextLines())
    logging.basicConfig(level=level, handlers=[output], force=True)
    logging.getLogger("aiohttp.server").addFilter(without_noise)
    logging.getLogger("asyncio").addFilter(_Once(_NO_DESCRIPTOR))


def _writer() -> logging.Handler:
    if sys.stderr is None:  # it was closed before we began
        return logging.NullHandler()
    # A file has no reader to wait for, and a line that is written at once is there even if the process is killed.
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError):  # somebody has put an object of his own in its place
        return logging.StreamHandler()
    return logging.StreamHandler() if stat.S_ISREG(os.fstat(descriptor).st_mode) else LogWriter(descriptor)


def flush() -> None:
    """Wait, but not for ever, until what was logged is written."""
    for writer in logging.getLogger().handlers:
        writer.flush()


class _Once(logging.Filter):
    """Lets one of the records through in a second that begin so, without its traceback."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self._said = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.getMessage().startswith(self._text):
            return True
        record.exc_info = record.exc_text = None
        record.msg, record.args = self._text, None
        now = time.monotonic()
        if now - self._said < 1:
            return False
        self._said = now
        return True


def printable(text: str) -> str:
    """Return a text with everything escaped that is not shown as a character of its own."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _traceback(record: logging.LogRecord) -> str:
    """Return the traceback and the stack of a record, "" without any."""
    parts = traceback.format_exception(*record.exc_info) if record.exc_info and record.exc_info[0] else []
    return "".join([*parts, record.stack_info or ""]).rstrip("\n")


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
