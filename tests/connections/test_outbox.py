"""What waits for a slow reader: order, bound, and what is dropped first."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gateway.connections.outbox import Outbox, Sparable
from tests.harness import properties  # noqa: F401 (how examples are made)

GAP = b"<gap>"


def sparable(frame: bytes, key: str | None = None, channel: str = "lobby", gap: bytes = GAP) -> Sparable:
    return Sparable(frame, channel, key, gap)


def taken(outbox: Outbox) -> bytes:
    frames = b""
    while outbox:
        frames += outbox.take(1)
    return frames


class TestOrder:
    def test_frames_come_out_as_they_went_in(self) -> None:
        """Those that may be dropped among those that must arrive."""
        outbox = Outbox()
        outbox.put(b"1")
        outbox.put_sparable(sparable(b"2"))
        outbox.put(b"3")
        outbox.put_first(b"0")
        assert (outbox.size, taken(outbox), outbox.size) == (4, b"0123", 0)

    def test_as_much_is_taken_as_was_asked_for(self) -> None:
        """Whole frames only, and one at least."""
        outbox = Outbox()
        for frame in (b"aaaa", b"bb", b"cc", b"d"):
            outbox.put(frame)
        assert [outbox.take(3), outbox.take(4), outbox.take(100), outbox.take(1)] == [b"aaaa", b"bbcc", b"d", b""]


class TestDropping:
    def test_nothing_is_dropped_up_to_the_bound(self) -> None:
        """However much of it might be."""
        outbox = Outbox()
        for number in range(10):
            outbox.put_sparable(sparable(b"%d" % number))
        assert (outbox.shrink(10), taken(outbox)) == (0, b"0123456789")

    def test_the_oldest_goes_first_and_a_gap_stands_in_its_place(self) -> None:
        """One gap for all that is dropped there; what must arrive stays."""
        outbox = Outbox()
        outbox.put(b"[a]")
        for number in range(8):
            outbox.put_sparable(sparable(b"%d---" % number))
        outbox.put(b"[z]")
        assert outbox.shrink(20) == 6
        assert outbox.dropped == 6
        assert taken(outbox) == b"[a]<gap>6---7---[z]"

    def test_a_client_that_is_told_of_no_gaps_just_misses_messages(self) -> None:
        """The original's protocol has no word for it."""
        outbox = Outbox()
        for number in range(4):
            outbox.put_sparable(sparable(b"%d" % number, gap=b""))
        assert (outbox.shrink(2), taken(outbox)) == (2, b"23")

    def test_each_channel_is_told_of_its_gap(self) -> None:
        """And again when the gap was read and more is dropped later."""
        outbox = Outbox()
        for channel, number in itertools.product("ab", range(2)):
            outbox.put_sparable(sparable(b"%b%d   " % (channel.encode(), number), channel=channel))
        outbox.shrink(0)
        assert taken(outbox) == b"<gap><gap>"
        outbox.put_sparable(sparable(b"a2   ", channel="a"))
        outbox.shrink(0)
        assert taken(outbox) == b"<gap>"

    def test_only_what_a_newer_one_replaced_is_dropped_of_a_key(self) -> None:
        """The latest of each key stays, however old."""
        outbox = Outbox()
        for key, number in (("x", 1), ("y", 1), ("x", 2), ("z", 1), ("x", 3)):
            outbox.put_sparable(sparable(b"%b%d---" % (key.encode(), number), key))
        assert outbox.shrink(0) == 2
        assert taken(outbox) == b"<gap>y1---z1---x3---"

    def test_the_same_key_in_another_channel_is_another_one(self) -> None:
        """Channels do not replace each other's messages."""
        outbox = Outbox()
        outbox.put_sparable(sparable(b"1", "x", "a"))
        outbox.put_sparable(sparable(b"2", "x", "b"))
        assert (outbox.shrink(0), taken(outbox)) == (0, b"12")

    def test_what_was_taken_is_not_dropped_later(self) -> None:
        """A key whose latest has left starts anew."""
        outbox = Outbox()
        outbox.put_sparable(sparable(b"1", "x"))
        outbox.put_sparable(sparable(b"2"))
        assert outbox.take(2) == b"12"
        outbox.put_sparable(sparable(b"3", "x"))
        assert (outbox.shrink(0), taken(outbox)) == (0, b"3")

    @given(st.lists(st.tuples(st.sampled_from(["put", "oldest", "x", "y", "take"]), st.integers(1, 9)), max_size=60))
    def test_what_must_arrive_arrives_in_order_whatever_is_dropped(self, steps: list[tuple[str, int]]) -> None:
        """And the size is what waits; what may be dropped comes in order, too, and never twice."""
        outbox, put, sent, out = Outbox(), [], [], b""
        for number, (step, size) in enumerate(steps):
            frame = b"[%d]" % number
            if step == "take":
                out += outbox.take(size)
                continue
            if step == "put":
                outbox.put(frame)
                put.append(frame)
            else:
                outbox.put_sparable(sparable(frame, None if step == "oldest" else step, gap=b""))
            sent.append(frame)
            outbox.shrink(8)
        size = outbox.size
        rest = taken(outbox)
        assert size == len(rest)
        arrived = [part + b"]" for part in (out + rest).split(b"]")[:-1]]
        assert arrived == [frame for frame in sent if frame in arrived]
        assert [frame for frame in arrived if frame in put] == put
        assert len(arrived) + outbox.dropped == len(sent)

    def test_what_waits_stays_small_however_much_was_dropped(self) -> None:
        """A reader that never reads costs its bound, not what it missed."""
        outbox = Outbox()
        outbox.put(b"first")
        for number in range(20_000):
            outbox.put_sparable(sparable(b"%08d" % number))
            outbox.shrink(100)
        assert outbox.dropped >= 19_900
        assert len(outbox._waiting) + len(outbox._spare) < 50
