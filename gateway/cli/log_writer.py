"""Writes log lines from a thread of its own: a pipe that nobody reads never blocks the event loop.

What waits is bounded, and beyond that the newest lines are dropped and counted: the oldest tell how it began. Where
lines are missing, one says how many.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque

MOST_WAITING = 1 << 20
"""Bytes: some 8,000 lines, more than a start or an outage logs."""
AT_ONCE = select.PIPE_BUF
"""Bytes of several lines that are written at once: of more, the lines of several workers could be mixed up."""
FLUSH = 2.0
"""Seconds that the end of a process waits for lines to be written: nobody may be reading."""


class LogWriter(logging.Handler):
    """Takes records from any thread and writes their lines, in order, to a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.dropped = 0
        """Lines."""
        self._told = 0
        """How many of them a line has told of."""
        self._begin()
        # A child has none of its parent's threads, and would wait for ever for a lock that one of them held. What
        # waits is the parent's to write.
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        # Reentrant: the garbage collector may run while it is held, and what it finds may log.
        self._changed = threading.Condition(threading.RLock())
        self._waiting: deque[bytes] = deque()
        self._size = 0
        """Bytes that wait, or are being written."""
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Let a line wait for its turn; drop it where too much waits. Never blocks, never raises."""
        try:
            line = self._line(record)
        except Exception as error:  # by default it would be told on standard error, by whoever logs
            line = self._line(_record("a line of %s cannot be written: %s", record.name, type(error).__name__))
        with self._changed:
            if self._size + len(line) > MOST_WAITING:
                self.dropped += 1
                return
            self._tell_dropped()
            self._put(line)

    def flush(self) -> None:
        """Wait until all is written, but not for ever; called when the process ends, whatever ends it."""
        until = time.monotonic() + FLUSH
        with self._changed:
            while self._size and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def _put(self, line: bytes) -> None:
        self._waiting.append(line)
        self._size += len(line)
        if self._thread is None:
            # Only now: a process that forked before would have left it behind. A daemon, because a pipe that nobody
            # reads must not keep the process alive.
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _tell_dropped(self) -> None:
        """Say how many lines are missing, where they are."""
        if self.dropped > self._told:
            more, self._told = self.dropped - self._told, self.dropped
            self._put(self._line(_record("%s log lines were dropped: nobody read them as fast as they came", more)))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                lines = self._taken()
            # Written without the lock, which whoever logs takes; the bytes still count as waiting, so that the bound
            # holds and `flush` knows.
            data = b"".join(lines)
            is_written = self._write(data)
            with self._changed:
                self._size -= len(data)
                if not is_written:
                    self.dropped += len(lines)
                elif not self._waiting:
                    self._tell_dropped()
                self._changed.notify_all()

    def _taken(self) -> list[bytes]:
        lines = [self._waiting.popleft()]
        size = len(lines[0])
        while self._waiting and (size := size + len(self._waiting[0])) <= AT_ONCE:
            lines.append(self._waiting.popleft())
        return lines

    def _write(self, data: bytes) -> bool:
        """Write all of it, however long that takes; tell whether there is anybody to write to."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # somebody who shares it has made it so
                select.select([], [self._descriptor], [])
            except OSError:
                return False
        return True

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")


def _record(text: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, arguments, None)
