"""A child process of a test: its output kept in a file, its end certain.

Every process started here dies with the test run, however that ends (`watchdog.py`), and dies with its test when
a fixture owns it. Signals go to one process by its id, never by a name.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from .wait import eventually

__all__ = ["EndedEarly", "Process", "open_processes", "output_of", "program", "scratch"]


class EndedEarly(Exception):
    """A process ended while its test waited for it to be ready."""


class Process:
    """One child process, which may be started again after it ended.

    `environment` is added to the tests' own, less the variables whose names begin with one of `without`. The
    working directory is `directory`, which the process owns: `close` removes it, and with it the output.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        environment: Mapping[str, str] | None = None,
        without: tuple[str, ...] = (),
    ) -> None:
        self.command = list(command)
        self.name = name
        self.directory = scratch(name)
        # Whether the test wanted the end; a process that ended without that crashed.
        self.end_wanted = False
        self._frozen = False
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(without or ("\0",))}
        self._environment = inherited | dict(environment or {})
        self._output = self.directory / "output"
        # One for each start. They are collected (`wait`ed for) in `close` only: until then the kernel gives their
        # ids to nobody else, so that a late signal can never hit a stranger.
        self._children: list[subprocess.Popen[bytes]] = []
        _open.append(self)

    def __repr__(self) -> str:
        if not self._children:
            return f"<{self.name}, never started>"
        state = "running" if self.running else f"ended with {self.exit_code}"
        return f"<{self.name}, pid {self.pid}, {state}>"

    @property
    def pid(self) -> int:
        """The process id, also after the end; fails when it was never started."""
        if not self._children:
            raise AssertionError(f"{self.name} was never started")
        return self._children[-1].pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended; a frozen process runs."""
        return bool(self._children) and self.exit_code is None

    @property
    def crashed(self) -> bool:
        """Whether it has ended and no test wanted it to."""
        return bool(self._children) and not self.running and not self.end_wanted

    @property
    def awake(self) -> bool:
        """Whether it runs and is not frozen."""
        return self.running and not self._frozen

    @property
    def exit_code(self) -> int | None:
        """The exit code, the negative number of the signal that ended it, or None while it runs."""
        if self._children[-1].returncode is not None:
            return self._children[-1].returncode
        end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if end is None:
            return None
        return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status

    @property
    def output(self) -> str:
        """What it has written to standard output and standard error, over all its starts."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def tail(self, lines: int = 40) -> str:
        """Return its state and the last lines of its output."""
        return "\n".join([repr(self), *self.output.splitlines()[-lines:]])

    def start(self) -> None:
        """Start it, and return at once; what "ready" means is the caller's to wait for."""
        if self.running:
            raise AssertionError(f"{self!r} is to be started, but still runs")
        with self._output.open("ab") as output:
            child = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A session of its own: Ctrl-C reaches the tests only, which then end their children in order.
                start_new_session=True,
            )
        _run().watch(child.pid)
        self._children.append(child)
        self.end_wanted = self._frozen = False

    def assert_running(self) -> None:
        """Raise `EndedEarly` with the output when it has ended: waiting for what it will do is in vain."""
        if not self.running:
            self.end_wanted = True
            raise EndedEarly(self.tail())

    async def wait(self, deadline: float = 10.0) -> int:
        """Wait until it ends by itself, and return the exit code; fail the test past the deadline."""
        self.end_wanted = True
        await eventually(lambda: not self.running, deadline, what=f"the end of {self.name}")
        code = self.exit_code
        assert code is not None
        return code

    async def stop(self, deadline: float = 10.0) -> int:
        """Ask it to end (SIGTERM, and SIGCONT in case it is frozen); return the exit code.

        One that is still there after the deadline is killed, and the code is -9. Harmless after the end.
        """
        self.send_signal(signal.SIGTERM)
        self.send_signal(signal.SIGCONT)
        try:
            return await self.wait(deadline)
        except AssertionError:
            return await self.kill()

    async def kill(self) -> int:
        """End it without warning (SIGKILL), frozen or not; return the exit code. Harmless after the end."""
        self.send_signal(signal.SIGKILL)
        return await self.wait()

    def freeze(self) -> None:
        """Stop it in the middle of what it does (SIGSTOP), its sockets open; return once it stands still."""
        self._frozen = True
        self.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self._frozen = False
        self.send_signal(signal.SIGCONT)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, and do not wait for what it does. Harmless after the end."""
        os.kill(self.pid, number)

    def close(self) -> None:
        """Kill it and all that it started, and remove its directory: the last use. May be called twice."""
        for child in self._children:
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                _run().forget(child.pid)
        if self in _open:
            _open.remove(self)
        shutil.rmtree(self.directory, ignore_errors=True)


def open_processes() -> tuple[Process, ...]:
    """Return the processes that are not closed, the oldest first, those that ended included."""
    return tuple(_open)


def program(name: str) -> str:
    """Return the path of an installed program; fail the test, never skip it, when it is missing."""
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if path is None:
        raise AssertionError(f"the tests need {name!r}, which is not on PATH; scripts/test installs what they need")
    return path


async def output_of(command: Sequence[str], *, deadline: float = 30.0) -> str:
    """Run a command to its end and return its standard output, stripped; fail the test if it fails."""
    try:
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=deadline, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{' '.join(command)} did not end in {deadline:g} s: {error.output!r}") from None
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def scratch(name: str) -> Path:
    """Make a directory that lasts until its user removes it, or the test run ends."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_run().directory))


class _Run:
    """What this run of the tests may leave behind, and the watchdog that removes it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="gateway-tests-"))
        self._watchdog = subprocess.Popen(
            [sys.executable, "-IS", str(Path(__file__).with_name("watchdog.py")), str(self.directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        atexit.register(self._watchdog.communicate, timeout=10)

    def watch(self, pid: int) -> None:
        self._tell(f"add {pid}\n")

    def forget(self, pid: int) -> None:
        self._tell(f"drop {pid}\n")

    def _tell(self, line: str) -> None:
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(line)
        self._watchdog.stdin.flush()


_open: list[Process] = []
_the_run: _Run | None = None


def _run() -> _Run:
    """Return this run of the tests, which begins with its first process or directory."""
    global _the_run
    if _the_run is None:
        _the_run = _Run()
    return _the_run
