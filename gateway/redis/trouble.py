"""Keeps track of what is wrong with Redis, for the log, `/readyz` and the pages, in words an operator can act on."""

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
"""Seconds after which a trouble is over that nobody has met again. What lasts is met sooner: a link is dialled again
after a second at most, the lease is renewed every 3 s, a cluster is looked at every 5 s."""

Failure = OSError | TimeoutError | LinkLost | RedisRefused


class Outage(NamedTuple):
    """Why a link does not work now."""

    text: str
    noted: float
    """Loop time at which it was met last."""
    is_refusal: bool
    """Whether Redis answers, and refuses."""


class Refusal:
    """Something that Redis refuses now."""

    def __init__(self, text: str, noted: float) -> None:
        self.text = text
        self.noted = noted
        """Loop time at which it was met last."""
        self.met: set[What] = set()
        """The kinds of commands that were refused."""
        self.told = False
        """Whether the log says so."""


class Troubles:
    """All that is wrong now: links that do not work, by their names, and what Redis refuses, whoever asked for it.

    Each outage of a link is logged when it begins, with each of its causes once, and when it is over; so is each
    refusal. What a server refuses because of its own state is one, however many commands meet it. While the log shows
    no warnings, as it is until a node is up, nothing counts as logged: what lasts is logged afterwards, and of what
    passed before nothing is ever logged, not even that it is over.
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
        """Texts about what may become a trouble, such as a policy of eviction, by what they are about."""

    # ---- links

    def note(self, what: str, failure: Failure) -> None:
        """Note that the link named `what` does not work, and why; to be repeated whenever that is met."""
        if isinstance(failure, RedisRefused) and not failure.told:
            self.counts[reason_of(failure)] += 1
        name = self.named(failure)
        self._now[what] = Outage(name, _time(), isinstance(failure, RedisRefused))
        causes = self._logged.setdefault(what, set())
        if name not in causes and _is_heard():
            causes.add(name)
            logger.warning("%(what)s: %(why)s%(said)s", {"what": what, "why": name, "said": _said(failure)})

    def clear(self, what: str) -> None:
        """Note that the link named `what` works; costs next to nothing where it did before."""
        if self._now.pop(what, None) is not None and self._logged.pop(what):
            logger.warning("%(what)s: works again", {"what": what})

    def forget(self, name: str) -> None:
        """Drop what was noted of a link, `NAME (place)` included, without a word: it is no longer wanted."""
        for what in [what for what in self._now if what == name or what.startswith(f"{name} (")]:
            del self._now[what], self._logged[what]

    def __contains__(self, what: str) -> bool:
        return what in self._now

    # ---- commands

    def refused(self, error: RedisRefused, at: str) -> None:
        """Note what the server at an address refused. A cluster's redirections and unknown scripts are no trouble."""
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
        """Note that a server took a command. If it refused this kind before, that is over.

        Not where the server takes no writes and the command is a script, which may have had nothing to write.
        """
        if not command:
            return
        what = what_of(command, self._prefix)
        for key, refusal in [*self._refusals.items()]:
            if key[0] == at and what in refusal.met and (what.writes or key[1] not in OF_WRITES):
                self._over(key)

    def proved(self, since: float, at: str) -> None:
        """Note that writes begun at a loop time were carried out: what was wrong with the server's state is over.

        What was refused after that time stays: the proof is older. `at` is the server's address, or "" where there is
        only one, which may have had another address when it refused something.
        """
        for key, refusal in [*self._refusals.items()]:
            if at in ("", key[0]) and key[1] in OF_SERVER and refusal.noted < since:
                self._over(key)

    def what(self, command: Command) -> What:
        """Return the kind of a command."""
        return what_of(command, self._prefix)

    # ---- what is no trouble

    def does_without(self, lacking: Iterable[str]) -> None:
        """Note which commands Redis refuses that we can do without; each is logged once."""
        new = set(lacking) - self._lacking
        self._lacking |= new
        if new and self._is_announced:
            self._tell_lacking(new)

    def notice(self, about: str, text: str) -> None:
        """Let operators know of something that is no trouble yet; with "" it is taken back."""
        is_new = self.notices.get(about, "") != text
        self.notices[about] = text
        if text and is_new and self._is_announced:
            logger.warning("%(notice)s", {"notice": text})

    def announce(self) -> None:
        """Log all notices, and from now on each as it comes. To be called when the node is up, and its log heard."""
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
        """Everything that is wrong now, one short line each: refusals first, then links by their names."""
        self._lapse()
        links = (f"{what}: {outage.text}" for what, outage in self._now.items())
        return [*dict.fromkeys(refusal.text for refusal in self._refusals.values()), *links]

    @property
    def causes(self) -> list[str]:
        """The causes of all that, each once, however many links it troubles."""
        self._lapse()
        refusals = (refusal.text for refusal in self._refusals.values())
        return [*dict.fromkeys((*refusals, *(outage.text for outage in self._now.values())))]

    def in_vain(self, url: str, seconds: float) -> str:
        """Say what somebody met who waited that long in vain: no Redis, or one that refused something."""
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
