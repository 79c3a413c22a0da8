"""What the log says of trouble with Redis: what begins is told once, what ends only after that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from gateway.backplane.scripts import APPEND
from gateway.presence.scripts import JOIN, LEAVE, TAKE
from gateway.redis import trouble
from gateway.redis.link import LinkLost, RedisRefused
from gateway.redis.script import Script
from gateway.redis.trouble import Troubles

Act = Callable[[Troubles], None]


def refusal(words: str, *command: str | bytes | int | float) -> RedisRefused:
    error = RedisRefused(words)
    error.command = command
    return error


def refused(words: str) -> Act:
    return lambda troubles: troubles.refused(refusal(words, "SET", "gateway:node:x", "1"), "here")


KINDS: dict[str, tuple[Act, Act]] = {
    "a link": (lambda troubles: troubles.note("presence", LinkLost()), lambda troubles: troubles.clear("presence")),
    "a refused link": (
        lambda troubles: troubles.note("presence", refusal("NOAUTH no", "PING")),
        lambda troubles: troubles.clear("presence"),
    ),
    "a refused command": (
        refused("NOPERM no"),
        lambda troubles: troubles.taken(("SET", "gateway:node:y", "2"), "here"),
    ),
    "a server's state": (refused("OOM no"), lambda troubles: troubles.taken(("SET", "gateway:node:y", "2"), "here")),
}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log of troubles, which a test may silence as the start of a node does."""
    yield caplog
    logging.getLogger(trouble.__name__).setLevel(logging.NOTSET)


def silence(is_silent: bool) -> None:
    logging.getLogger(trouble.__name__).setLevel(logging.ERROR if is_silent else logging.WARNING)


@pytest.mark.parametrize(("begin", "end"), KINDS.values(), ids=KINDS)
class TestWhatIsLogged:
    async def test_a_trouble_is_told_once_and_its_end(
        self, log: pytest.LogCaptureFixture, begin: Act, end: Act
    ) -> None:
        troubles = Troubles("gateway")
        for act in (begin, begin, end, end):
            act(troubles)
        assert len(log.messages) == 2
        assert log.messages[-1].endswith((": over", ": works again"))

    async def test_of_what_was_over_before_a_node_was_up_nobody_hears(
        self, log: pytest.LogCaptureFixture, begin: Act, end: Act
    ) -> None:
        """Its end would be news of something that nobody knows."""
        troubles = Troubles("gateway")
        silence(True)
        begin(troubles)
        assert len(troubles.now) == 1
        silence(False)
        end(troubles)
        assert (log.messages, troubles.now) == ([], [])

    async def test_what_lasts_is_told_when_it_is_met_by_a_node_that_is_up(
        self, log: pytest.LogCaptureFixture, begin: Act, end: Act
    ) -> None:
        """Though it began in silence."""
        troubles = Troubles("gateway")
        for is_silent in (True, True, False, False):
            silence(is_silent)
            begin(troubles)
        end(troubles)
        assert len(log.messages) == 2
        assert log.messages[-1].endswith((": over", ": works again"))


class TestWhatIsNamed:
    @pytest.mark.parametrize(
        ("said", "named"),
        [
            ("ERR The user executing the script can't run this command script: x, on @user_script:9.", "HSET in "),
            ("ERR Error running script (call to f_x): @user_script:10: @user_script: 10: OOM no", "EXPIRE in "),
            ("WRONGTYPE no script: x, on @user_script:5.", "PTTL in "),
            ("NOPERM this user has no permissions to run the 'evalsha' command", ""),
            ("ERR no script: x, on @user_script:1.", ""),
            ("ERR no script: x, on @user_script:999999999999.", ""),
        ],
        ids=lambda value: value[-30:],
    )
    async def test_the_command_within_a_script_is(self, said: str, named: str) -> None:
        """As Redis 6 and 7 tell the line; without one it is the script itself that was refused."""
        troubles = Troubles("gateway")
        command = TAKE(["gateway:node:a"], "b", 10, "c")
        troubles.refused(refusal(said, *command), "here")
        assert f"{named}EVALSHA (script take) on gateway:node:*: " in troubles.now[0]
        assert ("in EVALSHA" in troubles.now[0]) == bool(named)

    async def test_what_a_script_publishes_is(self) -> None:
        """Its verb comes with the arguments, of which nothing else is ever told."""
        lines = APPEND.text.splitlines()
        (at,) = (number for number, line in enumerate(lines, 1) if line.startswith("redis.call(ARGV[9], ARGV[10]"))
        keys = ["gateway:position:a", "gateway:stream:a", "gateway:sent:a"]
        arguments = ("e", 1, 2, 3, 4, 5, 6, "", "SPUBLISH", "gateway:channel:a", b"secret", "message", "secret")
        troubles = Troubles("gateway")
        said = f"ERR The user executing the script can't publish to the channel script: x, on @user_script:{at}."
        troubles.refused(refusal(said, *APPEND(keys, *arguments)), "here")
        assert "SPUBLISH in EVALSHA (script append) on " in troubles.now[0]
        assert "secret" not in troubles.now[0]

    @pytest.mark.parametrize("script", [JOIN, LEAVE], ids=["join", "leave"])
    async def test_what_a_script_publishes_is_where_its_arguments_have_names(self, script: Script) -> None:
        lines = script.text.splitlines()
        (at,) = (number for number, line in enumerate(lines, 1) if "redis.call(publish, topic" in line)
        keys = ["gateway:members:a", "gateway:online:a", "gateway:tabs:a", "gateway:leaving:a"]
        arguments = ("n~1", "secret", "a", "[]", b"PUBLISH", "gateway:channel:a", b"secret", 1000, 0, 1)
        troubles = Troubles("gateway")
        said = f"ERR The user executing the script can't publish to the channel script: x, on @user_script:{at}."
        troubles.refused(refusal(said, *script(keys, *arguments)), "here")
        assert "PUBLISH in EVALSHA (script " in troubles.now[0]
        assert "secret" not in troubles.now[0]

    async def test_who_waited_in_vain_learns_whether_there_is_a_redis(self) -> None:
        troubles = Troubles("gateway")
        assert troubles.in_vain("URL", 6) == "no Redis at URL within 6 s"
        troubles.note("presence", LinkLost())
        assert troubles.in_vain("URL", 6) == "no Redis at URL within 6 s"
        troubles.note("publishing", refusal("LOADING data", "PING"))
        assert troubles.in_vain("URL", 6) == "Redis at URL has refused for 6 s what is needed"
        troubles.clear("publishing")
        troubles.refused(refusal("NOPERM no", "SET", "gateway:node:x", "1"), "here")
        assert troubles.in_vain("URL", 6) == "Redis at URL has refused for 6 s what is needed"
