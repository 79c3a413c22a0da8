"""Redis behind TLS, in each of its forms: what works, and what an operator is told of what does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from trustme import CA, LeafCert

from gateway.backplane import Backplane
from tests.harness.cluster import RedisCluster
from tests.harness.numbered import load, running, started
from tests.harness.ports import HOST, free_port, release_port
from tests.harness.redis import RedisServer
from tests.harness.sentinel import Sentinel
from tests.harness.wait import eventually

pytestmark = pytest.mark.redis

StartRedis = Callable[..., Awaitable[RedisServer]]


class Encryption:
    """An authority, and a server's certificate by it, as files."""

    def __init__(self, folder: Path) -> None:
        self.authority = folder / "authority.pem"
        self.server = folder / "server.pem"
        self.port = free_port()
        self.renew(HOST, "localhost")

    def renew(self, *names: str) -> None:
        """Write both files anew, with a certificate for these names."""
        self._authority = CA()
        self._authority.cert_pem.write_to_path(str(self.authority))
        _write(self._authority.issue_cert(*names), self.server)

    def options(self, *, clients: str = "no", port: bool = True) -> dict[str, Any]:
        """What a server needs to know; `clients`: whether it wants certificates of them, too."""
        files = {"tls_cert_file": str(self.server), "tls_key_file": str(self.server)}
        more = {"tls_port": self.port} if port else {}
        return {**files, **more, "tls_ca_cert_file": str(self.authority), "tls_auth_clients": clients}

    def url(self, form: str = "rediss://{host}/0", *ports: int, **options: object) -> str:
        """Return the address for those who know the authority."""
        hosts = ",".join(f"{HOST}:{port}" for port in ports or [self.port])
        named = {"ssl_ca_certs": self.authority, **options}
        return form.format(host=hosts) + "?" + "&".join(f"{name}={value}" for name, value in named.items())

    def issue(self, file: Path) -> None:
        """Write a client's certificate."""
        _write(self._authority.issue_cert("client.example"), file)


@pytest.fixture
def encryption(tmp_path: Path) -> Iterator[Encryption]:
    """An authority of the test's own."""
    encryption = Encryption(tmp_path)
    yield encryption
    release_port(encryption.port)


@asynccontextmanager
async def refused(url: str, words: str) -> AsyncIterator[Backplane]:
    """Run a backplane that has this trouble."""
    async with started(url) as backplane:
        await eventually(lambda: any(words in each for each in backplane.trouble), 20, what=words)
        yield backplane


class TestOneServer:
    async def test_messages_flow_and_heal(self, encryption: Encryption, start_redis: StartRedis) -> None:
        """By either name in the certificate, and again after a restart of Redis."""
        redis = await start_redis(**encryption.options())
        other = encryption.url().replace(HOST, "localhost")
        async with load(encryption.url(), other, ["lobby"]) as flowing:
            await redis.restart()
            await flowing.flows()
        flowing.lost()

    async def test_a_certificate_of_our_own(
        self, encryption: Encryption, start_redis: StartRedis, tmp_path: Path
    ) -> None:
        """Where Redis wants one, who has none is told; who has one is let in."""
        redis = await start_redis(**encryption.options(clients="yes"))
        own = tmp_path / "own.pem"
        encryption.issue(own)
        async with running(encryption.url(ssl_certfile=own, ssl_keyfile=own)):
            pass
        async with refused(encryption.url(), "it may want a certificate (ssl_certfile)") as backplane:
            await redis.command("CONFIG", "SET", "tls-auth-clients", "no")
            await backplane.ready()

    async def test_files_are_read_anew(self, encryption: Encryption, start_redis: StartRedis) -> None:
        """An authority that is unknown is refused; it is enough to put it into the file that is named."""
        right = encryption.authority.read_bytes()
        await start_redis(**encryption.options())
        CA().cert_pem.write_to_path(str(encryption.authority))
        async with refused(encryption.url(), "CERTIFICATE_VERIFY_FAILED") as backplane:
            encryption.authority.write_bytes(right)
            await backplane.ready()

    async def test_a_file_that_has_gone_is_named(self, encryption: Encryption, start_redis: StartRedis) -> None:
        """And waited for, since it was there when the node started."""
        right = encryption.authority.read_bytes()
        redis = await start_redis(**encryption.options())
        async with load(encryption.url(), redis.url, ["lobby"]) as flowing:
            encryption.authority.unlink()
            await redis.command("CLIENT", "KILL", "TYPE", "normal")
            words = f"cannot use ssl_ca_certs={encryption.authority}: No such file or directory"
            await eventually(lambda: any(words in each for each in flowing.publisher.trouble), 20, what=words)
            encryption.authority.write_bytes(right)
            await flowing.flows()
        flowing.lost()

    async def test_another_name_is_refused(self, encryption: Encryption, start_redis: StartRedis) -> None:
        """Somebody between us and Redis may have a certificate, too."""
        encryption.renew("elsewhere.example")
        redis = await start_redis(**encryption.options())
        async with refused(encryption.url(), "certificate is not valid for '127.0.0.1'") as backplane:
            encryption.renew(HOST)
            await redis.command("CONFIG", "SET", "tls-cert-file", str(encryption.server))
            await backplane.ready()

    async def test_the_wrong_port_is_named(self, encryption: Encryption, start_redis: StartRedis) -> None:
        """The one without TLS where it is expected, and the other way round."""
        redis = await start_redis(**encryption.options())
        async with refused(f"redis://{HOST}:{encryption.port}/0", "it may expect TLS (rediss://)"):
            pass
        async with refused(encryption.url("rediss://{host}/0", redis.port), "SSL handshake"):
            pass


async def test_a_cluster(encryption: Encryption) -> None:
    """Its members name each other's encrypted ports to those who come encrypted."""
    cluster = RedisCluster(replicas=0, **encryption.options(port=False), tls_cluster="yes")
    ports = [free_port() for _ in cluster.servers]
    for server, port in zip(cluster.servers, ports, strict=True):
        server.configure(tls_port=port)
    try:
        await cluster.start()
        url = encryption.url("rediss+cluster://{host}", *ports)
        async with load(url, url, ["lobby", "kitchen", "garden"]) as flowing:
            assert len(await cluster.masters()) == 3
        assert not flowing.lost()
    finally:
        cluster.close()
        for port in ports:
            release_port(port)


async def test_sentinels(encryption: Encryption, start_redis: StartRedis) -> None:
    """They are asked by TLS, and name the master's encrypted port."""
    await start_redis(**encryption.options())
    port = free_port()
    watch = f"monitor gateway {HOST} {encryption.port} 1"
    sentinel = Sentinel(**encryption.options(port=False), tls_port=port, tls_replication="yes", sentinel=watch)
    try:
        await sentinel.start()
        url = encryption.url("rediss+sentinel://{host}/gateway/0", port)
        async with load(url, url, ["lobby"]) as flowing:
            pass
        assert not flowing.lost()
    finally:
        sentinel.close()
        release_port(port)


def _write(certificate: LeafCert, file: Path) -> None:
    certificate.private_key_and_cert_chain_pem.write_to_path(str(file))
