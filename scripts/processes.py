"""Owns child processes: starts them, waits for them, and leaves none behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60  # longer than a node waits for its Redis
STOP_SECONDS = 60  # longer than a node drains
SAME_REQUEST_SECONDS = 1  # some tools signal a process and its group, which is one request, not two
STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Failed(Exception):
    """Says in one line why the cluster cannot start or go on."""


class Stopped(Exception):
    """Somebody asked for the end: Ctrl-C, SIGTERM, or the terminal went away."""


class Signals:
    """Turns signals, a child's end among them, into something to wait for."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in {*STOP_SIGNALS, signal.SIGCHLD}:
            signal.signal(number, lambda *_: None)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until any signal came or time is up; tell whether one of them asks to stop."""
        select.select([self._reader], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            return not STOP_SIGNALS.isdisjoint(self._reader.recv(4096))
        return False


@dataclass(frozen=True)
class Child:
    """A process that was started here, and where its output goes if not to the terminal."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path | None

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def failed(self) -> bool:
        """Tell whether it ended by itself with an error, and was not stopped or killed."""
        return self.ended and self.process.returncode > 0

    def describe_end(self) -> str:
        """Say how it ended, and, if it failed, its last words that nobody has seen."""
        code = self.process.returncode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        words = self.log.read_text(errors="replace").splitlines()[-5:] if self.log and self.failed else []
        return "\n".join([f"{self.name} {how}", *words])

    def send(self, number: int) -> None:
        """Signal it and whatever it started itself."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


class Processes:
    """All processes, in the order in which they were started."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._children: list[Child] = []

    def start(
        self, name: str, command: list[str], *, log: Path | None = None, env: dict[str, str] | None = None
    ) -> Child:
        """Start a process that ends with the others; see the function `start`."""
        child = start(name, command, log=log, env=env)
        self._children.append(child)
        return child

    def wait_until(self, ready: Callable[[], bool], name: str) -> None:
        """Wait for what was started to answer; raise Failed when any child ends before that."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self._signals.wait(0.05):
                raise Stopped
            for child in self._children:
                if child.ended:
                    raise Failed(child.describe_end())
            if time.monotonic() > deadline:
                raise Failed(f"{name} did not answer within {START_SECONDS} s")

    def wait_for_end(self) -> Child:
        """Wait for the end of one child, and forget it; raise Stopped when asked to stop meanwhile."""
        while True:
            for child in self._children:
                if child.ended:
                    child.send(signal.SIGKILL)
                    self._children.remove(child)
                    return child
            if self._signals.wait():
                raise Stopped

    def stop(self, children: list[Child]) -> None:
        """End these together; kill them when asked once more, or when they take too long."""
        for child in children:
            child.send(signal.SIGTERM)
        began = time.monotonic()
        while not all(child.ended for child in children):
            asked, waited = self._signals.wait(0.1), time.monotonic() - began
            if waited > STOP_SECONDS or (asked and waited > SAME_REQUEST_SECONDS):
                break
        for child in children:
            child.send(signal.SIGKILL)
            child.process.wait()

    def stop_all(self) -> None:
        """End one after the other, the last one started first."""
        for child in reversed(self._children):
            self.stop([child])


def start(name: str, command: list[str], *, log: Path | None = None, env: dict[str, str] | None = None) -> Child:
    """Start a process in a group of its own, so that Ctrl-C reaches it through us and in our order."""
    with log.open("wb") if log else contextlib.nullcontext() as output:
        process = subprocess.Popen(
            command,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    return Child(name, process, log)


def _end_with_parent() -> None:
    """In the new process, ask Linux for SIGTERM should this one be killed outright."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
