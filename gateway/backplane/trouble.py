"""What is wrong with Redis, in words that an operator can act on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from gateway.backplane.link import LinkLost, RedisRefused

logger = logging.getLogger(__name__)

LAPSE = 60.0
"""Seconds after which a trouble is forgotten that nobody has met again."""

_MEANINGS = {
    "READONLY": "this Redis is a read-only replica",
    "OOM": "Redis is out of memory (maxmemory)",
    "WRONGPASS": "Redis refused the password",
    "NOAUTH": "Redis wants a password",
    "NOPERM": "the access rules (ACL) of Redis forbid it",
    "BUSY": "Redis is busy with a script",
    "LOADING": "Redis is loading its data",
    "MISCONF": "Redis cannot write to its disk and takes no writes",
    "CLUSTERDOWN": "the cluster does not serve all slots",
    "MASTERDOWN": "the replica has lost its master",
    "NOREPLICAS": "Redis has too few replicas to take writes",
    "TRYAGAIN": "a slot of the cluster is on its way to another master",
    "MOVED": "a slot of the cluster has moved",
    "ASK": "a slot of the cluster is on its way to another master",
}

PASSING = frozenset(_MEANINGS) - {"WRONGPASS", "NOAUTH", "NOPERM"}
"""Refusals that say something of the server's state and nothing of the command: it was not carried out, and
may be sent again."""

Failure = OSError | TimeoutError | LinkLost | RedisRefused


def is_password_refused(error: RedisRefused) -> bool:
    """Tell whether only another user name or password would help."""
    return error.word in ("WRONGPASS", "NOAUTH") or error.message.startswith("ERR AUTH")


class Troubles:
    """What is wrong now, by what it troubles; each outage is logged when it begins, with each of its causes
    once, and when it is over.
    """

    def __init__(self) -> None:
        self._now: dict[str, tuple[str, float]] = {}
        self._logged: dict[str, set[str]] = {}

    def note(self, what: str, failure: Failure) -> None:
        """Take down why `what` does not work at the moment; may be repeated."""
        name = named(failure)
        self._now[what] = (name, asyncio.get_running_loop().time())
        causes = self._logged.setdefault(what, set())
        if name not in causes:
            causes.add(name)
            logger.warning("%s: %s%s", what, name, f" ({failure})" if isinstance(failure, RedisRefused) else "")

    def clear(self, what: str) -> None:
        """Take down that `what` works; costs nothing where it did."""
        if self._now.pop(what, None) is not None:
            del self._logged[what]
            logger.warning("%s: works again", what)

    def forget(self, name: str) -> None:
        """Drop everything whose name begins so: that link is wanted no more."""
        for what in [what for what in self._now if what == name or what.startswith(f"{name} (")]:
            del self._now[what], self._logged[what]

    def __contains__(self, what: str) -> bool:
        return what in self._now

    @property
    def now(self) -> list[str]:
        """Everything that is wrong, one short line each."""
        oldest = asyncio.get_running_loop().time() - LAPSE
        for what in [what for what, (_, noted) in self._now.items() if noted < oldest]:
            del self._now[what], self._logged[what]
        return [f"{what}: {name}" for what, (name, _) in self._now.items()]


def causes(troubles: Iterable[str]) -> Iterable[str]:
    """Return what is behind troubles, each cause once: to those who wait it is one whether it troubles all or some."""
    return dict.fromkeys(trouble.partition(": ")[2] for trouble in troubles)


def named(failure: Failure) -> str:
    """Say in a few words what went wrong."""
    if isinstance(failure, RedisRefused):
        word = failure.word
        return f"{word}, {_MEANINGS[word]}" if word in _MEANINGS else f"Redis refused: {failure}"
    if isinstance(failure, TimeoutError):
        return "Redis does not answer"
    if isinstance(failure, OSError):
        return f"no connection to Redis: {failure.strerror or failure}"
    return "the connection to Redis is lost"
