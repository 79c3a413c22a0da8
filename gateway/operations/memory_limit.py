"""How much memory this process may use, as the kernel counts it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/sys/fs/cgroup")
_OF_PROCESS = Path("/proc/self/cgroup")


def memory_limit(cgroups: Path = _CGROUPS, of_process: Path = _OF_PROCESS) -> int:
    """Return the least limit of the control groups that the process is in, or what the machine has if that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *filter(None, map(_read, _files(cgroups, of_process)))])


def _files(cgroups: Path, of_process: Path) -> Iterator[Path]:
    """Name the files that may hold a limit, of the group and of those it is in: both versions name them their way.

    Inside a container a group of version 1 is named as the host sees it, and is mounted as the uppermost one.
    """
    for line in _lines(of_process):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        group = PurePosixPath("/", path)
        for each in (group, *group.parents):
            if not controllers:
                yield cgroups / each.relative_to("/") / "memory.max"
            elif "memory" in controllers.split(","):
                yield cgroups / "memory" / each.relative_to("/") / "memory.limit_in_bytes"


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, ValueError):
        return []


def _read(file: Path) -> int:
    """Return a limit, or 0 where there is none: no file, or `max`."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0
