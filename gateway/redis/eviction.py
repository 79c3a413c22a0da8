"""Whether Redis may throw away what it holds when its memory is full: then sets and histories vanish without a word."""

from __future__ import annotations

from gateway.redis.link import Link


async def eviction_of(link: Link) -> str:
    """Return the `maxmemory-policy` of a server; "" where it may not be asked."""
    asked = await link.inquire("CONFIG", "GET", "maxmemory-policy")
    if asked:
        return str(asked[1].decode())
    # Managed servers hide CONFIG, and tell it here.
    told = await link.inquire("INFO", "memory") or b""
    lines = (line.partition(b":") for line in told.splitlines())
    return next((value.decode() for name, _, value in lines if name == b"maxmemory_policy"), "")


def warning_of(policy: str) -> str:
    """Say what is wrong with a policy, "" where nothing is."""
    if not policy.startswith("allkeys-"):
        return ""
    return (
        f"Redis has maxmemory-policy {policy}: when its memory is full it throws away sets and histories of the "
        "gateway, and nobody is told; noeviction refuses writes instead, which is shown"
    )
