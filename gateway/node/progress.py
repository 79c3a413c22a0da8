"""How far this node has passed on one channel's history: which messages are new, duplicates, or missing.

Plain rules. A channel with history that has members here has its progress; the subscription brings it messages
one by one, and pages read from history bring what the subscription did not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from gateway.backplane import Page
from gateway.protocol.envelope import Envelope
from gateway.protocol.message import Position

MOST_RECENT = 4096
"""Messages remembered while somebody reads; whoever needs an older one reads again. Four pages: a page takes
milliseconds, in which fewer arrive."""

REMEMBERED = 32
"""Positions passed on that are remembered, to find where history differs after Redis has lost some. A failover loses
what was not replicated yet, of one channel seldom more than that; `agreed` knows what to do if it was more."""


class Progress:
    """How far one channel's messages have come on their way to its members on this node."""

    def __init__(self) -> None:
        self.position: Position | None = None
        """Of the last message passed on; None until history was read for the first time."""
        self.torn = False
        """Whether messages are missing: what arrives is held back until a page has brought them."""
        self.losses = 0
        """How often the subscription was lost: a page that was asked for before does not mend that."""
        self.readers = 0
        """Members that are about to be let in, and need to know what arrives meanwhile."""
        self._recent: dict[tuple[str, int], Envelope] = {}
        self._passed: deque[Position] = deque(maxlen=REMEMBERED)

    def arrived(self, message: Envelope) -> bool:
        """Take what came over the subscription; tell whether to pass it on now."""
        at, here = _place(message), self.position
        if here is None:
            self._remember(message)
            return False
        if at.epoch == here.epoch and at.offset <= here.offset:
            # Later than what had its offset: Redis has lost that, and begun to count again. The page will show it.
            self.torn = self.torn or 0 < here.time < at.time
            return False
        if not self.torn and at.epoch == here.epoch and at.offset == here.offset + 1:
            self._pass(message)
            return True
        self.torn = True
        self._remember(message)
        return False

    def lose(self) -> None:
        """Note that messages may be missing."""
        self.torn = True
        self.losses += 1

    def passed_since(self, behind: Position) -> list[Envelope] | None:
        """Return what was passed on behind a position; None when that is not remembered."""
        here = self.position
        if here is None or behind.epoch != here.epoch or behind.offset > here.offset:
            return None
        if here.offset - behind.offset > len(self._recent):  # counted first: a client may name any position
            return None
        wanted = [(here.epoch, offset) for offset in range(behind.offset + 1, here.offset + 1)]
        return [self._recent[place] for place in wanted] if all(place in self._recent for place in wanted) else None

    def held(self) -> frozenset[tuple[str, int]]:
        """Return the places of what is held back, to know after a page was read what it should have had."""
        return frozenset(self._recent)

    def catch_up(
        self, page: Page, *, losses: int, held: frozenset[tuple[str, int]] = frozenset()
    ) -> tuple[list[Envelope], Position | None]:
        """Take a page that was read from the present position on, or from before it.

        `losses` is how many there had been when it was asked for, and `held` what was held back then. Returns what to
        pass on, and the position behind which messages are lost for good, if any are.
        """
        self._disown(page, held)
        gap, messages = None, list[Envelope]()
        here = self.position or _end(page)
        if here.offset == 0 and page.same:  # promised an epoch before the first message, which has another one
            here = here._replace(epoch=page.epoch)
        if here.epoch != page.epoch:
            self.torn = True
            if page.start and here.time and here.time == page.seen:
                # Renewed, and what was passed on here is still there; the page begins elsewhere.
                self.position = here._replace(epoch=page.epoch)
                return [], here
            gap, here = here, Position(page.epoch, page.start)
        for message in page.messages:
            at = _place(message)
            if at.offset <= here.offset:
                continue
            if at.offset != here.offset + 1:
                gap = gap or here
            here = at
            self._pass(message)
            messages.append(message)
        if not page.more and here.offset < page.offset:
            gap, here = gap or here, Position(page.epoch, page.offset)
        self.position = here
        messages += self._continued()
        self.torn = self.torn and (page.more or losses != self.losses or self._is_ahead())
        return messages, gap

    def agreed(self, page: Page) -> int:
        """Return the offset of the last message that is the same here and on a page."""
        theirs = {at.offset: at.time for at in map(_place, page.messages) if at.epoch == page.epoch}
        met = [at for at in self._passed if at.epoch == page.epoch and at.offset in theirs]
        if same := [at.offset for at in met if theirs[at.offset] == at.time]:
            return max(same)
        here = self.position or Position(page.epoch, 0)
        if not theirs:
            return min(here.offset, page.offset)
        # Others have taken all the offsets that are remembered here, or there are fewer: Redis has lost all of it.
        # Of what stands before, what is later than anything passed on was written after the loss.
        end = min((at.offset for at in met), default=page.offset + 1)
        older = (offset for offset, time in theirs.items() if offset < end and time <= here.time)
        return max(older, default=min(theirs) - 1)

    def settle(self) -> None:
        """Forget what nobody needs any more."""
        if not self.torn and not self.readers:
            self._recent.clear()

    def _continued(self) -> Iterator[Envelope]:
        """Pass on what was held back and is next."""
        while self.position and (held := self._recent.get((self.position.epoch, self.position.offset + 1))):
            self._pass(held)
            yield held

    def _disown(self, page: Page, held: frozenset[tuple[str, int]]) -> None:
        """Forget what came before the page was asked for and lies beyond its end: no node has written that.

        A message is in the stream before it is published. Waited for, it would be read for again and again.
        """
        for epoch, offset in held:
            if epoch == page.epoch and offset > page.offset:
                self._recent.pop((epoch, offset), None)

    def _is_ahead(self) -> bool:
        """Tell whether anything is held back behind a hole."""
        here = self.position
        return here is not None and any(epoch == here.epoch and offset > here.offset for epoch, offset in self._recent)

    def _pass(self, message: Envelope) -> None:
        self.position = _place(message)
        self._passed.append(self.position)
        if self.readers:
            self._remember(message)

    def _remember(self, message: Envelope) -> None:
        epoch, offset, _ = _place(message)
        self._recent[epoch, offset] = message
        if len(self._recent) > MOST_RECENT:
            del self._recent[next(iter(self._recent))]


def _place(message: Envelope) -> Position:
    assert message.position is not None
    return message.position


def _end(page: Page) -> Position:
    """Return where history ends, with the time of the last message if that is on the page."""
    last = _place(page.messages[-1]) if page.messages else None
    return last if last and last.offset == page.offset else Position(page.epoch, page.offset)


def contradicts(page: Page, known: Position) -> bool:
    """Tell whether a page shows that Redis has lost messages that this node knows.

    A failover may lose the newest ones; their offsets are given out again, in the same epoch.
    """
    if page.epoch != known.epoch:
        return False
    return page.offset < known.offset or (known.time > 0 and page.seen not in (None, known.time))
