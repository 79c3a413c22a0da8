"""Names a process so that its successor on the same machine can tell whether it has ended, without waiting for a lease.

A process id alone says little: every container has a process 1. Together with the boot id of the machine, the PID
namespace, and the time when it began, it is unique for ever. Where the system (one without `/proc`) tells nothing of
that, no process is known to have ended.
"""

from __future__ import annotations

import os
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def own_process() -> str:
    """Name this process, as `BOOT/NAMESPACE/PID/BEGUN`; "" where the system does not tell."""
    return _name(os.getpid())


def has_ended(process: str) -> bool:
    """Tell whether a process that `own_process` named is sure to have ended.

    False for one of another machine, boot or container, since nothing is known of it. A process that has got the same
    number since began later.
    """
    machine, number = _parts(process)
    if not number.isdecimal() or len(number) > 10 or machine != _parts(own_process())[0]:
        return False
    return _name(int(number)) != process


def _parts(process: str) -> tuple[str, str]:
    """Split a name into the part that is equal for all processes that can see each other, and the process id."""
    machine, _, number = process.rpartition("/")[0].rpartition("/")
    return machine, number


def _name(number: int) -> str:
    """Name the process that has this id here now; "" if none has, or it has ended."""
    try:
        boot, numbers = _BOOT.read_text().strip(), os.stat("/proc/self/ns/pid").st_ino
        state, *figures = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        begun = figures[18]  # the 22nd field of proc(5), in clock ticks since the boot
    except (OSError, ValueError, IndexError):
        return ""
    if state in "ZX":  # a zombie: it has ended, and its parent has not asked for the exit code yet
        return ""
    return f"{boot}/{numbers}/{number}/{begun}"
