"""What all parts of a process share to reach its Redis: keys, dialers, the store, and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.config import Settings, without_password
from gateway.config.redis_url import RedisAddress, without_secrets
from gateway.errors import InvalidSettings
from gateway.redis.dialer import Dials
from gateway.redis.keys import keys_of
from gateway.redis.options import check
from gateway.redis.script import Script
from gateway.redis.sentinel import open_dialer
from gateway.redis.store import SingleStore, Store
from gateway.redis.store_cluster import ClusterStore
from gateway.redis.topology import Topology
from gateway.redis.trouble import Troubles


class Links:
    """One process's Redis: names of keys, ways to the servers that hold them, and the troubles met there.

    Making it connects nothing: the backplane runs its own links and the topology, presence runs the store.
    """

    def __init__(self, settings: Settings, address: RedisAddress, scripts: Sequence[Script]) -> None:
        is_cluster = address.kind == "cluster"
        self.url = settings.redis_url
        self.name = f"{settings.prefix}-{settings.node_id}"
        """The name of our connections in CLIENT LIST."""
        self.keys = keys_of(settings)
        self.troubles = Troubles(settings.prefix, is_cluster=is_cluster)
        """Gathers what is wrong with Redis, from all parts."""
        self.topology = Topology(address, self.name, self.troubles) if is_cluster else None
        """The masters of a Redis Cluster, up to date while the backplane runs; None where one server has all keys."""
        self.store = self._open_store(scripts)
        """Holds the sets and the books; connected while presence runs."""

    def dialer(self, purpose: str = "") -> Dials:
        """Make a dialer for the only server, or for the master that sentinels name; not for a cluster.

        `purpose` is added to the name of its connections.
        """
        return open_dialer(self.url, f"{self.name}-{purpose}" if purpose else self.name)

    def _open_store(self, scripts: Sequence[Script]) -> Store:
        if self.topology is not None:
            return ClusterStore(self.topology, self.troubles, scripts=scripts)
        return SingleStore(self.dialer("presence"), self.troubles, scripts=scripts)


def open_links(settings: Settings, scripts: Sequence[Script] = ()) -> Links | None:
    """Make the links that `redis_url` asks for, None for a node that is alone; nothing is connected yet.

    `scripts` are those that will be called over the store. Raises `InvalidSettings` as `check_redis` does.
    """
    address = check_redis(settings)
    return Links(settings, address, scripts) if address is not None else None


def check_redis(settings: Settings) -> RedisAddress | None:
    """Return where Redis is, None for a node that is alone.

    Raises `InvalidSettings` for options in the URL that redis-py does not know, or for files that TLS cannot use.
    """
    if settings.redis_url.startswith("memory:"):
        return None
    try:
        address = RedisAddress.parse(settings.redis_url)
        check(address)
    except ValueError as error:
        url = settings.redis_url
        said = without_secrets(str(error), url) or "expected a URL whose password is percent-encoded"
        raise InvalidSettings(f"redis_url: {said}, got {without_password(url)!a}") from None
    return address
