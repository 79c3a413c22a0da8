"""Output that is safe for any terminal, and commands that run until a signal."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

_UNSAFE = re.compile(r"[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What JSON lets through that a terminal may take for a command, or for a change of direction."""


def line_of(value: object) -> str:
    """Write a value as one line of JSON that any terminal may be shown, one that knows ASCII alone, too."""
    knows_all = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, ensure_ascii=not knows_all)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def text_of(value: object) -> str:
    """Write a value as text that any terminal may be shown."""
    return line_of(str(value))[1:-1]


def table_of(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Align the columns of at least one row: numbers to the right, text to the left."""
    lines = [head, *(tuple(map(text_of, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligns = [">" if isinstance(cell, int) else "<" for cell in rows[0]]
    cells = list(zip(aligns, widths, strict=True))
    return "\n".join(
        "  ".join(f"{text:{align}{width}}" for text, (align, width) in zip(line, cells, strict=True)).rstrip()
        for line in lines
    )


def run_until_signal(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run something that goes on until SIGTERM or SIGINT; return 0."""
    asyncio.run(_until_signal(main))
    return 0


async def _until_signal(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    task = asyncio.ensure_future(main())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await asyncio.wait((task,))
    if not task.cancelled():
        task.result()
