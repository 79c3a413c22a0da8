"""Which process wrote something, and whether it still runs: for whoever comes after it on the same machine.

A number alone says little: every container has a process 1. Together with the boot of the machine, the set of
numbers that it is from, and when it began, it is good for ever. Where the system tells nothing of that, nobody is
known to have ended.
"""

from __future__ import annotations

import os
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def own_process() -> str:
    """Name this process; "" where that cannot be done."""
    return _name(os.getpid())


def has_ended(process: str) -> bool:
    """Tell whether a process that `own_process` named has ended for sure."""
    machine, number = _parts(process)
    if not number.isdecimal() or len(number) > 10 or machine != _parts(own_process())[0]:
        return False
    return _name(int(number)) != process


def _parts(process: str) -> tuple[str, str]:
    """Split a name into what is the same for all processes that can see each other, and the number."""
    machine, _, number = process.rpartition("/")[0].rpartition("/")
    return machine, number


def _name(number: int) -> str:
    """Name a process of here: boot, the set of numbers, the number, when it began."""
    try:
        boot, numbers = _BOOT.read_text().strip(), os.stat("/proc/self/ns/pid").st_ino
        state, *figures = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        begun = figures[18]
    except (OSError, ValueError, IndexError):
        return ""
    if state in "ZX":  # it has ended, and its parent has not looked yet
        return ""
    return f"{boot}/{numbers}/{number}/{begun}"
