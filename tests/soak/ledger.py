"""What was written and what was heard, number by number: what is lost, double or out of order.

Plain rules over numbers, for runs of any length: only what is missing is kept one by one, and that only until it
is settled.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(eq=False)
class Stream:
    """What one writer wrote to one channel: the numbers from 1 on."""

    channel: str
    writer: str
    kept: bool
    """Whether the channel keeps history."""
    sent: int = 0
    unsure: set[int] = field(default_factory=set)
    """Numbers whose writer was not told that they were taken: they may come or not, early or late, once."""
    under_way: int = 0


@dataclass
class Verdict:
    """What became of the numbers of one stream at one listener, or of many, added up."""

    heard: int = 0
    lost_told: int = 0
    """Missing behind a `$gap` or the end of a connection."""
    lost_untold: int = 0
    doubled: int = 0
    reordered: int = 0

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(
            self.heard + other.heard,
            self.lost_told + other.lost_told,
            self.lost_untold + other.lost_untold,
            self.doubled + other.doubled,
            self.reordered + other.reordered,
        )


class Hearing:
    """What one listener has heard of one stream, from the first number written."""

    def __init__(self, stream: Stream, *, resumes: bool) -> None:
        self.stream = stream
        self.resumes = resumes
        """Whether nothing may be missing, whatever happened."""
        self.last = 0
        self._missing: dict[int, bool] = {}
        """Numbers that were passed over, and whether the listener could know."""
        self._late: set[int] = set()
        self._came_late: set[int] = set()
        self._settled = Verdict()
        self._wrong: list[str] = []

    def heard(self, number: int, *, excused: bool) -> None:
        """Take a number in; `excused` says that whatever is missing before it was told, or is no wonder."""
        self._settled.heard += 1
        if number > self.last:
            self._missing |= dict.fromkeys(range(self.last + 1, number), excused)
            self.last = number
        elif number in self._missing:
            del self._missing[number]
            self._late.add(number)
        else:
            self._settled.doubled += 1
            self._blame("doubled", number)

    def verdict(self) -> Verdict:
        """Judge what is certain by now; only while nothing of the stream is under way."""
        unsure = self.stream.unsure
        for number, told in list(self._missing.items()):
            if number not in unsure:
                self._lose(number, told=told)
        for number in self._late - self._came_late - unsure:
            self._settled.reordered += 1
            self._blame("out of order", number)
        self._came_late |= self._late
        return self._settled

    def end(self, *, excused: bool) -> None:
        """Miss all that should have come by now."""
        self._missing |= dict.fromkeys(range(self.last + 1, self.stream.sent + 1), excused)
        self.last = self.stream.sent

    def wrong(self) -> list[str]:
        """Return the first things that should not be, in words, each once."""
        told, self._wrong = self._wrong, []
        return told

    def _lose(self, number: int, *, told: bool) -> None:
        del self._missing[number]
        if told and not self.resumes:
            self._settled.lost_told += 1
            return
        if told:
            self._settled.lost_told += 1
        else:
            self._settled.lost_untold += 1
        self._blame("lost, told" if told else "lost, untold", number)

    def _blame(self, what: str, number: int) -> None:
        if len(self._wrong) < 5:
            self._wrong.append(f"{what}: {self.stream.channel} {self.stream.writer} {number}")
