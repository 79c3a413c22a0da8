"""How far a node has come in a channel's history: plain rules."""

from __future__ import annotations

from gateway.backplane import Page
from gateway.node.progress import MOST_RECENT, Track, contradicts
from gateway.protocol import codec
from gateway.protocol.envelope import Envelope
from gateway.protocol.message import Position


def message(offset: int, epoch: str = "e") -> Envelope:
    return Envelope(codec.encode("n", offset, "lobby"), position=Position(epoch, offset, 1000 + offset))


def page(
    end: int, *offsets: int, epoch: str = "e", start: int = 0, seen: int | None = None, more: bool = False
) -> Page:
    return Page(epoch, end, start, seen, [message(offset, epoch) for offset in offsets], more)


def track_at(offset: int, epoch: str = "e") -> Track:
    track = Track()
    track.catch_up(page(offset, offset, epoch=epoch), losses=0)
    return track


def offsets(messages: list[Envelope] | None) -> list[int] | None:
    return None if messages is None else [m.position.offset for m in messages if m.position]


class TestArrivals:
    def test_the_next_message_is_passed_on(self) -> None:
        """And moves the position, time included."""
        track = track_at(5)
        assert track.arrived(message(6))
        assert track.position == Position("e", 6, 1006)

    def test_what_was_passed_on_is_skipped(self) -> None:
        """A page may have been quicker than the subscription."""
        track = track_at(5)
        assert not track.arrived(message(5))
        assert (track.position, track.torn) == (Position("e", 5, 1005), False)

    def test_an_offset_that_is_given_out_again_tears_the_track(self) -> None:
        """What had it is older: Redis has lost that, and the page will show it."""
        track = track_at(5)
        assert not track.arrived(message(3)._replace(position=Position("e", 3, 2000)))
        assert (track.position, track.torn) == (Position("e", 5, 1005), True)

    def test_a_hole_tears_the_track(self) -> None:
        """What arrives behind it waits, however contiguous that is."""
        track = track_at(5)
        assert [track.arrived(message(offset)) for offset in (7, 8, 6)] == [False] * 3
        assert track.torn

    def test_another_epoch_tears_the_track(self) -> None:
        """Nobody knows what was before it."""
        track = track_at(5)
        assert not track.arrived(message(6, "f"))
        assert track.torn

    def test_nothing_is_passed_on_before_history_was_read(self) -> None:
        """It is remembered: the page may end before it."""
        track = Track()
        track.readers = 1
        assert [track.arrived(message(offset)) for offset in (6, 7)] == [False, False]
        messages, gap = track.catch_up(page(6, 6), losses=0)
        assert (offsets(messages), gap, track.position) == ([7], None, Position("e", 7, 1007))


class TestPages:
    def test_a_history_begins_in_another_epoch_than_was_promised(self) -> None:
        """Nothing was missed where the page says that it is the same history; else that is not known."""
        for same, gap_expected in ((True, None), (False, Position("p", 0))):
            track = Track()
            track.catch_up(page(0, epoch="p"), losses=0)
            assert not track.arrived(message(1))
            messages, gap = track.catch_up(page(2, 1, 2)._replace(same=same), losses=0)
            assert (offsets(messages), gap, track.position) == ([1, 2], gap_expected, Position("e", 2, 1002))

    def test_a_page_mends_a_hole(self) -> None:
        """What was held back follows, and live messages go on behind it."""
        track = track_at(5)
        for offset in (8, 9):
            track.arrived(message(offset))
        messages, gap = track.catch_up(page(8, 6, 7, 8), losses=0)
        assert (offsets(messages), gap, track.torn) == ([6, 7, 8, 9], None, False)
        assert track.arrived(message(10))

    def test_a_page_with_more_behind_it_leaves_the_track_torn(self) -> None:
        """The rest is read next."""
        track = track_at(5)
        track.lose()
        messages, gap = track.catch_up(page(9, 6, 7, more=True), losses=track.losses)
        assert (offsets(messages), gap, track.torn) == ([6, 7], None, True)
        messages, gap = track.catch_up(page(9, 8, 9), losses=track.losses)
        assert (offsets(messages), gap, track.torn) == ([8, 9], None, False)

    def test_a_page_from_before_a_loss_does_not_mend_it(self) -> None:
        """What was written after it was read may be missing all the same."""
        track = track_at(5)
        asked = track.losses
        track.lose()
        track.catch_up(page(5), losses=asked)
        assert track.torn
        track.catch_up(page(5), losses=track.losses)
        assert not track.torn

    def test_a_page_that_overlaps_doubles_nothing(self) -> None:
        """It may begin before the position, and end before it."""
        track = track_at(5)
        assert track.catch_up(page(5, 3, 4, 5), losses=0) == ([], None)
        assert offsets(track.catch_up(page(6, 4, 5, 6), losses=0)[0]) == [6]

    def test_what_was_trimmed_is_a_gap(self) -> None:
        """Behind the last message passed on; the rest is passed on."""
        track = track_at(5)
        track.lose()
        messages, gap = track.catch_up(page(9, 8, 9), losses=track.losses)
        assert (offsets(messages), gap, track.torn) == ([8, 9], Position("e", 5, 1005), False)

    def test_what_expired_is_a_gap(self) -> None:
        """Offsets outlive the messages."""
        track = track_at(5)
        track.lose()
        assert track.catch_up(page(9), losses=track.losses) == ([], Position("e", 5, 1005))
        assert track.arrived(message(10))

    def test_what_was_removed_by_hand_is_a_gap(self) -> None:
        """In the middle and at the end."""
        track = track_at(5)
        messages, gap = track.catch_up(page(9, 6, 8), losses=0)
        assert (offsets(messages), gap and gap.offset, track.position) == ([6, 8], 6, Position("e", 9))

    def test_a_new_epoch_is_a_gap_and_is_passed_on_from_its_start(self) -> None:
        """Its messages cannot have come here before."""
        track = track_at(5)
        messages, gap = track.catch_up(page(2, 1, 2, epoch="f"), losses=0)
        assert (offsets(messages), gap, track.position) == ([1, 2], Position("e", 5, 1005), Position("f", 2, 1002))
        assert not track.torn

    def test_a_new_epoch_that_goes_on_counting_doubles_nothing(self) -> None:
        """What is kept from before its start was passed on in the epoch before."""
        track = track_at(5)
        messages, gap = track.catch_up(page(6, 6, epoch="f", start=5), losses=0)
        assert (offsets(messages), gap and gap.offset, track.torn) == ([6], 5, False)


class TestMemory:
    def test_what_passes_while_somebody_reads_is_remembered(self) -> None:
        """Whatever way it came."""
        track = track_at(5)
        track.readers = 1
        track.arrived(message(6))
        track.catch_up(page(7, 7), losses=0)
        assert offsets(track.passed_since(Position("e", 5))) == [6, 7]
        assert offsets(track.passed_since(Position("e", 7))) == []

    def test_a_position_from_long_ago_costs_nothing(self) -> None:
        """It is counted how much came since, not gone through: clients may name any position."""
        assert track_at(10**15).passed_since(Position("e", 0)) is None

    def test_what_is_not_remembered_is_not_guessed(self) -> None:
        """Older than the memory, ahead of the position, of another epoch."""
        track = track_at(5)
        track.readers = 1
        track.arrived(message(6))
        assert [track.passed_since(Position(*at)) for at in (("e", 4), ("e", 7), ("f", 5))] == [None] * 3

    def test_memory_ends_with_the_last_reader(self) -> None:
        """Nobody else needs it."""
        track = track_at(5)
        track.readers = 1
        track.arrived(message(6))
        track.readers = 0
        track.settle()
        assert track.passed_since(Position("e", 5)) is None

    def test_memory_is_bounded(self) -> None:
        """Whoever needs more reads again."""
        track = track_at(0)
        track.readers = 1
        for offset in range(1, MOST_RECENT + 11):
            track.arrived(message(offset))
        assert track.passed_since(Position("e", 9)) is None
        assert len(track.passed_since(Position("e", 10)) or ()) == MOST_RECENT


def test_an_epoch_that_only_got_another_name_loses_nothing() -> None:
    """Where the last message passed on is still there, the track goes on behind it."""
    track = track_at(5)
    messages, gap = track.catch_up(page(9, 8, 9, epoch="f", start=7, seen=1005), losses=0)
    assert (messages, gap, track.position, track.torn) == ([], Position("e", 5, 1005), Position("f", 5, 1005), True)
    messages, gap = track.catch_up(page(9, 6, 7, 8, 9, epoch="f", start=7), losses=0)
    assert (offsets(messages), gap, track.torn) == ([6, 7, 8, 9], None, False)


def test_the_last_message_that_is_still_the_same_is_found() -> None:
    """What came behind it took the offsets of lost ones."""
    track = track_at(2)
    for offset in (3, 4, 5):
        track.arrived(message(offset))
    others = [Envelope(b"{}", position=Position("e", offset, 2000 + offset)) for offset in (4, 5, 6)]
    assert track.agreed(Page("e", 6, 0, None, [message(3), *others], False)) == 3
    assert track.agreed(Page("e", 3, 0, None, [message(3)], False)) == 3
    assert track.agreed(Page("e", 6, 0, None, others, False)) == 3
    assert track.agreed(Page("e", 6, 0, None, [], False)) == 5


def test_after_the_loss_of_everything_nothing_is_the_same() -> None:
    """Whether the new history overlaps with what is remembered or ends before it."""
    track = track_at(0)
    for offset in range(1, 41):
        track.arrived(message(offset))
    for count in (1, 5, 20, 40, 60):
        others = [Envelope(b"{}", position=Position("e", offset, 9000 + offset)) for offset in range(1, count + 1)]
        behind = max(0, min(40, count) - 32)
        assert track.agreed(Page("e", count, 0, None, others[behind : behind + 32], False)) <= behind
    assert track.agreed(Page("e", 5, 0, None, [message(offset) for offset in range(1, 6)], False)) == 5


def test_lost_writes_are_seen() -> None:
    """Fewer messages than this node knows, or another one at the offset it knows."""
    known = Position("e", 5, 1005)
    assert contradicts(page(4), known)
    assert contradicts(page(9, seen=7), known)
    assert not contradicts(page(9, seen=1005), known)
    assert not contradicts(page(9, seen=None), known)
    assert not contradicts(page(9, seen=7), Position("e", 5))
    assert not contradicts(page(1, epoch="f", seen=7), known)
