"""What is wrong with Redis, in words that an operator can act on."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from gateway.redis.link import Command, LinkLost, RedisRefused
from gateway.redis.refusal import MEANINGS, OF_SERVER, OF_WRITES, What, reason_of, refused_in_script, what_of

logger = logging.getLogger(__name__)

LAPSE = 10.0
"""Seconds after which a trouble is over that nobody has met again: what lasts is met every few seconds."""

Failure = OSError | TimeoutError | LinkLost | RedisRefused


class Outage(NamedTuple):
    """Why a link does not work now."""

    text: str
    noted: float
    """When it was met last."""
    is_refusal: bool
    """Whether Redis is there, and says no."""


class Refusal:
    """Something that Redis refuses now."""

    def __init__(self, text: str, noted: float) -> None:
        self.text = text
        self.noted = noted
        """When it was met last."""
        self.met: set[What] = set()
        """What was refused."""
        self.told = False
        """Whether the log says so."""


class Troubles:
    """What is wrong now: with links, by their names, and what Redis refuses, whoever asked for it.

    Each outage of a link is logged when it begins, with each of its causes once, and when it is over; so is each
    refusal. What a server refuses because of its own state is one, however many commands meet it. While the log is
    silent, as it is until a node is up, nothing counts as logged: what lasts is told afterwards, and of what does not
    nobody hears that it is over.
    """

    def __init__(self, prefix: str = "", *, is_cluster: bool = False) -> None:
        self._prefix = prefix
        self._is_cluster = is_cluster
        self._now: dict[str, Outage] = {}
        self._logged: dict[str, set[str]] = {}
        self._refusals: dict[tuple[str, ...], Refusal] = {}
        self._lacking: set[str] = set()
        self._is_announced = False
        self.is_troubled = False
        """Whether anything is refused: then it matters what is taken."""
        self.counts: Counter[str] = Counter()
        """How often Redis refused something, by reason."""
        self.notices: dict[str, str] = {}
        """What is no trouble yet, and will be; by what it is about."""

    # ---- links

    def note(self, what: str, failure: Failure) -> None:
        """Take down why `what` does not work at the moment; may be repeated."""
        if isinstance(failure, RedisRefused) and not failure.told:
            self.counts[reason_of(failure)] += 1
        name = self.named(failure)
        self._now[what] = Outage(name, _time(), isinstance(failure, RedisRefused))
        causes = self._logged.setdefault(what, set())
        if name not in causes and _is_heard():
            causes.add(name)
            logger.warning("%(what)s: %(why)s%(said)s", {"what": what, "why": name, "said": _said(failure)})

    def clear(self, what: str) -> None:
        """Take down that `what` works; costs nothing where it did."""
        if self._now.pop(what, None) is not None and self._logged.pop(what):
            logger.warning("%(what)s: works again", {"what": what})

    def forget(self, name: str) -> None:
        """Drop everything whose name begins so: that link is wanted no more."""
        for what in [what for what in self._now if what == name or what.startswith(f"{name} (")]:
            del self._now[what], self._logged[what]

    def __contains__(self, what: str) -> bool:
        return what in self._now

    # ---- commands

    def refused(self, error: RedisRefused, at: str) -> None:
        """Take down what a server refused. A cluster's redirections and unknown scripts are no trouble."""
        error.told = True
        word, what = error.word, what_of(error.command, self._prefix)
        if word == "NOSCRIPT" or (self._is_cluster and word in ("MOVED", "ASK")):
            return
        self.counts[reason_of(error)] += 1
        key = (at, word) if word in OF_SERVER else (at, word, *what)
        refusal = self._refusals.get(key)
        if refusal is None:
            refusal = self._refusals[key] = Refusal(self.named(error), _time())
            self.is_troubled = True
        if not refusal.told and _is_heard():
            refusal.told = True
            facts = {"what": self._what(error), "why": self._meaning(error), "said": _said(error), "at": at}
            logger.warning("Redis refuses %(what)s: %(why)s%(said)s", facts)
        refusal.noted = _time()
        refusal.met.add(what)

    def taken(self, command: Command, at: str) -> None:
        """Hear that a server took a command, while anything is refused: what it refused before is over, if it was this.

        Not where a server that takes no writes took a script, which may have had nothing to write.
        """
        if not command:
            return
        what = what_of(command, self._prefix)
        for key, refusal in [*self._refusals.items()]:
            if key[0] == at and what in refusal.met and (what.writes or key[1] not in OF_WRITES):
                self._over(key)

    def proved(self, since: float, at: str) -> None:
        """Hear that writes that began at this loop time were carried out: the server's state is in no write's way.

        `at` is that server, or "" where there is one only, whichever it was when it refused something.
        """
        for key, refusal in [*self._refusals.items()]:
            if at in ("", key[0]) and key[1] in OF_SERVER and refusal.noted < since:
                self._over(key)

    def what(self, command: Command) -> What:
        """Name a command by its kind."""
        return what_of(command, self._prefix)

    # ---- what is no trouble

    def does_without(self, lacking: Iterable[str]) -> None:
        """Take down which questions Redis does not answer that can be done without."""
        new = set(lacking) - self._lacking
        self._lacking |= new
        if new and self._is_announced:
            self._tell_lacking(new)

    def notice(self, about: str, text: str) -> None:
        """Let operators know of something that is no trouble yet; "" when there is nothing to know any more."""
        is_new = self.notices.get(about, "") != text
        self.notices[about] = text
        if text and is_new and self._is_announced:
            logger.warning("%(notice)s", {"notice": text})

    def announce(self) -> None:
        """Log all that, and what comes at once from now on: until a node is up its log is silent."""
        self._is_announced = True
        if self._lacking:
            self._tell_lacking(self._lacking)
        for text in filter(None, self.notices.values()):
            logger.warning("%(notice)s", {"notice": text})

    def _tell_lacking(self, lacking: Iterable[str]) -> None:
        facts = {"commands": ", ".join(sorted(lacking))}
        logger.info("Redis does not let this node ask %(commands)s: it does without", facts)

    def _over(self, key: tuple[str, ...]) -> None:
        refusal = self._refusals.pop(key)
        self.is_troubled = bool(self._refusals)
        if refusal.told:
            logger.warning("%(what)s: over", {"what": refusal.text})

    # ---- what there is

    @property
    def now(self) -> list[str]:
        """Everything that is wrong, one short line each."""
        self._lapse()
        links = (f"{what}: {outage.text}" for what, outage in self._now.items())
        return [*dict.fromkeys(refusal.text for refusal in self._refusals.values()), *links]

    @property
    def causes(self) -> list[str]:
        """What is behind all that, each cause once: to those who wait it is one whether it troubles all or some."""
        self._lapse()
        refusals = (refusal.text for refusal in self._refusals.values())
        return [*dict.fromkeys((*refusals, *(outage.text for outage in self._now.values())))]

    def in_vain(self, url: str, seconds: float) -> str:
        """Say what somebody met who has waited so long: no Redis, or one that answers, if only to refuse something."""
        self._lapse()
        if self._refusals or any(outage.is_refusal for outage in self._now.values()):
            return f"Redis at {url} has refused for {seconds:g} s what is needed"
        return f"no Redis at {url} within {seconds:g} s"

    def _lapse(self) -> None:
        oldest = _time() - LAPSE
        for what in [what for what, outage in self._now.items() if outage.noted < oldest]:
            del self._now[what], self._logged[what]
        for key in [key for key, refusal in self._refusals.items() if refusal.noted < oldest]:
            self._over(key)

    def named(self, failure: Failure) -> str:
        """Say in a few words what went wrong."""
        if isinstance(failure, RedisRefused):
            meaning = self._meaning(failure)
            return f"Redis refuses {self._what(failure)}: {meaning}" if failure.command else meaning
        if isinstance(failure, TimeoutError):
            return "Redis does not answer"
        if isinstance(failure, OSError):
            return f"no connection to Redis: {failure.strerror or failure}"
        return "the connection to Redis is lost"

    def _what(self, error: RedisRefused) -> str:
        what, inner = what_of(error.command, self._prefix), refused_in_script(error)
        return f"{inner} in {what}" if inner else str(what)

    def _meaning(self, error: RedisRefused) -> str:
        if error.word == "MOVED" and not self._is_cluster:
            return "MOVED, this is a Redis Cluster: its URL is redis+cluster://HOST:PORT,HOST:PORT"
        if error.word == "UNKNOWN" and error.command[:1] == ("SENTINEL",):
            return "UNKNOWN, this is no sentinel: the URL of a server is redis://HOST:PORT"
        return f"{error.word}, {MEANINGS[error.word]}" if error.word in MEANINGS else f"Redis said {error}"


def _said(failure: Failure) -> str:
    """Repeat what Redis said, unless that may have repeated the password."""
    return f" ({failure})" if isinstance(failure, RedisRefused) and failure.command[:1] != ("AUTH",) else ""


def _is_heard() -> bool:
    return logger.isEnabledFor(logging.WARNING)


def _time() -> float:
    return asyncio.get_running_loop().time()
