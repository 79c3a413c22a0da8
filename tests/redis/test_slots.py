"""A hash tag for each slot of a Redis Cluster."""

from __future__ import annotations

from redis.crc import key_slot

from gateway.redis.slots import SLOTS, tag_in


def test_every_slot_has_a_tag() -> None:
    """Of a few digits, which is in that slot wherever it stands in a key."""
    for slot in range(SLOTS):
        tag = tag_in(slot)
        assert tag.isdecimal()
        assert len(tag) <= 8
        assert key_slot(f"gateway:any:{{{tag}}}:thing".encode()) == slot


def test_a_tag_stays() -> None:
    """Nodes of two versions meet at the same keys."""
    assert [tag_in(slot) for slot in (0, 1, SLOTS - 1)] == ["3560", "22179", "39296"]
