"""What a node counts: each end once, and what it says about it from that alone."""

from __future__ import annotations

import pytest

from gateway.connections.counters import Counters
from gateway.errors import CLOSES, NO_PONG, TOO_SLOW, Close
from gateway.protocol.frames import close_of


@pytest.mark.parametrize("close", [*CLOSES, Close(1000), Close(1005), Close(1006)], ids=lambda close: close.code)
def test_an_end_is_counted_by_its_code(close: Close) -> None:
    """Once, from which all other figures follow."""
    counters = Counters(opened=1)
    assert (counters.transports, counters.closed) == (1, 0)
    counters.count(close)
    assert counters.closes == {close.code: 1}
    assert (counters.transports, counters.closed) == (0, 1)
    assert (counters.slow, counters.no_pong) == (close.code == TOO_SLOW.code, close.code == NO_PONG.code)


@pytest.mark.parametrize("code", [3000, 4000, 4008, 4401, 4408, 4410, 4999])
def test_what_a_client_makes_up_is_counted_as_such(code: int) -> None:
    """Also where it is a code of the gateway's own: a client cannot have missed its own pong."""
    counters = Counters()
    counters.count(close_of(code.to_bytes(2, "big")))
    assert counters.closes == {0: 1}
    assert (counters.closed, counters.slow, counters.no_pong) == (1, 0, 0)


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe9bye", b"\x03\xf0"])
def test_the_codes_of_the_protocol_are_its_own(payload: bytes) -> None:
    counters = Counters()
    counters.count(close_of(payload))
    assert counters.closes == {close_of(payload).code: 1}


def test_codes_of_applications_are_counted_together() -> None:
    """They are no label: there may be a thousand of them."""
    counters = Counters()
    for code in (3000, 4000, 4499):
        counters.count(Close(code))
    assert counters.closes == {0: 3}
