"""End what a test run left behind, however the run ended.

Run as a script by `process.py`, once per test run, with the run's scratch directory as its argument. It reads
`add PID` and `drop PID` lines from its standard input. The end of that input means that the test process is gone:
by its own exit, or by a signal that let no clean-up run. Then every process group still listed is killed and the
directory removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys


def main() -> None:
    """Follow the list of live processes until the input ends, then kill them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        verb, pid = line.split()
        (groups.add if verb == "add" else groups.discard)(int(pid))
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
