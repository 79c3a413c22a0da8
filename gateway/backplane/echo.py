"""The heartbeat through Redis: every second a node publishes to itself, to prove that what is published arrives."""

from __future__ import annotations

import asyncio
import logging
import secrets

from gateway.backplane.counters import BackplaneCounters
from gateway.backplane.publishing import Publishing
from gateway.backplane.subscriptions import Subscriptions
from gateway.redis.link import Link, LinkLost
from gateway.redis.records import DIGITS, Rejections

logger = logging.getLogger(__name__)

# All in seconds.
TICK = 0.25
"""How often it is looked whether a beat is due, or missing."""
BEAT = 1.0
"""How often a node publishes to itself."""
LATE = 1.5
"""Without a beat for longer than this the lag is what has passed since: one is sent every `BEAT`, or a tick later."""
DEAF = 3.0
"""How long after Redis took a beat none may come back before the node is deaf, and its subscription is dialled again:
three beats, so that one hiccup of Redis is none."""


class Echo:
    """Publishes beats, ahead of the publications that wait, and listens for them.

    Where Redis takes the beats and none comes back, this node is deaf. A frozen Redis takes none, so that is no
    deafness; nor is a link that has stopped reading because too much is unread. A beat carries a random word of this
    echo, so that nobody else can make one, and a number: one that was not sent, or came back already, proves nothing.
    """

    def __init__(
        self,
        publishing: Publishing,
        verb: bytes,
        what: str,
        counters: BackplaneCounters,
        rejections: Rejections,
    ) -> None:
        self.topic = b""
        self.deaf = False
        self.lag = 0.0
        """Seconds from the last beat's publication until it was heard; while none comes, since the last one came."""
        self._publishing = publishing
        self._verb = verb
        self._what = what
        self._counters = counters
        self._rejections = rejections
        self._word = secrets.token_hex(8).encode()
        self._number = 0
        self._sent = 0.0
        self._due: Link | None = None
        """The link over which the last beat was sent, until that is answered: one at a time is under way."""
        self._heard_number = 0
        self._heard_at = 0.0
        self._unheard_since: float | None = None
        """Loop time at which Redis took the first of the beats that have not come back; None when none is missing."""

    async def run(self, subscriptions: Subscriptions) -> None:
        """Beat, and judge what comes back over the link of these subscriptions, until cancelled."""
        last = self._heard_at = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(TICK)
            now = asyncio.get_running_loop().time()
            if now - self._heard_at > LATE:
                self.lag = now - self._heard_at
            if self.deaf:
                self._counters.deaf_seconds += now - last
            last = now
            self._beat(now)
            self._judge(now, subscriptions.link)

    def heard(self, data: bytes) -> None:
        """Take what arrived on the topic of beats; anything but a beat of our own is rejected."""
        word, _, number = data.partition(b" ")
        if word != self._word or not number.isdigit() or len(number) > DIGITS:
            self._rejections.published(self.topic.decode(), "expected a beat of this node's own", data)
            return
        if not self._heard_number < int(number) <= self._number:
            return  # repeated by somebody, or from a link that brings it late
        self._heard_number = int(number)
        self._heard_at = asyncio.get_running_loop().time()
        if self._heard_number == self._number:  # only of the last one is it known when it was sent
            self.lag = self._heard_at - self._sent
        self._unheard_since = None
        if self.deaf:
            self.deaf = False
            logger.warning("%s: this node hears again", self._what)

    def _beat(self, now: float) -> None:
        """Send a beat if one is due, and the last one over this link has been answered."""
        link = self._publishing.link
        if link is None or link.lost.done():
            self._silent()
        elif now - self._sent >= BEAT and self._due is not link:
            self._number += 1
            self._sent, self._due = now, link
            link.send(_Answer(self, self._number), self._verb, self.topic, b"%b %d" % (self._word, self._number))
        elif self._due is link and now - self._sent > DEAF:
            self._silent()  # Redis has not taken it: it is frozen, or the link is dead, which others see to

    def taken(self, number: int) -> None:
        """Note that Redis took a beat: from now on it is to come back."""
        self._due = None
        # It may have come back before this answer: they travel over two links.
        if self._heard_number < number and self._unheard_since is None:
            self._unheard_since = asyncio.get_running_loop().time()

    def refused(self, error: Exception) -> None:
        """Note that Redis did not take a beat, or that its link broke."""
        self._due = None
        if isinstance(error, LinkLost):
            self._silent()

    def _silent(self) -> None:
        """Note that Redis takes no beats, so that nobody knows whether they would come back: that is not deafness."""
        self._unheard_since, self.deaf = None, False

    def _judge(self, now: float, link: Link | None) -> None:
        """Find out whether this node is deaf; if so, have the link that subscribes dialled again."""
        if self._unheard_since is None or now - self._unheard_since <= DEAF:
            return
        if link is not None and link.paused:
            # We do not read, because others have not: the beat waits with the rest, and its time begins anew.
            self._unheard_since = now
            return
        if not self.deaf:
            self.deaf = True
            self._counters.deaf_seconds += now - self._unheard_since
            logger.warning("%s: deaf for %.1f s while Redis takes beats", self._what, now - self._unheard_since)
        if link is not None and now - link.begun > DEAF:  # a fresh one is given as long to bring a beat
            link.abort()


class _Answer:
    """Takes the answer to a beat."""

    def __init__(self, echo: Echo, number: int) -> None:
        self._echo = echo
        self._number = number

    def done(self) -> bool:
        return False

    def set_result(self, receivers: object) -> None:
        self._echo.taken(self._number)

    def set_exception(self, error: Exception) -> None:
        self._echo.refused(error)
