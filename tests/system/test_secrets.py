"""A Redis URL is shown in errors, logs and lists of settings: never with its password, however malformed it is."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.application.guest import settings_of
from gateway.cli import main
from gateway.config import load, without_password
from gateway.config.sources import shown
from gateway.errors import GatewayError
from gateway.redis.link import RedisRefused
from gateway.redis.links import open_links

# Where a password may stand, rightly or by mistake; {p} as it is, {q} encoded.
SHAPES = (
    *("redis://:{p}@localhost:6379/0", "redis://ada:{p}@localhost:6379/0", "redis://ada:{q}@localhost"),
    *("redis://ada:{p}@localhost:6379/0?db=1", "rediss://:{q}@a.example:6380?ssl_cert_reqs=none", "redis://:{p}"),
    *("redis://localhost:{p}", "redis://localhost:6379:{p}", "redis://localhost:6379/{p}", "redis://localhost/{p}/0"),
    *("ada:{p}@localhost:6379", ":{p}@localhost", "redis:ada:{p}@localhost", "redis:/ada:{p}@localhost"),
    *("redis//:{p}@localhost", "redis://ada:{p}", "redis://:{p}@", "redis://:{p}@/0", "redis://:{p}@:6379/0"),
    *("redis://:{p}@@localhost", "redis://a@b:{p}@localhost:6379", "redis://[::1:{p}@localhost", "redis://:{p}@[::1"),
    *("redis://:{p}@localhost:99999", "redis://:{p}@localhost:port/0", "redis://:{p}@local host", "REDIS://:{p}@one"),
    *("redis://localhost?password={p}", "redis://localhost?password={q}", "redis://localhost?x=1&Password={p}"),
    *("redis://localhost/0?pass={p}", "redis://localhost?pwd={p}&db=1", "redis://localhost?username={p}"),
    *("redis://localhost?{p}", "redis://localhost?db={p}", "redis://localhost?socket_timeout={p}"),
    *("redis://localhost#:{p}", "redis://localhost?pass%77ord={p}", "http://:{p}@localhost", "{p}://localhost"),
    *("redis+sentinel://:{p}@one:1,two/main/0", "redis+sentinel://one:{p}/main", "redis+sentinel://ada:{p}@/main"),
    *("redis+sentinel://one/main?sentinel_password={p}", "redis+sentinel://one/main/{p}", "sentinel://:{p}@one/main"),
    *("redis+cluster://one:1,ada:{p}@two:2", "redis+cluster://:{p}@one,:{p}@two", "redis+cluster://one/{p}"),
    *("unix://ada:{p}@/run/redis.sock", "unix:///run/redis.sock?password={p}", "unix://:{p}@run/redis.sock"),
    *(" redis://:{p}@localhost", "redis://:{p}@localhost\n", "'redis://:{p}@localhost'", "redis://:{p}@one,two"),
)
KEPT = {
    "redis://ada:hunter2@localhost:6379/0": "redis://ada:***@localhost:6379/0",
    "rediss://:hunter2@a.example:6380/1?ssl_ca_certs=/etc/ca.pem": "rediss://***@a.example:6380/1?ssl_ca_certs=/etc/ca.pem",
    "redis+sentinel://:p%40@one:1,[::1]:2/main/7?sentinel_password=x&db=3": (
        "redis+sentinel://***@one:1,[::1]:2/main/7?sentinel_password=***&db=3"
    ),
    "redis+cluster://one:1,two?socket_timeout=5": "redis+cluster://one:1,two?socket_timeout=5",
    "unix:///run/redis.sock?db=2": "unix:///run/redis.sock?db=2",
    "unix://ada:hunter2@/run/redis.sock": "unix://ada:***@/run/redis.sock",
    "memory://": "memory://",
    "redis://localhost": "redis://localhost",
}

# What no part of a URL shows by chance; cut at any of its signs, its parts are no secret any more.
passwords = st.builds(
    "{}{}{}".format,
    st.text("QZXJ", min_size=3, max_size=6),
    st.text("QZXJ7/?#@:%&=+,;[]{}'\" \n\t\\é\x00", max_size=8),
    st.text("QZXJ7", min_size=3, max_size=6),
)


def told_of(url: str) -> str:
    """Return everything that is said of a URL: in lists of settings, and in errors wherever it is given."""
    said = [without_password(url), str(shown("redis_url", url))]
    elsewhere = url if "redis" in url or "@" in url else "none"
    for use in (
        lambda: open_links(load(redis_url=url)),
        lambda: load(redis_url=[url]),
        lambda: load(port=elsewhere),
        lambda: load(allowed_origins=[elsewhere]),
        lambda: settings_of(url, prefix="gateway", publish_timeout=1),
    ):
        try:
            use()
        except GatewayError as error:
            said.append(str(error))
    return "\n".join(said)


def assert_hidden(password: str, told: str) -> None:
    """Fail if it is told as it is, encoded, or as Python writes it."""
    for written in (password, quote(password, safe=""), ascii(password)[1:-1], password.lower()):
        assert written not in told


@settings(max_examples=30, deadline=None)
@given(password=passwords)
def test_no_password_is_shown(password: str) -> None:
    """Wherever in a URL it stands."""
    for shape in SHAPES:
        assert_hidden(password, without_password(shape.format(p=password, q=quote(password, safe=""))))


@pytest.mark.parametrize("password", ["QZX/JJQ", "QZX@J:Q", "QZX?J#Q", "QZX JJQ"])
def test_no_error_tells_a_password(password: str) -> None:
    """Whoever says what is wrong with it, and whatever it was given as."""
    for shape in SHAPES:
        assert_hidden(password, told_of(shape.format(p=password, q=quote(password, safe=""))))


@pytest.mark.parametrize(("url", "told"), KEPT.items())
def test_what_helps_an_operator_is(url: str, told: str) -> None:
    """Of a URL that is one: where it goes, and how."""
    assert without_password(url) == told


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "redis://:hunter2@localhost"],
        ["redis://:hun ter2@localhost"],
        ["serve", "--redis-ulr=redis://:hunter2@localhost"],
        ["serve", "--redis-url", "redis://:hun@ter2@localhost:port"],
        ["config", "--prefix", "redis://:hunter2@localhost:x"],
    ],
    ids=str,
)
def test_the_command_line_does_not_repeat_it(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was misspelt."""
    monkeypatch.setattr("sys.argv", ["gateway", *arguments])
    written = io.StringIO()
    with redirect_stderr(written), redirect_stdout(written), pytest.raises(SystemExit):
        main()
    assert "hun" not in written.getvalue()
    assert "ter2" not in written.getvalue()


def test_a_server_that_repeats_the_password_is_not_quoted() -> None:
    """As one does that has no AUTH."""
    text = "ERR unknown command 'AUTH', with args beginning with: 'hunter2' "
    assert str(RedisRefused(text)) == "ERR unknown command 'AUTH'"
