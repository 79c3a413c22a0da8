"""The outgoing half of the Redis backplane: a bounded queue of publications that keeps their order over an outage."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import Any

from gateway.backplane.scripts import SCRIPTS
from gateway.errors import Unavailable
from gateway.redis.keys import PLAIN
from gateway.redis.link import Command, Link, LinkLost, RedisRefused
from gateway.redis.refusal import PASSING

STALLED = 0.25
"""Seconds for which a link may owe an answer before it is sent no more: what waits here can still be taken back."""
FIRST_PAUSE, LAST_PAUSE = 0.01, 1.0
"""Seconds until a refused command is tried again: doubled each time, until Redis takes something."""
EXPIRY_STEP = 0.05
"""Seconds between two looks for what has waited too long, at least: each goes through the queues."""


class Room:
    """The bound on what may wait for Redis, in all queues of a node together; 0 is no bound."""

    def __init__(self, *, messages: int, size: int) -> None:
        self._most_messages = messages
        self._most_bytes = size
        self.waiting = 0
        """Publications that have no answer yet."""
        self.waiting_bytes = 0

    def take(self, size: int) -> None:
        """Count one more in. Raises `Unavailable` when too much waits already."""
        if 0 < self._most_messages <= self.waiting:
            raise Unavailable(f"{self.waiting} messages wait for Redis already")
        if 0 < self._most_bytes < self.waiting_bytes + size:
            raise Unavailable(f"{self.waiting_bytes} bytes wait for Redis already")
        self.waiting += 1
        self.waiting_bytes += size

    def leave(self, size: int) -> None:
        """Count one out again, however it ended."""
        self.waiting -= 1
        self.waiting_bytes -= size


def key_of(command: Command) -> bytes:
    """Return the topic or first key of a command: its order is kept by that, and a cluster routes by it."""
    key = command[3 if command[0] in ("EVALSHA", b"EVALSHA") else 1]
    return key if isinstance(key, bytes) else str(key).encode()


class Publication:
    """One command on its way, and the `Reply` of the link: for each time it is sent it gets one answer or one error."""

    __slots__ = ("answer", "asking", "command", "deadline", "repeatable", "sender", "sent")

    sender: Publishing
    """The queue that sent it last; in a cluster it may move to another one."""

    def __init__(self, command: Command, answer: asyncio.Future[Any], deadline: float, *, repeatable: bool) -> None:
        self.command = command
        self.deadline = deadline
        self.repeatable = repeatable
        self.answer = answer
        self.sent = 0.0
        self.asking = ""
        """The master that a cluster told us to ask for this one (`ASK`), while the slot is on its way there."""

    @property
    def key(self) -> bytes:
        return key_of(self.command)

    def done(self) -> bool:
        """Return False, though nobody may wait any more: what is under way is known only if every answer is taken."""
        return False

    def set_result(self, value: object) -> None:
        self.sender.taken(self, value)

    def set_exception(self, error: Exception) -> None:
        self.sender.failed(self, error)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Publishing:
    """Publishes in the order of the calls, over whatever link there is; what is published waits while there is none.

    A PUBLISH is sent once: if the link breaks before its answer, it may or may not have been carried out, and sending
    it again could double the message. Such a publication fails with `Unavailable`. What is `repeatable` is sent again
    over the next link, before anything else. One that failed may even arrive late: a frozen master still carries out,
    when it thaws, what was under way to it, and if the cluster has given it a successor meanwhile, the successor's
    subscribers get it. That is why little is sent to a server that does not answer (`STALLED`).

    What Redis refuses because of its own state was not carried out, and is sent again until it is taken or
    its time is up: before what came later, and not at all once something later on the same key was taken.
    """

    def __init__(
        self,
        room: Room,
        *,
        timeout: float,
        verb: bytes = PLAIN.publish,
        redirected: Callable[[RedisRefused], None] | None = None,
        regroup: Callable[[Publishing], None] | None = None,
    ) -> None:
        self._room = room
        self._timeout = timeout
        self._verb = verb
        self._redirected = redirected
        """In a cluster: called with each MOVED."""
        self._regroup = regroup
        """In a cluster: called when nothing is under way, to move what waits to other queues, or put it back here."""
        self.link: Link | None = None
        self._waiting: deque[Publication] = deque()
        self._under_way: deque[Publication] = deque()
        """Sent over the present link, in the order in which the answers come."""
        self._refused: list[Publication] = []
        """What is to be sent again, in order; held back until the last one under way has its answer."""
        self._refused_keys: set[bytes] = set()
        """Keys on which something was refused: what is taken on one of them now has overtaken it."""
        self._turning = False
        """Whether `turn` was called: nothing is sent until all that is under way is answered."""
        self._careful = False
        """Whether the last answer was a refusal: then only one at a time is sent, since more would overtake it."""
        self._pause = FIRST_PAUSE
        self._retry: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """The running loop, asked for once: on CPython 3.11 each time is a system call, 7 % of a busy node's time."""
        return asyncio.get_running_loop()

    def publish(self, topic: bytes, data: bytes) -> Coroutine[Any, Any, int]:
        """Publish and return how many subscribers got it. Raises `Unavailable` as `Backplane.publish` does."""
        return self.call((self._verb, topic, data), size=len(data))

    async def call(self, command: Command, *, size: int, repeatable: bool = False) -> Any:
        """Send any command in its turn and return the answer; `size` counts against the bound.

        Who is cancelled before it was sent takes it back. Raises `Unavailable` as `Backplane.publish` does; for what is
        `repeatable` a broken link is no reason to.
        """
        self._room.take(size)
        deadline = self._loop.time() + self._timeout
        try:  # the future stands in no variable: its error holds this frame, and circles wait for the collector
            return await self.put(Publication(command, self._loop.create_future(), deadline, repeatable=repeatable))
        except (LinkLost, RedisRefused) as error:
            raise Unavailable(f"Redis did not take the message: {error}") from None
        finally:
            self._room.leave(size)

    async def use(self, link: Link) -> None:
        """Send over this link, what waited first, until it is lost."""
        self.link, self._careful = link, False
        _teach(link)  # ahead of what waits: a new server knows no scripts
        self._go_on()
        try:
            await asyncio.shield(link.lost)  # others wait for it too: who cancels us must not cancel it
        finally:
            self.link = None

    def put(self, publication: Publication) -> asyncio.Future[Any]:
        """Send it, or let it wait its turn; return the future of its answer."""
        # Behind what waits even if it could be sent: nothing overtakes.
        if self._waiting or not self._may_send():
            self._waiting.append(publication)
        else:
            self._send(publication)
        if self._expiry is None:
            self._expiry = self._loop.call_at(publication.deadline, self._expire)
        return publication.answer

    def turn(self) -> None:
        """Call `regroup` as soon as nothing is under way, and send nothing before."""
        self._turning = True
        self._go_on()

    def take(self) -> list[Publication]:
        """Hand over what waits, in order, less what nobody waits for any more."""
        taken = [publication for publication in self._waiting if not publication.answer.done()]
        self._waiting.clear()
        return taken

    # ---- sending

    def _may_send(self) -> bool:
        """Tell whether the next one may be sent now; not while the server is slow, and one by one after a refusal."""
        if self.link is None or self.link.lost.done() or self._turning or self._retry is not None:
            return False
        if not self._under_way:
            return True
        return not self._careful and self._loop.time() - self._under_way[0].sent < STALLED

    def _send(self, publication: Publication) -> None:
        if publication.answer.done():  # its time is up, or its caller was cancelled
            return
        assert self.link is not None
        publication.sender, publication.sent = self, self._loop.time()
        self._under_way.append(publication)
        if publication.asking:  # ASKING holds for one command, the next on this link: nothing may come in between
            self.link.send(_Ignored(), b"ASKING")
        self.link.send(publication, *publication.command)

    def _go_on(self) -> None:
        """Do what has become possible: look at what was refused when nothing is under way, then send what waits."""
        if not self._under_way and (self._turning or self._refused):
            self._start_over()
        while self._waiting and self._may_send():
            self._send(self._waiting.popleft())

    def _start_over(self) -> None:
        """Put what was refused back in front of what waits, and let a cluster move it all."""
        self._waiting.extendleft(reversed(self._refused))
        self._refused.clear()
        self._refused_keys.clear()
        if self._regroup is not None:
            self._turning = True  # what it puts back waits here until all is moved, and so stays in order
            self._regroup(self)
        self._turning = False

    # ---- answers, in the order of sending

    def taken(self, publication: Publication, value: object) -> None:
        """Take the answer of Redis to what was sent first. Called by the publication."""
        self._under_way.popleft()
        if not publication.answer.done():
            publication.answer.set_result(value)
        self._careful, self._pause = False, FIRST_PAUSE
        if self._refused_keys and publication.key in self._refused_keys:
            self._overtaken(publication.key)
        self._go_on()

    def failed(self, publication: Publication, error: Exception) -> None:
        """Take a refusal, or word that the link broke, of what was sent first. Called by the publication."""
        # A link answers in the order of sending; when it breaks it is lost first, so that nothing more is sent over it,
        # and then tells all that are left, in the same order. So what is collected here is in order too, and goes back
        # in front of what waits once the last one under way has its word, not earlier.
        self._under_way.popleft()
        if isinstance(error, LinkLost) and publication.repeatable:
            # Its key is not noted: behind a broken link nothing later can have been taken before it.
            self._refused.append(publication)
        elif isinstance(error, RedisRefused):
            self._refuse(publication, error)
        else:
            publication.fail(error)
        self._go_on()

    def _refuse(self, publication: Publication, error: RedisRefused) -> None:
        """Keep what was refused for now, to send it again after a pause; fail what was refused for good."""
        if error.word == "NOSCRIPT":
            if not self._refused and self.link is not None:  # once for all that were under way
                _teach(self.link)
        elif error.word not in PASSING:
            publication.fail(error)
            return
        if error.word in ("ASK", "MOVED"):
            publication.asking = error.message.split()[2] if error.word == "ASK" else ""
        self._refused.append(publication)
        self._refused_keys.add(publication.key)
        self._careful = True
        if error.word == "MOVED" and self._redirected is not None:
            self._redirected(error)
        if error.word == "READONLY" and self.link is not None:
            self.link.abort()  # its server is a replica by now: the next link may lead to the master
        if self._retry is None:
            self._retry = self._loop.call_later(self._pause, self._try_again)
            self._pause = min(self._pause * 2, LAST_PAUSE)

    def _try_again(self) -> None:
        self._retry = None
        self._go_on()

    def _overtaken(self, key: bytes) -> None:
        """Give up what was refused before something later on its key was taken: order goes before delivery."""
        self._refused_keys.discard(key)
        for publication in self._refused:
            if publication.key == key:
                publication.fail(Unavailable("Redis was busy, and took a later message first"))

    # ---- time

    def _expire(self) -> None:
        """Fail what waited too long. What is under way keeps its place: its answer may come yet, and keeps the order.

        All have the same timeout, so that those that end first stand first; nearly so after slots of a cluster moved.
        """
        self._expiry = None
        now = self._loop.time()
        error = f"Redis did not answer within {self._timeout:g} s"
        for waiting in (self._under_way, self._refused, self._waiting):
            for publication in waiting:
                if publication.deadline > now:
                    break
                publication.fail(Unavailable(error))
        while self._waiting and self._waiting[0].answer.done():
            self._waiting.popleft()
        oldest = [each.deadline for queue in (self._under_way, self._waiting) for each in queue if each.deadline > now]
        if oldest:
            self._expiry = self._loop.call_at(max(min(oldest), now + EXPIRY_STEP), self._expire)


def _teach(link: Link) -> None:
    """Give Redis the scripts, without waiting: what is sent behind them finds them there."""
    for script in SCRIPTS:
        link.send(_Ignored(), b"SCRIPT", b"LOAD", script.text)


class _Ignored:
    """Takes an answer that does not matter."""

    def done(self) -> bool:
        return True

    def set_result(self, value: object) -> None: ...

    def set_exception(self, error: Exception) -> None: ...
