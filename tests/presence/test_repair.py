"""What no event tells: sets that differ from what a node holds are found by its audit, and written again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway import Connection, Handler, Profile
from gateway.presence import repair
from gateway.protocol.message import make_id
from tests.harness.presence import PresenceNode
from tests.harness.sets import agrees
from tests.harness.wait import eventually

HELD = [(f"user-{number}", ["hall", f"room-{number % 3}"]) for number in range(30)]


@pytest.fixture
async def held(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PresenceNode]:
    """A node that holds HELD."""
    monkeypatch.setattr(repair, "AGAIN", 0.05)
    async with PresenceNode(redis_url, id="lone").running() as node:
        for number, (user, channels) in enumerate(HELD):
            await node.somebody(user, *channels, number=number)
        yield node


async def test_an_audit_of_what_is_right_finds_nothing(redis, held):
    """While the sets are right nothing is repaired, and nothing counted."""
    await agrees(redis, HELD, 10)
    assert not await held.presence.repair.check()
    assert held.counters.repairs == 0


async def test_a_join_under_way_is_no_difference(redis, held, caplog):
    """However long it waits for its subscription; the others see it when it is stored."""
    await agrees(redis, HELD, 10)
    connection = held.hub.connections[make_id("lone", "0")]
    held.hub.join(connection, "attic")
    connection.joining = ("attic",)
    for _ in range(3):
        assert not await held.presence.repair.check()
    caplog.clear()
    held.presence.lease.register_again()
    await eventually(lambda: "registered anew" in caplog.text)
    await agrees(redis, HELD, 10)


async def test_who_is_just_coming_in_is_no_difference(redis, held):
    """A connection is counted to its user before the node holds it; one that stays away is given back."""
    await agrees(redis, HELD, 10)
    arriving = Connection(make_id("lone", "late"), Profile(id="late"), Handler())
    assert await held.presence.reserve(arriving.info(), "", 1)
    assert not await held.presence.repair.check()
    await held.presence.lose(arriving.info())
    assert not await held.presence.repair.check()
    await agrees(redis, HELD, 10)
    assert await held.presence.reserve(arriving.info(), "", 1)
    await held.presence.open(arriving.info(), "")
    assert await held.presence.repair.check()


LOST = {
    "the node's connections": ("DEL", "gateway:node:lone:connections"),
    "one connection of the node": ("SREM", "gateway:node:lone:connections", "lone~7"),
    "the set of channels": ("DEL", "gateway:channels"),
    "a channel with who is online": ("DEL", "gateway:members:hall", "gateway:online:hall"),
    "one user online": ("SREM", "gateway:online:hall", "user-3"),
}


@pytest.mark.parametrize("what", LOST)
async def test_what_was_lost_is_found_and_written_again(redis, held, what):
    """Whichever of the sets lost something, the next audit says so, counts it, and has it repaired."""
    await agrees(redis, HELD, 10)
    await redis.command(*LOST[what])
    assert await held.presence.repair.check()
    assert held.counters.repairs == 1
    await agrees(redis, HELD, 10)


async def test_what_cannot_be_asked_is_no_difference_but_mended(redis, held):
    """A hand has written something else over a set: whoever meets it removes it, and has all of it written again."""
    await agrees(redis, HELD, 10)
    for key in ("gateway:members:hall", "gateway:node:lone:connections"):
        await redis.command("SET", key, "x")
    assert not await held.presence.repair.check()
    assert held.counters.repairs == 0
    await eventually(lambda: held.counters.rejected == 2)
    await agrees(redis, HELD, 10)


async def test_a_ghost_is_removed(redis, held):
    """A connection that Redis has and the node has not is taken out of every set."""
    await agrees(redis, HELD, 10)
    ghost = held.hub.connections["lone~5"]
    for channel in ghost.channels:
        held.hub.leave(ghost, channel)
    held.hub.remove(ghost)
    assert await held.presence.repair.check()
    await agrees(redis, [entry for number, entry in enumerate(HELD) if number != 5], 10)
