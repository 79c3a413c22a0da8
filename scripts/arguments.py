"""What the scripts of this folder take as numbers on their command lines."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable


def positive(text: str) -> float:
    """Read a number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")


def at_least(least: int) -> Callable[[str], int]:
    """Make what reads a whole number from `least` on."""

    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {text!r}")
        return int(text)

    return count


count = at_least(1)
