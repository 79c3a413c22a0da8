"""Which connections, channels and users a page shows: filter, sort, page. Plain rules, no waiting.

Every node goes through what it holds itself, in slices, and keeps its best rows behind the cursor; whoever
asked merges the answers. A cursor names the last row of a page by its sort key and its id, so that what comes
and goes meanwhile neither repeats nor hides a row that stays.
"""

from __future__ import annotations

from gateway.operations.search.connections import ConnectionQuery, ConnectionSort
from gateway.operations.search.names import NameQuery, NameSort
from gateway.operations.search.page import MOST_ROWS, TEXT_LENGTH, Listed, Sliced

__all__ = ["MOST_ROWS", "TEXT_LENGTH", "ConnectionQuery", "ConnectionSort", "Listed", "NameQuery", "NameSort", "Sliced"]
