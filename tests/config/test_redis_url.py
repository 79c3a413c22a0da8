"""Which Redis a URL names, and what is said of one that names none."""

from __future__ import annotations

import pytest

from gateway.config import load
from gateway.config.redis_url import RedisAddress
from gateway.errors import InvalidSettings
from gateway.redis.links import open_links


def test_sentinels_a_service_and_a_database() -> None:
    """The log-in and the options are the master's; the sentinels have their own."""
    address = RedisAddress.parse(
        "redis+sentinel://ada:s%2Fcret@one:1000,[::1]:2000,three/main/2?sentinel_password=a%2Fb&socket_timeout=5"
    )
    assert address.kind == "sentinel"
    assert address.hosts == (("one", 1000), ("::1", 2000), ("three", 26379))
    assert address.service == "main"
    assert address.url == "redis://ada:s%2Fcret@localhost/2?socket_timeout=5"
    assert address.sentinel_url == "redis://:a%2Fb@localhost"


def test_the_database_behind_sentinels_is_0_by_default() -> None:
    """As with redis://."""
    assert RedisAddress.parse("redis+sentinel://one/main").url == "redis://localhost/0"


def test_encryption_is_for_sentinels_too() -> None:
    """rediss+sentinel, with the options of rediss."""
    address = RedisAddress.parse(
        "rediss+sentinel://one/main?ssl_ca_certs=ca.pem&sentinel_username=u&sentinel_password=p"
    )
    assert address.url == "rediss://localhost/0?ssl_ca_certs=ca.pem"
    assert address.sentinel_url == "rediss://u:p@localhost?ssl_ca_certs=ca.pem"


def test_members_of_a_cluster() -> None:
    """Some are enough: the others are asked for."""
    address = RedisAddress.parse("rediss+cluster://:secret@one:1000,two/0?ssl_cert_reqs=none")
    assert (address.kind, address.hosts) == ("cluster", (("one", 1000), ("two", 6379)))
    assert address.url == "rediss://:secret@localhost?ssl_cert_reqs=none"


def test_everything_else_is_left_to_redis_py() -> None:
    """One server, by any URL that redis-py takes."""
    assert RedisAddress.parse("unix:///tmp/redis.sock?db=1") == RedisAddress("single", "unix:///tmp/redis.sock?db=1")


@pytest.mark.parametrize("url", ["redis://h", "redis://h/", "redis://h/7", "redis://h/7/", "rediss://h/1?x=a/b"])
def test_a_database_is_a_number(url: str) -> None:
    """redis-py would take anything else for 0."""
    assert RedisAddress.parse(url).kind == "single"
    with pytest.raises(InvalidSettings, match=r"^redis_url: expected rediss?://HOST:PORT/NUMBER, .*, got "):
        load(redis_url=url.partition("?")[0].rstrip("/7") + "/main")


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://",
        "redis+sentinel://one:1000",
        "redis+sentinel://one:1000/",
        "redis+sentinel://one:port/main",
        "redis+sentinel://one:0/main",
        "redis+sentinel://one,,two/main",
        "redis+sentinel://one/main/database",
        "redis+cluster://",
        "redis+cluster://one:70000",
        "redis+cluster://one/1",
        "redis+cluster://one,",
        "redis+other://one",
    ],
)
def test_what_is_malformed_is_said_in_one_line(url: str) -> None:
    """With the form that was expected, and the value."""
    with pytest.raises(InvalidSettings, match=r"^redis_url: expected .*redis\+\w+://.*, got ") as refused:
        load(redis_url=url)
    assert "\n" not in str(refused.value)


FORMS = ["rediss://one/0?{}", "rediss+sentinel://one/main?{}", "rediss+cluster://one?{}"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("ssl_ca_cert=/etc/ca.pem", "expected options that redis-py knows, got 'ssl_ca_cert'"),
        ("ssl_cert_reqs=maybe", "Invalid SSL Certificate Requirements Flag: maybe"),
        ("socket_timeout=soon", "Invalid value for 'socket_timeout' in connection URL"),
        ("ssl_ca_certs=/no/ca.pem", "cannot use ssl_ca_certs=/no/ca.pem: No such file or directory"),
        (f"ssl_ca_certs={__file__}", f"cannot use ssl_ca_certs={__file__}: [X509: NO_CERTIFICATE_OR_CRL_FOUND]"),
        ("ssl_certfile=/no/own.pem", "cannot use ssl_certfile=/no/own.pem: No such file or directory"),
    ],
)
def test_options_are_tried_before_anything_starts(form: str, options: str, words: str) -> None:
    """What redis-py does not know, or cannot use, would end a node later, or be ignored."""
    with pytest.raises(InvalidSettings) as refused:
        open_links(load(redis_url=form.format(options)))
    assert str(refused.value).startswith(f"redis_url: {words}")
    assert "\n" not in str(refused.value)


def test_options_that_redis_py_knows_are_taken() -> None:
    """Also those that say nothing to us, so that a URL can be shared with redis-py."""
    url = "redis://one/0?socket_timeout=5&health_check_interval=10&protocol=3&max_connections=9"
    assert open_links(load(redis_url=url)) is not None
