"""Why connections end, and who comes back: one table, from `gateway/errors.py`, for both clients.

`python -m tests.system.test_closes` writes it anew. The tests of the browser's client that read it are in
`close.test.ts`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway import errors
from gateway.client.retry import closed_with
from gateway.errors import CLOSES, ENDED, KNOWN_CODES, RESTART, Close

TABLES = Path(__file__).parents[1] / "tables"
TABLE = TABLES / "closes.json"
OTHERS = (1000, 1005, 1006, 3000, 4000, 4499, 4999)
"""Codes without a meaning of their own: the applications', and what a client reports by itself."""

PAUSES = json.loads((TABLES / "retry_after.json").read_text())


ALL = sorted([*CLOSES, *map(Close, OTHERS)], key=lambda close: close.code)


def _table() -> str:
    """Write the table as it follows from `gateway/errors.py`."""
    rows = (
        {"code": close.code, "reason": close.reason, "reconnect": close.reconnect, "verdict": close.verdict}
        for close in ALL
    )
    return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n"


def test_the_table_is_what_errors_say() -> None:
    """Else `python -m tests.system.test_closes` writes it anew, and the other client's tests tell what follows."""
    assert TABLE.read_text() == _table()


def test_all_closes_are_in_the_table() -> None:
    """Each code once."""
    named = {name: value for name, value in vars(errors).items() if isinstance(value, Close)}
    assert set(named.values()) == set(CLOSES)
    assert len({close.code for close in CLOSES}) == len(CLOSES)
    assert {close.code for close in CLOSES} <= KNOWN_CODES


def test_clients_come_back_but_for_four_codes() -> None:
    """Two are refusals that no attempt can mend, one wants another token, one is an operator's word."""
    away = {close.code: close.verdict for close in ALL if not close.reconnect}
    assert away == {4400: "failed", 4401: "renew", 4403: "failed", 4410: "closed"}


@pytest.mark.parametrize("close", ALL, ids=lambda close: close.code)
def test_the_client_does_what_the_table_says(close: Close) -> None:
    end = closed_with(close.code, close.reason)
    assert (end.code, end.reason, end.verdict) == (close.code, close.reason, close.verdict)


def test_no_close_frame_at_all_is_a_lost_connection() -> None:
    """Which comes back."""
    end = closed_with(None, "")
    assert (end.code, end.verdict, end.retry_after) == (1006, "retry", None)


@pytest.mark.parametrize("row", PAUSES, ids=lambda row: f"{row['code']} {row['reason']!a}")
def test_a_pause_is_read_from_the_reason(row: dict[str, object]) -> None:
    """Of a close after which a client comes back, and with a limit."""
    assert closed_with(int(str(row["code"])), str(row["reason"])).retry_after == row["seconds"]


@pytest.mark.parametrize(("seconds", "said"), [(0, "0.0"), (1, "1.0"), (4.96, "5.0"), (0.04, "0.0")])
def test_a_pause_is_written_as_it_is_read(seconds: float, said: str) -> None:
    close = RESTART.after(seconds)
    assert close == Close(1012, f"node is restarting; retry_after={said}")
    assert close.retry_after == float(said)


def test_who_does_not_come_back_is_asked_for_no_pause() -> None:
    assert ENDED.after(5).retry_after is None


if __name__ == "__main__":
    TABLE.write_text(_table())
