"""The cluster's books: events that nodes note themselves, and the audit; bounded, and read from any node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession

from gateway.connections.counters import Counters
from gateway.errors import TOO_SLOW, Unavailable
from gateway.operations.journal import MOST_WAITING, Journal
from gateway.operations.journal_store import KEPT, MemoryJournalStore
from gateway.presence.contract import Vital
from tests.harness.admin import PASSWORD, log_in
from tests.harness.wait import eventually


class Books(MemoryJournalStore):
    """Books that can be out of reach."""

    away = False

    async def record(self, book: str, entry: str) -> None:
        if self.away:
            raise Unavailable("away")
        await super().record(book, entry)


class Notes:
    """A journal, its counters and its books."""

    def __init__(self) -> None:
        self.counters, self.books = Counters(), Books()
        self.journal = Journal("node", self.books, self.counters)

    async def kinds(self) -> list[str]:
        await asyncio.wait_for(self.journal.flushed(), 5)
        return [entry["kind"] for entry in await self.journal.read("events", limit=100)]


@pytest.fixture
async def notes() -> AsyncIterator[Notes]:
    notes = Notes()
    task = asyncio.create_task(notes.journal.run())
    yield notes
    task.cancel()


async def test_a_drain_is_noted_once(notes: Notes) -> None:
    """Whether or not there is time for a sample before the end."""
    notes.journal.event("draining")
    notes.journal.sampled(Vital(state="draining", trouble=("this node is stopping",)))
    notes.journal.event("down")
    assert await notes.kinds() == ["down", "draining"]


async def test_changes_are_noted_once_for_each_sample(notes: Notes) -> None:
    """A thousand slow readers between two samples make one entry; a state is noted when it changes."""
    notes.counters.closes[TOO_SLOW.code] += 1000
    notes.journal.sampled(Vital())
    notes.journal.sampled(Vital())
    notes.journal.sampled(Vital(state="degraded", trouble=("Redis is away",)))
    notes.journal.sampled(Vital(state="degraded"))
    notes.journal.sampled(Vital())
    assert await notes.kinds() == ["ok", "degraded", "slow"]
    entries = await notes.journal.read("events", limit=3)
    assert (entries[2]["count"], entries[1]["text"], entries[0]["node"]) == (1000, "Redis is away", "node")


async def test_the_end_of_another_node_is_noted_under_its_name(notes: Notes) -> None:
    """By the node that has cleaned up after it, also while Redis is away."""
    notes.books.away = True
    notes.journal.lost("dead", 3)
    notes.books.away = False
    assert await notes.kinds() == ["lost"]
    (entry,) = await notes.journal.read("events", limit=5)
    assert (entry["node"], entry["text"]) == ("dead", "its lease ran out; 3 connections were removed")


async def test_a_rejected_payload_is_noted_with_what_was_wrong(notes: Notes) -> None:
    """As the reader logged it."""
    notes.counters.rejected, notes.counters.rejection = 2, "to channel:lobby: expected a JSON object: b'{x'"
    notes.journal.sampled(Vital())
    await notes.kinds()
    (entry,) = await notes.journal.read("events", limit=5)
    assert entry["count"] == 2
    assert "to channel:lobby" in entry["text"]


async def test_while_redis_is_away_entries_wait_and_the_oldest_is_forgotten(notes: Notes) -> None:
    """A bounded number; what is written then is in order."""
    notes.books.away = True
    for i in range(MOST_WAITING + 20):
        notes.journal.event("up", str(i))
    notes.books.away = False
    await notes.kinds()
    texts = [entry["text"] for entry in await notes.journal.read("events", limit=1000)]
    assert texts == [str(i) for i in reversed(range(20, MOST_WAITING + 20))]


async def test_an_audit_line_is_logged_and_cannot_forge_another(notes: Notes, caplog: pytest.LogCaptureFixture) -> None:
    """Control characters of a name do not reach the log."""
    with caplog.at_level("INFO", "gateway.audit"):
        notes.journal.audit("127.0.0.1", "disconnect", "connection x\nwho=forged", reconnect=True)
    await notes.journal.flushed()
    (entry,) = await notes.journal.read("audit", limit=5)
    assert (entry["who"], entry["details"]) == ("127.0.0.1", {"reconnect": True})
    assert "\n" not in caplog.messages[0]


async def test_books_are_bounded_and_paged(start_nodes, redis, session) -> None:
    """The newest entries come first; the id of the last one gives those before it, from any node."""
    from gateway.redis.keys import Keys

    for i in range(30):
        await redis.command("XADD", Keys("gateway").book("audit"), "*", "entry", json.dumps({"n": i}))
    await redis.command("XADD", Keys("gateway").book("audit"), "*", "entry", "a person was here")
    nodes = await start_nodes(2, redis, admin_password=PASSWORD)
    async with await log_in(session, nodes[0]):
        pass

    async def noted() -> dict:
        page = await _audit(session, nodes[0])
        assert page["items"][0]["action"] == "log-in"
        return page

    first = await eventually(noted)
    second = await _audit(session, nodes[1])
    assert first["items"] == second["items"]
    assert len(first["items"]) == 31
    assert [entry.get("n") for entry in first["items"][1:4]] == [29, 28, 27]
    assert KEPT["audit"] == 10_000


async def test_what_strangers_do_washes_nothing_away(notes: Notes) -> None:
    """Neither while Redis is away, when little can wait, nor later: what operators did stands in a book of its own."""
    notes.books.away = True
    notes.journal.audit("operator", "drain", "node x")
    for i in range(KEPT["refusals"] + MOST_WAITING):
        notes.journal.refusal("198.51.100.7", str(i))
    notes.books.away = False
    for _ in range(KEPT["audit"] + KEPT["refusals"]):
        await notes.books.record("refusals", "{}")
    await asyncio.wait_for(notes.journal.flushed(), 5)
    (entry,) = await notes.journal.read("audit", limit=10)
    assert (entry["who"], entry["action"]) == ("operator", "drain")


async def _audit(session: ClientSession, node) -> dict:
    async with session.get(node.url("/admin/websocket/audit")) as answer:
        page = await answer.text()
    return json.loads(page.split('id="picture">')[1].split("</script>")[0])
