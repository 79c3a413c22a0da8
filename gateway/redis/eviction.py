"""Finds out whether Redis evicts keys when its memory is full: sets and leases would vanish without an error."""

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
    """Say what is wrong with a policy; "" for `noeviction`, and where the policy is not known.

    The `volatile-` policies evict only keys that expire, but leases are among them: a node whose lease is evicted
    counts as dead, and the others remove what it holds.
    """
    if policy in ("", "noeviction"):
        return ""
    lost = "sets and histories" if policy.startswith("allkeys-") else "leases of nodes, and histories that expire,"
    return (
        f"Redis has maxmemory-policy {policy}: when its memory is full it throws away {lost} of the "
        "gateway, and nobody is told; noeviction refuses writes instead, which is shown"
    )
