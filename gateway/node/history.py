"""Recovery for channels that keep history: a member that resumes, and a node after an outage, miss nothing.

What cannot be had any more is told as a `$gap`.

For each such channel with members here its progress tells what this node has passed on. What reads history
(a member who comes back, a hole in what arrives, the end of an outage) moves that first; after the last
look at it everything happens in one step, without waiting, so that live messages continue exactly behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import islice

from gateway.backplane import Backplane, Page
from gateway.backplane.inflight import InFlight
from gateway.config import Rule
from gateway.connections.budget import Budget
from gateway.connections.connection import Connection
from gateway.connections.counters import Counters
from gateway.connections.fanout import write
from gateway.connections.hub import Hub
from gateway.errors import Unavailable
from gateway.node.delivery import Delivery
from gateway.node.progress import REMEMBERED, Progress, contradicts
from gateway.protocol.envelope import Envelope
from gateway.protocol.message import Position

PAGE = 1000
"""Messages in one read: Redis, which does nothing else meanwhile, takes a few milliseconds for them."""
MOST_BYTES = 256 * 1024
"""Of messages in one answer: a client reads on behind the last one it got. A quarter of the outbox of a client, which
is closed when more waits for it than it takes."""
AT_ONCE = 200
"""Channels that are re-read at the same time: after an outage all are, and live messages come over the same Redis."""
RETRY = 0.5
"""Seconds between tries at a re-read while Redis is away: it may come back at any time, and members wait."""


class History:
    """The progress of this node's channels."""

    def __init__(
        self,
        hub: Hub,
        backplane: Backplane,
        delivery: Delivery,
        rule: Callable[[str], Rule],
        counters: Counters,
        budget: Budget | None = None,
    ) -> None:
        self._hub = hub
        self._backplane = backplane
        self._delivery = delivery
        self._rule = rule
        self._counters = counters
        self._budget = budget
        """What members are charged to for what they had missed."""
        self._reads = InFlight[Page]()
        self._progress: dict[str, Progress] = {}
        self._torn: dict[str, None] = {}
        """Channels to be re-read."""
        self._tear = asyncio.Event()

    async def run(self) -> None:
        """Re-read what is torn, until cancelled."""
        try:
            await self._mend_all()
        finally:
            await self._reads.close()

    async def _mend_all(self) -> None:
        while await self._tear.wait():
            # What tears from here on is for the next round, the same channel once more if need be: a page that was
            # asked for before a loss does not mend it.
            self._tear.clear()
            torn, self._torn = iter(self._torn), {}
            failed: list[str] = []
            while channels := list(islice(torn, AT_ONCE)):
                mended = await asyncio.gather(*map(self._mend, channels))
                failed += [channel for channel, done in zip(channels, mended, strict=True) if not done]
            if failed:
                await asyncio.sleep(RETRY)
                for channel in failed:
                    self._mend_soon(channel)

    # ---- what the backplane tells

    def arrived(self, channel: str, message: Envelope) -> bool:
        """Take a message that is kept; tell whether to pass it on now."""
        progress = self._progress.get(channel)
        if progress is None:  # no member has come as far as `enter`, so there is none that receives
            return True
        passed = progress.arrived(message)
        if progress.torn:
            self._mend_soon(channel)
        return passed

    def lost(self, channel: str) -> None:
        """Hear that messages to a channel may have been missed: re-read it, or tell its members."""
        progress = self._progress.get(channel)
        if progress is not None:
            progress.lose()
            self._mend_soon(channel)
        elif self._delivery.tell(channel, "$gap", {}):
            self._counters.gaps_told += 1

    # ---- what members want

    def keeps(self, channel: str) -> bool:
        return self._rule(channel).history > 0

    def position(self, channel: str) -> Position | None:
        """Return the position of the last message that members here are written, or will be in a moment."""
        progress = self._progress.get(channel)
        return None if progress is None else progress.position

    def epoch(self, channel: str) -> str:
        """Return the epoch of the messages that members here were written, "" where there were none."""
        at = self.position(channel)
        return at.epoch if at is not None and at.offset else ""

    async def reached(self, channel: str) -> Position | None:
        """Return that position once the message is written."""
        if (position := self.position(channel)) is not None:
            await self._delivery.written(channel)
        return position

    async def enter(self, connection: Connection, channel: str, since: Position | None) -> bool:
        """Write to a member what it missed, and let it receive what follows; the channel is subscribed already.

        Returns whether that was all it missed. Raises `Unavailable`.
        """
        progress = self._progress.setdefault(channel, Progress())
        progress.readers += 1
        try:
            missed = await self._missed(channel, progress, since)
            # Nothing is awaited from here on: what arrives next is the first live message. Whoever was taken out
            # meanwhile does not read any more, though others may keep the progress.
            if self._progress.get(channel) is progress and channel in connection.channels:
                write(connection, missed or ())
                self._hub.receive(connection, channel)
                if self._budget is not None:
                    self._budget.answered(connection, sum(len(message.payload) for message in missed or ()))
                self._counters.recovered += len(missed or ())
        finally:
            progress.readers -= 1
            progress.settle()
            if progress.torn:
                self._mend_soon(channel)
        return missed is not None

    def forget(self, channel: str) -> None:
        """Drop the progress of a channel that has no member here any more.

        Whoever is still reading for it sees that it is no longer the channel's, even if the channel has another one.
        """
        self._progress.pop(channel, None)

    # ---- reading

    async def reply(self, channel: str, since: Position | None, limit: int) -> Page:
        """Read what answers one request: the newest messages, or the first after a position, as far as they fit."""
        limit = min(limit, PAGE)
        read = partial(self._backplane.read, channel, after=since, limit=limit, size=MOST_BYTES)
        return await self._reads.ask((channel, since, limit, MOST_BYTES), read)

    async def _missed(self, channel: str, progress: Progress, since: Position | None) -> list[Envelope] | None:
        """Return all that was passed on here behind a position; None when that cannot be had any more."""
        missed: list[Envelope] = []
        sure_of_epoch = sure_of_name = False
        while True:
            # While a page is read the progress moves, by live messages and by what others read. So each round looks at
            # it anew, and the last one returns what it remembers without waiting: what arrives next is live.
            if progress.position is not None:
                if since is None:
                    return None
                # Before a page was read another epoch proves nothing: the client may know by another node of a new
                # one, of which nothing has arrived here yet.
                if since.epoch != progress.position.epoch and sure_of_epoch:
                    # Once: where the epoch that the progress had then ends as well, it is a gap, as for all members.
                    if sure_of_name or not await self._is_promised(channel, progress, since):
                        return None
                    since, sure_of_name = since._replace(epoch=progress.position.epoch), True
                if (passed := progress.passed_since(since)) is not None:
                    return missed + passed
            page = await self._read(channel, progress, since)
            sure_of_epoch = True
            if since is None or page.epoch != since.epoch:
                continue  # it was for the progress alone
            found = _after(page, since)
            if found is None:
                return None
            missed += found
            since = found[-1].position if found else since

    async def _is_promised(self, channel: str, progress: Progress, since: Position) -> bool:
        """Tell whether a position is one of this history, under an epoch that was promised before the first message.

        Other nodes may have promised another one than the history has, or than we did.
        """
        page = await self._page(channel, since, None)
        # The history may have begun, or been renewed, since the progress was looked at: what the page says holds for
        # that only if both are of one epoch, or nothing was written by then.
        here = progress.position
        return page.same and (page.offset == 0 or (here is not None and page.epoch == here.epoch))

    async def _read(self, channel: str, progress: Progress, after: Position | None) -> Page:
        """Read a page after a position, or from where this node is if that comes before; catch up with it."""
        # Noted before the read: of what is lost or arrives during it, the page may say nothing.
        known, losses, held = progress.position, progress.losses, progress.held()
        if known is not None and (after is None or after.epoch != known.epoch or after.offset > known.offset):
            after = known
        page = await self._page(channel, after, known)
        if known is not None and contradicts(page, known):
            # Other nodes find the same, and do the same: the first one ends the epoch, the others read its new one.
            await self._renew(channel, progress, known, page.offset)
            page = await self._page(channel, after, known)
        if _is_apt(
            progress, known
        ):  # another read may have moved it into another epoch, of which this page says nothing
            self._catch_up(channel, progress, page, losses, held)
        return page

    def _catch_up(
        self, channel: str, progress: Progress, page: Page, losses: int, held: frozenset[tuple[str, int]]
    ) -> None:
        messages, gap = progress.catch_up(page, losses=losses, held=held)
        if gap is not None:
            self._tell(channel, page.epoch, gap)
        self._delivery.write_channel(channel, messages)
        self._counters.recovered += len(messages)

    async def _page(self, channel: str, after: Position | None, known: Position | None) -> Page:
        seen, limit = known.offset if known else 0, PAGE if after else 1
        read = partial(self._backplane.read, channel, after=after, limit=limit, seen=seen)
        return await self._reads.ask((channel, after, limit, seen), read)

    async def _renew(self, channel: str, progress: Progress, known: Position, end: int) -> None:
        """Begin a new epoch behind the last message that was passed on and is still there, of `end` in all."""
        behind = Position(known.epoch, max(0, min(known.offset, end) - REMEMBERED))
        tail = await self._backplane.read(channel, after=behind, limit=REMEMBERED)
        await self._backplane.renew(channel, known.epoch, progress.agreed(tail))

    def _tell(self, channel: str, epoch: str, since: Position) -> None:
        param = {"epoch": epoch, "since": {"epoch": since.epoch, "offset": since.offset}}
        if self._delivery.tell(channel, "$gap", param):
            self._counters.gaps_told += 1

    # ---- mending

    def _mend_soon(self, channel: str) -> None:
        self._torn[channel] = None
        self._tear.set()

    async def _mend(self, channel: str) -> bool:
        """Re-read a channel until nothing is missing; tell whether Redis answered."""
        progress = self._progress.get(channel)
        try:
            # Looked at again after each read: all members may have left, and others come, who have another progress.
            while progress is not None and progress.torn and self._progress.get(channel) is progress:
                self._counters.rereads += 1
                await self._read(channel, progress, progress.position)
                progress.settle()
        except Unavailable:
            return False
        return True


def _is_apt(progress: Progress, known: Position | None) -> bool:
    """Tell whether a page that was asked for at a position begins no later than where the progress is now."""
    here = progress.position
    return here is None or (known is not None and known.epoch == here.epoch)


def _after(page: Page, since: Position) -> list[Envelope] | None:
    """Return a page's messages behind a position; None when the first ones, or all, are lost."""
    found = [message for message in page.messages if message.position and message.position.offset > since.offset]
    offsets = [message.position.offset for message in found if message.position]
    end = offsets[-1] if page.more and offsets else page.offset
    if len(offsets) != end - since.offset:  # counted first: millions may lie between
        return None
    return found if offsets == list(range(since.offset + 1, end + 1)) else None
