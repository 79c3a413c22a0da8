"""How often a password may be guessed: so many times from an address, and from its network; never in all.

A limit for everybody would let anybody lock the operators out. So an address that has not failed is heard, whoever
else fails; beyond what its network may fail, one failure of its own is enough. Plain rules, no waiting.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

PER_ADDRESS, PER_NETWORK = 5, 20
"""Failures within a minute after which a further try is not looked at: of an IPv4 address or an IPv6 /64, and of a
/24 or /48, where it holds for those that have failed themselves."""
FLOOD = 1000
"""Failures of a network after which nobody there is heard: no IPv4 network comes to it, and an IPv6 one belongs to
one customer, who has 65,536 addresses to fail from once."""
WINDOW = 60.0
REMEMBERED = 10_000
"""Addresses, and as many networks. What is forgotten first is what soonest would be, so nobody is locked out by what is
not known; whoever can push out 10,000 has as many addresses to guess from, and gains nothing by using one again."""


class Attempts:
    """Wrong passwords of the last minute."""

    def __init__(self) -> None:
        self._addresses = _Windows()
        self._networks = _Windows()

    def wait(self, address: str, now: float) -> float:
        """Return how many seconds an address must wait before its next try; 0 when it need not."""
        origin = _origin(address)
        own, network = self._addresses.at(origin.address, now), self._networks.at(origin.network, now)
        is_over = own.failures >= PER_ADDRESS or (own.failures > 0 and network.failures >= PER_NETWORK)
        return max(own.left if is_over else 0.0, network.left if network.failures >= FLOOD else 0.0)

    def failed(self, address: str, now: float) -> int:
        """Count a failure; return the address' number of them."""
        origin = _origin(address)
        self._networks.count(origin.network, now)
        return self._addresses.count(origin.address, now)


class _Origin(NamedTuple):
    address: str
    network: str


class _Count(NamedTuple):
    failures: int
    left: float
    """Seconds until it begins anew."""


class _Windows:
    """Counts by name, each of a minute that begins with its first; in the order in which they began."""

    def __init__(self) -> None:
        self._began: dict[str, tuple[float, int]] = {}

    def at(self, name: str, now: float) -> _Count:
        began, count = self._began.get(name, (now, 0))
        left = began + WINDOW - now
        return _Count(count, left) if left > 0 else _Count(0, 0.0)

    def count(self, name: str, now: float) -> int:
        if self.at(name, now).failures == 0:
            self._began.pop(name, None)
            if len(self._began) >= REMEMBERED:
                del self._began[next(iter(self._began))]
        began, count = self._began.get(name, (now, 0))
        self._began[name] = (began, count + 1)
        return count + 1


def _origin(address: str) -> _Origin:
    """Say what counts as one address, and as its network; what is none, as of a socket file, is both."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return _Origin(address, address)
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is not None:
        known = known.ipv4_mapped
    own, around = (32, 24) if known.version == 4 else (64, 48)
    return _Origin(_network(known, own), _network(known, around))


def _network(address: ipaddress.IPv4Address | ipaddress.IPv6Address, bits: int) -> str:
    return str(ipaddress.ip_network((address, bits), strict=False))
