"""How far a node has come in a channel's history: plain rules."""

from __future__ import annotations

from gateway.backplane import Page
from gateway.node.progress import MOST_RECENT, Progress, contradicts
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope
from gateway.protocol.message import Position


def message(offset: int, epoch: str = "e") -> Envelope:
    return Envelope(codec.encode("n", offset, "lobby"), position=Position(epoch, offset, 1000 + offset))


def page(
    end: int, *offsets: int, epoch: str = "e", start: int = 0, seen: int | None = None, more: bool = False
) -> Page:
    return Page(epoch, end, start, seen, [message(offset, epoch) for offset in offsets], more)


def progress_at(offset: int, epoch: str = "e") -> Progress:
    progress = Progress()
    progress.catch_up(page(offset, offset, epoch=epoch), losses=0)
    return progress


def offsets(messages: list[Envelope] | None) -> list[int] | None:
    return None if messages is None else [m.position.offset for m in messages if m.position]


class TestArrivals:
    def test_the_next_message_is_passed_on(self) -> None:
        """And moves the position, time included."""
        progress = progress_at(5)
        assert progress.arrived(message(6))
        assert progress.position == Position("e", 6, 1006)

    def test_what_was_passed_on_is_skipped(self) -> None:
        """A page may have been quicker than the subscription."""
        progress = progress_at(5)
        assert not progress.arrived(message(5))
        assert (progress.position, progress.torn) == (Position("e", 5, 1005), False)

    def test_an_offset_that_is_given_out_again_tears_the_track(self) -> None:
        """What had it is older: Redis has lost that, and the page will show it."""
        progress = progress_at(5)
        assert not progress.arrived(message(3)._replace(position=Position("e", 3, 2000)))
        assert (progress.position, progress.torn) == (Position("e", 5, 1005), True)

    def test_a_hole_tears_the_track(self) -> None:
        """What arrives behind it waits, however contiguous that is."""
        progress = progress_at(5)
        assert [progress.arrived(message(offset)) for offset in (7, 8, 6)] == [False] * 3
        assert progress.torn

    def test_another_epoch_tears_the_track(self) -> None:
        """Nobody knows what was before it."""
        progress = progress_at(5)
        assert not progress.arrived(message(6, "f"))
        assert progress.torn

    def test_nothing_is_passed_on_before_history_was_read(self) -> None:
        """It is remembered: the page may end before it."""
        progress = Progress()
        progress.readers = 1
        assert [progress.arrived(message(offset)) for offset in (6, 7)] == [False, False]
        messages, gap = progress.catch_up(page(6, 6), losses=0)
        assert (offsets(messages), gap, progress.position) == ([7], None, Position("e", 7, 1007))


class TestPages:
    def test_a_history_begins_in_another_epoch_than_was_promised(self) -> None:
        """Nothing was missed where the page says that it is the same history; else that is not known."""
        for same, gap_expected in ((True, None), (False, Position("p", 0))):
            progress = Progress()
            progress.catch_up(page(0, epoch="p"), losses=0)
            assert not progress.arrived(message(1))
            messages, gap = progress.catch_up(page(2, 1, 2)._replace(same=same), losses=0)
            assert (offsets(messages), gap, progress.position) == ([1, 2], gap_expected, Position("e", 2, 1002))

    def test_a_page_mends_a_hole(self) -> None:
        """What was held back follows, and live messages go on behind it."""
        progress = progress_at(5)
        for offset in (8, 9):
            progress.arrived(message(offset))
        messages, gap = progress.catch_up(page(8, 6, 7, 8), losses=0)
        assert (offsets(messages), gap, progress.torn) == ([6, 7, 8, 9], None, False)
        assert progress.arrived(message(10))

    def test_a_page_with_more_behind_it_leaves_the_track_torn(self) -> None:
        """The rest is read next."""
        progress = progress_at(5)
        progress.lose()
        messages, gap = progress.catch_up(page(9, 6, 7, more=True), losses=progress.losses)
        assert (offsets(messages), gap, progress.torn) == ([6, 7], None, True)
        messages, gap = progress.catch_up(page(9, 8, 9), losses=progress.losses)
        assert (offsets(messages), gap, progress.torn) == ([8, 9], None, False)

    def test_a_page_from_before_a_loss_does_not_mend_it(self) -> None:
        """What was written after it was read may be missing all the same."""
        progress = progress_at(5)
        asked = progress.losses
        progress.lose()
        progress.catch_up(page(5), losses=asked)
        assert progress.torn
        progress.catch_up(page(5), losses=progress.losses)
        assert not progress.torn

    def test_a_page_that_overlaps_doubles_nothing(self) -> None:
        """It may begin before the position, and end before it."""
        progress = progress_at(5)
        assert progress.catch_up(page(5, 3, 4, 5), losses=0) == ([], None)
        assert offsets(progress.catch_up(page(6, 4, 5, 6), losses=0)[0]) == [6]

    def test_what_was_trimmed_is_a_gap(self) -> None:
        """Behind the last message passed on; the rest is passed on."""
        progress = progress_at(5)
        progress.lose()
        messages, gap = progress.catch_up(page(9, 8, 9), losses=progress.losses)
        assert (offsets(messages), gap, progress.torn) == ([8, 9], Position("e", 5, 1005), False)

    def test_what_expired_is_a_gap(self) -> None:
        """Offsets outlive the messages."""
        progress = progress_at(5)
        progress.lose()
        assert progress.catch_up(page(9), losses=progress.losses) == ([], Position("e", 5, 1005))
        assert progress.arrived(message(10))

    def test_what_was_removed_by_hand_is_a_gap(self) -> None:
        """In the middle and at the end."""
        progress = progress_at(5)
        messages, gap = progress.catch_up(page(9, 6, 8), losses=0)
        assert (offsets(messages), gap and gap.offset, progress.position) == ([6, 8], 6, Position("e", 9))

    def test_a_new_epoch_is_a_gap_and_is_passed_on_from_its_start(self) -> None:
        """Its messages cannot have come here before."""
        progress = progress_at(5)
        messages, gap = progress.catch_up(page(2, 1, 2, epoch="f"), losses=0)
        assert (offsets(messages), gap, progress.position) == ([1, 2], Position("e", 5, 1005), Position("f", 2, 1002))
        assert not progress.torn

    def test_a_new_epoch_that_goes_on_counting_doubles_nothing(self) -> None:
        """What is kept from before its start was passed on in the epoch before."""
        progress = progress_at(5)
        messages, gap = progress.catch_up(page(6, 6, epoch="f", start=5), losses=0)
        assert (offsets(messages), gap and gap.offset, progress.torn) == ([6], 5, False)


class TestMemory:
    def test_what_passes_while_somebody_reads_is_remembered(self) -> None:
        """Whatever way it came."""
        progress = progress_at(5)
        progress.readers = 1
        progress.arrived(message(6))
        progress.catch_up(page(7, 7), losses=0)
        assert offsets(progress.passed_since(Position("e", 5))) == [6, 7]
        assert offsets(progress.passed_since(Position("e", 7))) == []

    def test_a_position_from_long_ago_costs_nothing(self) -> None:
        """It is counted how much came since, not gone through: clients may name any position."""
        assert progress_at(10**15).passed_since(Position("e", 0)) is None

    def test_what_is_not_remembered_is_not_guessed(self) -> None:
        """Older than the memory, ahead of the position, of another epoch."""
        progress = progress_at(5)
        progress.readers = 1
        progress.arrived(message(6))
        assert [progress.passed_since(Position(*at)) for at in (("e", 4), ("e", 7), ("f", 5))] == [None] * 3

    def test_memory_ends_with_the_last_reader(self) -> None:
        """Nobody else needs it."""
        progress = progress_at(5)
        progress.readers = 1
        progress.arrived(message(6))
        progress.readers = 0
        progress.settle()
        assert progress.passed_since(Position("e", 5)) is None

    def test_memory_is_bounded(self) -> None:
        """Whoever needs more reads again."""
        progress = progress_at(0)
        progress.readers = 1
        for offset in range(1, MOST_RECENT + 11):
            progress.arrived(message(offset))
        assert progress.passed_since(Position("e", 9)) is None
        assert len(progress.passed_since(Position("e", 10)) or ()) == MOST_RECENT


def test_an_epoch_that_only_got_another_name_loses_nothing() -> None:
    """Where the last message passed on is still there, the progress goes on behind it."""
    progress = progress_at(5)
    messages, gap = progress.catch_up(page(9, 8, 9, epoch="f", start=7, seen=1005), losses=0)
    assert (messages, gap) == ([], Position("e", 5, 1005))
    assert (progress.position, progress.torn) == (Position("f", 5, 1005), True)
    messages, gap = progress.catch_up(page(9, 6, 7, 8, 9, epoch="f", start=7), losses=0)
    assert (offsets(messages), gap, progress.torn) == ([6, 7, 8, 9], None, False)


def test_the_last_message_that_is_still_the_same_is_found() -> None:
    """What came behind it took the offsets of lost ones."""
    progress = progress_at(2)
    for offset in (3, 4, 5):
        progress.arrived(message(offset))
    others = [Envelope(b"{}", position=Position("e", offset, 2000 + offset)) for offset in (4, 5, 6)]
    assert progress.agreed(Page("e", 6, 0, None, [message(3), *others], False)) == 3
    assert progress.agreed(Page("e", 3, 0, None, [message(3)], False)) == 3
    assert progress.agreed(Page("e", 6, 0, None, others, False)) == 3
    assert progress.agreed(Page("e", 6, 0, None, [], False)) == 5


def test_after_the_loss_of_everything_nothing_is_the_same() -> None:
    """Whether the new history overlaps with what is remembered or ends before it."""
    progress = progress_at(0)
    for offset in range(1, 41):
        progress.arrived(message(offset))
    for count in (1, 5, 20, 40, 60):
        others = [Envelope(b"{}", position=Position("e", offset, 9000 + offset)) for offset in range(1, count + 1)]
        behind = max(0, min(40, count) - 32)
        assert progress.agreed(Page("e", count, 0, None, others[behind : behind + 32], False)) <= behind
    assert progress.agreed(Page("e", 5, 0, None, [message(offset) for offset in range(1, 6)], False)) == 5


def test_lost_writes_are_seen() -> None:
    """Fewer messages than this node knows, or another one at the offset it knows."""
    known = Position("e", 5, 1005)
    assert contradicts(page(4), known)
    assert contradicts(page(9, seen=7), known)
    assert not contradicts(page(9, seen=1005), known)
    assert not contradicts(page(9, seen=None), known)
    assert not contradicts(page(9, seen=7), Position("e", 5))
    assert not contradicts(page(1, epoch="f", seen=7), known)
