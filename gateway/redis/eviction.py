"""Finds out whether Redis evicts keys when its memory is full: sets and histories would vanish without an error."""

from __future__ import annotations

from gateway.redis.link import Link


async def eviction_of(link: Link) -> str:
    """Return the `maxmemory-policy` of a server; "" where this user may ask for neither CONFIG nor INFO."""
    asked = await link.inquire("CONFIG", "GET", "maxmemory-policy")
    if asked:
        return str(asked[1].decode())
    # Managed servers often hide CONFIG; INFO says the same there.
    told = await link.inquire("INFO", "memory") or b""
    lines = (line.partition(b":") for line in told.splitlines())
    return next((value.decode() for name, _, value in lines if name == b"maxmemory_policy"), "")


def warning_of(policy: str) -> str:
    """Say what is wrong with a policy, "" where nothing is.

    The `volatile-` policies pass: they evict only keys that expire, and the sets are not among them.
    """
    if not policy.startswith("allkeys-"):
        return ""
    return (
        f"Redis has maxmemory-policy {policy}: when its memory is full it throws away sets and histories of the "
        "gateway, and nobody is told; noeviction refuses writes instead, which is shown"
    )
