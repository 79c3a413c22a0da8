"""The incoming half of the Redis backplane: which topics are wanted, and which of them Redis has confirmed."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, takewhile
from typing import Any

from gateway.backplane.contract import Arrival
from gateway.backplane.counters import BackplaneCounters
from gateway.backplane.inbox import Inbox
from gateway.errors import Unavailable
from gateway.protocol.envelope import BEAT, GAP, SPOKEN, Target
from gateway.redis.denied_subscriptions import DeniedSubscriptions
from gateway.redis.keys import PLAIN, Verbs
from gateway.redis.link import Link, RedisRefused
from gateway.redis.topology import key_slot
from gateway.redis.trouble import Troubles

logger = logging.getLogger(__name__)

LINGER = 1.0
"""Seconds for which an emptied topic stays subscribed, so that a member who comes right back costs nothing."""
AT_ONCE = 500
"""Topics in one SUBSCRIBE: with all in one, Redis would serve nobody else until it is through."""
RETRY = 0.5
"""Seconds until refused subscriptions are tried again: `RETRIED` of them, and all once one is granted."""
RETRIED = 100

PING = b"PING"
_MESSAGES = (b"message", b"smessage")


class Wish:
    """One topic that is wanted, and how far Redis has granted it over the present link."""

    __slots__ = ("asked", "is_spoken", "sure", "target", "waiter")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.is_spoken = target.kind in SPOKEN
        """Whether nodes talk to each other there, in messages that may be signed."""
        self.asked = 0
        """How many SUBSCRIBEs are under way: only the answer to the last one makes it sure."""
        self.sure = False
        """Whether Redis has confirmed it: whatever is published from then on arrives."""
        self.waiter: asyncio.Future[None] | None = None
        """Shared by all who wait for that."""


class Subscriptions:
    """Keeps the topics that Redis sends equal to those that are wanted, over whatever link there is.

    Callers only state their wishes. One task, in `use`, sends SUBSCRIBE and UNSUBSCRIBE, and after a loss subscribes
    everything again; whoever must know waits for Redis' confirmation. For each confirmed topic of a channel that was
    lost, a gap is put into the inbox ahead of the first message that comes after it.
    """

    def __init__(
        self,
        inbox: Inbox,
        troubles: Troubles,
        counters: BackplaneCounters,
        *,
        what: str = "subscribing",
        verbs: Verbs = PLAIN,
        beat: Callable[[bytes], None] = lambda data: None,
        redirected: Callable[[RedisRefused | None], None] | None = None,
    ) -> None:
        self._inbox = inbox
        self._denied = DeniedSubscriptions(troubles, verbs.subscribe)
        self._counters = counters
        self._what = what
        self._verbs = verbs
        self._beat = beat
        self._redirected = redirected
        """In a cluster: called when a topic is served elsewhere, with the refusal if that was the sign."""
        self.link: Link | None = None
        self._wishes: dict[bytes, Wish] = {}
        self._missing: dict[bytes, None] = {}
        """Wanted, and still to be asked for over the present link; a dict keeps the order."""
        self._refused: dict[bytes, None] = {}
        """Asked for and refused; asked again after `RETRY`."""
        self._restoring: set[bytes] = set()
        """Topics that were sure before a loss, and are not sure again yet."""
        self._lingering: dict[bytes, float] = {}
        """Emptied topics, and the loop times until which they stay; those that go first stand first."""
        self._sent: deque[tuple[bytes, list[bytes]]] = deque()
        """Commands under way: each is answered once for every topic, or by one error."""
        self._answers = 0
        """How many answers the first of these commands has had."""
        self._changed = asyncio.Event()

    # ---- what is wanted

    def want(self, topic: bytes, target: Target) -> asyncio.Future[None] | None:
        """Subscribe; return the future to wait for, or None when it is sure already.

        Others may wait for the same future: use `granted`, which does not cancel it.
        """
        self._lingering.pop(topic, None)
        wish = self._wishes.get(topic)
        if wish is None:
            wish = self._wishes[topic] = Wish(target)
            self._missing[topic] = None
            self._changed.set()
        if wish.sure:
            return None
        if wish.waiter is None:
            wish.waiter = asyncio.get_running_loop().create_future()
        return wish.waiter

    def unsubscribe(self, topic: bytes) -> None:
        """Give a topic up after `LINGER`, unless it is wanted again by then; harmless if it is not subscribed."""
        if topic in self._wishes:
            self._lingering.pop(topic, None)  # to the end: the dict is in the order of the times
            self._lingering[topic] = asyncio.get_running_loop().time() + LINGER
            self._changed.set()

    def release(self, is_leaving: Callable[[bytes], bool]) -> list[tuple[bytes, Wish]]:
        """Give up the topics that are leaving for another shard, and return them with their wishes, for `adopt`.

        From now on nothing that comes for them here is passed on, since it may come there as well. Those that linger
        are dropped: nobody wants them.
        """
        emptied = set(self._lingering)
        released = [(topic, wish) for topic, wish in self._wishes.items() if wish.target != BEAT and is_leaving(topic)]
        for topic, wish in released:
            if self.link is not None and (wish.sure or wish.asked):
                self._write(self.link, self._verbs.unsubscribe, [topic])
            wish.sure = wish.sure or topic in self._restoring  # so that a loss not yet told here is told there
            self._restoring.discard(topic)
            self._drop(topic)
        return [(topic, wish) for topic, wish in released if topic not in emptied]

    def adopt(self, topic: bytes, wish: Wish) -> None:
        """Take over a topic that another shard released; if it was sure there, a gap is told once it is sure here."""
        if wish.sure:
            self._restoring.add(topic)
        wish.sure, wish.asked = False, 0
        self._wishes[topic] = wish
        self._missing[topic] = None
        self._changed.set()

    def _drop(self, topic: bytes) -> Wish:
        """Forget a topic, wherever it is noted. If a loss was only waiting for this one, it is over."""
        self._lingering.pop(topic, None)
        self._missing.pop(topic, None)
        self._refused.pop(topic, None)
        self._denied.over(topic, self._address)
        wish = self._wishes.pop(topic)
        self._restored(topic)
        return wish

    # ---- one link

    async def use(self, link: Link) -> None:
        """Subscribe to everything wanted over this link, and follow what is wanted until the link is lost."""
        self.link = link
        self._sent.clear()
        self._answers = 0
        link.lost.add_done_callback(lambda _: self._changed.set())
        try:
            while not link.lost.done():
                self._reconcile(link)
                await self._change()
        finally:
            self._lose()

    def ping(self, link: Link) -> None:
        """Ask for a sign of life. PING takes its place among the commands whose answers are counted."""
        self._sent.append((PING, []))
        link.write(PING)

    def received(self, replies: list[Any]) -> None:
        """Take what came over the link: messages, confirmations, and errors, in the order in which Redis sent them."""
        for reply in replies:
            if type(reply) is list and reply[0] in _MESSAGES:  # almost all; `match` takes a microsecond
                self._message(reply[1], reply[2])
                continue
            match reply:
                case [b"subscribe" | b"ssubscribe", topic, _]:
                    self._confirm(topic)
                case [b"unsubscribe" | b"sunsubscribe", topic, _]:
                    self._ended(topic)
                case [b"pong", _] | b"PONG":
                    self._next_answer(PING)
                case RedisRefused():
                    self._refuse(reply)
        if self.link is not None:
            self._inbox.pause_when_full(self.link)

    def _message(self, topic: bytes, data: bytes) -> None:
        if wish := self._wishes.get(topic):
            if wish.target is BEAT:
                self._beat(data)
            elif wish.is_spoken:
                self._inbox.put_spoken(wish.target, topic, data)
            else:
                self._inbox.put(Arrival(wish.target, data))

    def _lose(self) -> None:
        """Note that the link is gone: all has to be asked for again, and of each topic that was sure a gap is told.

        What was lost before and not restored yet stays noted: its gap has not been told either.
        """
        self.link = None
        for topic, wish in self._wishes.items():
            if wish.sure:
                self._restoring.add(topic)
            wish.sure, wish.asked = False, 0
        self._refused.clear()
        self._missing = dict.fromkeys(self._wishes)

    def _reconcile(self, link: Link) -> None:
        """Send what makes Redis' subscriptions those that are wanted. Waits for nothing."""
        self._changed.clear()  # first: what changes from here on makes another turn
        # Emptied topics first: those that were not asked for yet need not be.
        for topics in self._together(self._emptied()):
            self._write(link, self._verbs.unsubscribe, topics)
        missing, self._missing = self._missing, {}
        for topics in self._together(missing):
            self._ask(link, topics)

    def _ask(self, link: Link, topics: list[bytes]) -> None:
        for topic in topics:
            self._wishes[topic].asked += 1
        self._write(link, self._verbs.subscribe, topics)

    def _write(self, link: Link, verb: bytes, topics: list[bytes]) -> None:
        self._sent.append((verb, topics))
        link.write(verb, *topics)

    def _emptied(self) -> list[bytes]:
        """Forget what has lingered long enough; return those topics that Redis was asked for, to be unsubscribed."""
        now = asyncio.get_running_loop().time()
        over = [topic for topic, _ in takewhile(lambda each: each[1] <= now, self._lingering.items())]
        told = [topic for topic in over if topic not in self._missing]
        for topic in over:
            _grant(self._drop(topic))  # whoever still waits for a topic that nobody wants need not wait
        return told

    async def _change(self) -> None:
        """Wait until there is something to do: a wish, a loss, or the end of a pause."""
        pauses = [pause for pause, wanted in ((LINGER / 2, self._lingering), (RETRY, self._refused)) if wanted]
        if self._changed.is_set() or not pauses:
            await self._changed.wait()
            return
        try:
            async with asyncio.timeout(min(pauses)):
                await self._changed.wait()
        except TimeoutError:
            for topic in list(islice(self._refused, RETRIED)):
                del self._refused[topic]
                self._missing[topic] = None

    def _together(self, topics: Iterable[bytes]) -> Iterator[list[bytes]]:
        """Yield topics in such lists as may stand in one command: a cluster takes only those of one slot."""
        if self._verbs is PLAIN:
            yield from _chunks(topics)
            return
        slots: dict[int, list[bytes]] = {}
        for topic in topics:
            slots.setdefault(key_slot(topic), []).append(topic)
        for together in slots.values():
            yield from _chunks(together)

    # ---- answers

    def _confirm(self, topic: bytes) -> None:
        """Take the answer to SUBSCRIBE for one topic. It comes ahead of all messages that are published there."""
        self._next_answer(self._verbs.subscribe)
        wish = self._wishes.get(topic)
        if wish is None or wish.asked == 0:
            return
        wish.asked -= 1
        if wish.asked:
            return
        wish.sure = True
        _grant(wish)
        self._restored(topic)
        self._denied.over(topic, self._address)
        if self._refused:  # Redis grants again: it may be more than one of them
            self._missing.update(self._refused)
            self._refused.clear()
            self._changed.set()

    def _ended(self, topic: bytes) -> None:
        """Take the answer to UNSUBSCRIBE, or, unasked, word of a cluster that this topic is served elsewhere now."""
        if self._sent and self._sent[0][0] == self._verbs.unsubscribe and topic in self._sent[0][1]:
            self._next_answer(self._verbs.unsubscribe)
            return
        if (wish := self._wishes.get(topic)) is not None and wish.sure:
            wish.sure = False
            self._restoring.add(topic)
            # Not asked again at once: a master that was replaced grants it and hears on, and what is published there
            # reaches its successor as well, maybe only when we have come there: it would arrive twice.
            self._refused[topic] = None
            self._changed.set()
            if self._redirected is not None:
                self._redirected(None)

    def _refuse(self, error: RedisRefused) -> None:
        """Take an error. It is the only answer to its command, and commands are answered in order."""
        if not self._sent:
            return
        verb, topics = self._sent.popleft()
        self._answers = 0
        if verb == PING:
            self._alive()
        elif verb == self._verbs.subscribe:
            wanted = [topic for topic in topics if topic in self._wishes]
            for topic in wanted:
                self._wishes[topic].asked = max(0, self._wishes[topic].asked - 1)
            self._refused_topics(wanted, error)

    def _refused_topics(self, topics: list[bytes], error: RedisRefused) -> None:
        """Ask again for topics that were refused: one by one if only some may be forbidden, else after a pause."""
        if error.word == "NOPERM" and len(topics) > 1 and self.link is not None:
            for topic in topics:  # Redis refuses all if one is forbidden, which must not keep the others out
                self._ask(self.link, [topic])
            return
        self._refused.update(dict.fromkeys(topics))
        self._changed.set()
        if error.word == "MOVED" and self._redirected is not None:
            self._redirected(error)
        elif topics:
            self._denied.refused(topics, error, self._address)

    def _next_answer(self, verb: bytes) -> None:
        """Count one answer to the first command under way: it has had all when there is one for each topic."""
        if verb == PING:
            self._alive()
        if not self._sent or self._sent[0][0] != verb:
            return
        self._answers += 1
        if self._answers >= len(self._sent[0][1]):
            self._sent.popleft()
            self._answers = 0

    @property
    def _address(self) -> str:
        return self.link.address if self.link is not None else ""

    def _alive(self) -> None:
        if self.link is not None:
            self.link.answered()

    def _restored(self, topic: bytes) -> None:
        """Tell the gap of one topic, if it was lost, and behind the last of them the end of the loss.

        Called as soon as the topic is confirmed, and so ahead of every message that comes now.
        """
        if topic not in self._restoring:
            return
        self._restoring.discard(topic)
        if (wish := self._wishes.get(topic)) is not None and wish.target.kind == "channel":
            self._inbox.put(Arrival(Target(GAP.kind, wish.target.name), b""))
        if not self._restoring:
            logger.warning("%s: back after a loss, %s topics", self._what, len(self._wishes))
            self._counters.gaps += 1
            self._inbox.put(Arrival(GAP, b""))


async def granted(waiters: Iterable[asyncio.Future[None] | None], timeout: float) -> None:
    """Wait for all that `want` returned, without cancelling any. Raises `Unavailable` past the timeout, in seconds."""
    waiting = [waiter for waiter in waiters if waiter is not None]
    if waiting and (await asyncio.wait(waiting, timeout=timeout))[1]:
        raise Unavailable("Redis did not confirm the subscription")


def _grant(wish: Wish) -> None:
    """Wake those who wait for a topic."""
    if wish.waiter is not None and not wish.waiter.done():
        wish.waiter.set_result(None)
    wish.waiter = None


def _chunks(topics: Iterable[bytes]) -> Iterator[list[bytes]]:
    remaining = iter(topics)
    while chunk := list(islice(remaining, AT_ONCE)):
        yield chunk
