"""What the log says of trouble with Redis: what begins is told once, what ends only after that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from gateway.backplane import trouble
from gateway.backplane.link import LinkLost, RedisRefused
from gateway.backplane.trouble import Troubles

Act = Callable[[Troubles], None]


def refusal(words: str, *command: str) -> RedisRefused:
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
