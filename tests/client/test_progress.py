"""How far a channel was read: one table of cases for the clients in Python and TypeScript (`progress.test.ts`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.client.progress import Progress
from gateway.protocol.message import Message

CASES = json.loads((Path(__file__).parents[1] / "tables" / "progress.json").read_text())


def _take(progress: Progress, step: dict[str, Any]) -> tuple[dict[str, Any] | None, list[Message]]:
    """Do one step; return the gap and what is told behind it."""
    given = step.get("with")
    match step["do"]:
        case "begin":
            return None, progress.begin()
        case "accept":
            return None, progress.accept(Message("lobby", "chat", offset=given))
        case "settle":
            return progress.settle(given or {})
        case "abandon":
            return None, progress.abandon()
        case "leave":
            return None, progress.leave()
        case "interrupt":
            return progress.interrupt(given or {}), []
    raise AssertionError(step)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_messages_come_once_and_in_order(case: dict[str, Any]) -> None:
    """And where some may be missing, a gap is told before what comes after it."""
    progress = Progress()
    for step in case["steps"]:
        gap, messages = _take(progress, step)
        assert [message.offset for message in messages] == step.get("tells", []), step
        assert gap == step.get("gap"), step
        at = progress.position and {"epoch": progress.position.epoch, "offset": progress.position.offset}
        assert at == step["at"], step
    assert progress.duplicates == case.get("duplicates", 0)
