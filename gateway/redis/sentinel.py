"""Redis Sentinel: asks the sentinels of a service which server is the master, and connects to that one."""

from __future__ import annotations

import asyncio
import logging

from gateway.config.redis_url import Host, RedisAddress
from gateway.redis.dialer import Dialer, Dials
from gateway.redis.link import Link, LinkLost, Received, RedisRefused

logger = logging.getLogger(__name__)

ASK_TIMEOUT = 1.0
"""Seconds that one sentinel is given, log-in included: the next one may be well."""


class SentinelDialer:
    """Opens links to the master of a service. For each the sentinels are asked anew, one after the other.

    In a failover a sentinel may still name the old master. So the server's own word counts: one that says it is a
    replica is not used, and the next sentinel is asked.
    """

    def __init__(self, address: RedisAddress, name: str) -> None:
        self._address = address
        self._name = name
        self._sentinels = list(address.hosts)
        """Those that failed last stand last."""

    async def dial(self, received: Received | None = None) -> Link:
        error: Exception = LinkLost("no sentinel answers")
        for sentinel in tuple(self._sentinels):  # a copy: links that dial at the same time change the order
            try:
                host, port = await self._ask(sentinel)
                link = await Dialer(self._address.url, self._name, host=host, port=port).dial(received)
            except (OSError, LinkLost) as failure:
                self._sentinels.append(self._sentinels.pop(self._sentinels.index(sentinel)))
                error = failure
            except RedisRefused as refused:  # by a demoted master: another sentinel may know better
                error = refused
            else:
                return link
        raise error

    async def is_stale(self, link: Link) -> bool:
        refusal: RedisRefused | None = None
        for sentinel in tuple(self._sentinels):
            try:
                host, port = await self._ask(sentinel)
            except (OSError, LinkLost):
                continue
            except RedisRefused as refused:
                refusal = refused
            else:
                return f"{host}:{port}" != link.address
        if refusal is not None:
            raise refusal
        return False

    async def _ask(self, sentinel: Host) -> Host:
        dialer = Dialer(self._address.sentinel_url, self._name, host=sentinel[0], port=sentinel[1])
        async with asyncio.timeout(ASK_TIMEOUT):
            link = await dialer.dial(master=False)
            try:
                found = await link.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.service)
            finally:
                link.abort()
        if found is None:
            raise RedisRefused(f"ERR the sentinel at {link.address} knows no master {self._address.service!r}")
        return found[0].decode(), int(found[1])


def open_dialer(url: str, name: str) -> Dials:
    """Make the dialer for one server, or for the master that sentinels name. `name` is shown in CLIENT LIST.

    Raises `ValueError` for a URL that cannot be parsed.
    """
    address = RedisAddress.parse(url)
    return SentinelDialer(address, name) if address.kind == "sentinel" else Dialer(url, name)
