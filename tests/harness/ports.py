"""Free TCP ports on the loopback address."""

from __future__ import annotations

import random
import socket

__all__ = ["free_port", "release_port"]

HOST = "127.0.0.1"

# Below the range from which Linux takes the ports of outgoing connections: thousands of test clients can not
# take a port between the moment it was given out and the moment its server binds it.
_CANDIDATES = range(10_000, 32_000)

# A port that was given out is locked by the UDP socket of the same number, which nothing here uses: the kernel
# keeps the lock across all test runs on the machine, and drops it when the holder dies.
_locks: dict[int, socket.socket] = {}


def free_port() -> int:
    """Return a TCP port that nothing listens on, and that no other call gets before `release_port`.

    The lock ends with the test process at the latest; it costs a file descriptor until then.
    """
    for _ in range(1000):
        port = random.choice(_CANDIDATES)
        lock = _locked(port)
        if lock is None:
            continue
        if _unused(port):
            _locks[port] = lock
            return port
        lock.close()
    raise AssertionError("found no free TCP port on the loopback address in 1000 tries")


def release_port(port: int) -> None:
    """Let a port be given out again; harmless for one that never was."""
    lock = _locks.pop(port, None)
    if lock is not None:
        lock.close()


def _locked(port: int) -> socket.socket | None:
    lock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        lock.bind((HOST, port))
    except OSError:
        lock.close()
        return None
    return lock


def _unused(port: int) -> bool:
    """Tell whether a server could bind the port now, old connections in TIME_WAIT aside."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
