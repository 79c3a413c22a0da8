"""Watches, from a thread of its own, whether a handler blocks the event loop.

A handler that blocks (a synchronous driver, `time.sleep`, a long computation) stops everything its node does. This
says which one it was while it happens, and keeps the node's lease alive meanwhile, so that its connections are not
taken for dead. A node that is frozen as a whole is not kept alive: the thread is frozen, too. Nor is one whose
handler holds the interpreter lock for as long, as few C extensions do.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from gateway.connections.counters import Counters
from gateway.connections.hub import Hub
from gateway.errors import Unavailable
from gateway.protocol.message import node_of

logger = logging.getLogger(__name__)

PERIOD = 0.25
"""Seconds between two beats of the loop, and between two looks of the thread."""
STALLED = 3
"""Looks without a beat after which the loop counts as standing still: half a second at least."""
HOLD_EVERY = 12
"""Looks without a beat after which the lease is renewed from here: as long as the loop takes for it."""
HOLD_MOST = 240
"""Looks without a beat after which it no longer is: a loop that stands for a minute may never turn again."""
WINDOW = 120
"""Beats in each of the two spans of time whose worst delay is remembered."""
LOG_PAUSE = 5.0
"""Seconds between two lines about a loop that stands still, however often it does."""
_OWN = Path(__file__).parents[1]
_HANDLERS = _OWN / "server" / "demo"


class LoopLag(NamedTuple):
    """By how many seconds the event loop was late for a timer."""

    last: float = 0.0
    most: float = 0.0
    """Within the last half to whole minute."""


class Beats:
    """The beats of one node's event loop, and how late they came."""

    def __init__(self) -> None:
        self.count = 0
        self._windows = (0.0, 0.0)
        self._last = 0.0

    @property
    def lag(self) -> LoopLag:
        """By how much the loop is late."""
        return LoopLag(self._last, max(self._windows))

    def beat(self, late: float) -> None:
        """Count one that came so many seconds late."""
        before, now = self._windows
        self._windows = (now, late) if self.count % WINDOW == 0 else (before, max(now, late))
        self._last = late
        self.count += 1


class Watchdog:
    """What makes the loop beat, and the thread that misses the beats."""

    def __init__(self, hub: Hub, hold: Callable[[], None], counters: Counters, beats: Beats) -> None:
        self._hub = hub
        self._hold = hold
        """Renews the lease without the loop. Raises `Unavailable`."""
        self._counters = counters
        self._beats = beats
        self._ended = threading.Event()
        self._next_line = 0.0

    async def run(self) -> None:
        """Beat, and be watched, until cancelled."""
        loop, ident = asyncio.get_running_loop(), threading.get_ident()
        thread = threading.Thread(target=self._watch, args=(loop, ident), name="gateway-watchdog", daemon=True)
        thread.start()
        try:
            while True:
                due = time.monotonic() + PERIOD
                await asyncio.sleep(PERIOD)
                self._beats.beat(max(0.0, time.monotonic() - due))
        finally:
            self._ended.set()
            thread.join(timeout=1)  # it may be renewing the lease, with a Redis that does not answer

    # ---- in the thread

    def _watch(self, loop: asyncio.AbstractEventLoop, ident: int) -> None:
        """Count looks rather than seconds: in a process that was frozen there were none."""
        heard, missed = 0, 0
        while not self._ended.wait(PERIOD):
            if heard != (beats := self._beats.count):
                if missed >= HOLD_EVERY:
                    logger.warning("the event loop turns again, after %.0f s", missed * PERIOD)
                heard, missed = beats, 0
                continue
            missed += 1
            if missed == STALLED:
                self._tell(loop, ident)
            if missed % HOLD_EVERY == 0:
                self._keep(missed)

    def _tell(self, loop: asyncio.AbstractEventLoop, ident: int) -> None:
        """Say in one line who keeps the loop from turning."""
        # From the thread, without a lock: only this thread writes these two, and what it reads of the loop's (the task,
        # the connection, its message) is single look-ups. Should the loop turn meanwhile, the line may name what comes
        # next; it is for people.
        self._counters.stalls += 1
        if time.monotonic() < self._next_line:
            return
        self._next_line = time.monotonic() + LOG_PAUSE
        task = asyncio.current_task(loop)
        connection, cmd = self._blamed(task.get_name() if task else "")
        where = " < ".join(innermost(sys._current_frames().get(ident)))
        logger.warning(
            "the event loop stands still: connection=%s cmd=%s in %s",
            connection or "-",
            cmd,
            where,
            extra={"connection": connection} if connection else None,
        )

    def _blamed(self, task: str) -> tuple[str, str]:
        """Return the connection whose command a task handles, and the command: such a task has the connection's id."""
        if not node_of(task):
            return "", "-"
        connection = self._hub.connections.get(task)
        message = connection.message if connection else None
        return task, ascii(message.cmd) if message else "-"

    def _keep(self, missed: int) -> None:
        """Renew the lease, for a while."""
        if missed > HOLD_MOST:
            return
        if missed == HOLD_MOST:
            logger.error("the event loop stands still for %.0f s: the lease is left to expire", missed * PERIOD)
            return
        try:
            self._hold()
        except Unavailable as error:
            logger.warning("could not renew the lease while the event loop stands still: %s", error)


def innermost(frame: Any) -> list[str]:
    """Describe where a thread is, innermost first: as far as it is in the application's code, else wherever it is."""
    stack = traceback.StackSummary.extract(traceback.walk_stack(frame) if frame else (), lookup_lines=False)
    files = [Path(call.filename) for call in stack]
    depth = next((depth for depth, file in enumerate(files) if _is_own(file)), len(files))
    places = [f"{file.name}:{call.lineno} {call.name}" for file, call in zip(files, stack, strict=True)][: depth or 3]
    return places if len(places) <= 5 else [*places[:2], "...", *places[-2:]]


def _is_own(file: Path) -> bool:
    return file.is_relative_to(_OWN) and not file.is_relative_to(_HANDLERS)
