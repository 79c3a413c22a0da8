"""Slots of a Redis Cluster, and a hash tag for each: with it any key can be put beside those of a channel."""

from __future__ import annotations

from binascii import crc_hqx
from functools import cache
from itertools import count

SLOTS = 16384

_TAILS = {crc_hqx(b"%03d" % tail, 0) % SLOTS: tail for tail in range(1000)}


@cache
def tag_in(slot: int) -> str:
    """Return a hash tag in a slot, of digits only; the same on every node, since they share such keys."""
    # A slot is the CRC16 of the tag, less two bits, and what a tail adds to that does not depend on the head: with a
    # thousand tails known, one head in sixteen finds its own. To try 16,384 tags would take milliseconds.
    fits = ((head, _TAILS.get(slot ^ crc_hqx(b"%d\0\0\0" % head, 0) % SLOTS)) for head in count(1))
    return next(f"{head}{tail:03d}" for head, tail in fits if tail is not None)
