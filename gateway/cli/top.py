"""`gateway top`: shows the cluster live in a terminal."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time

from gateway.application.guest import Guest, own_settings
from gateway.cli.options import REDIS_SETTINGS, Commands, add_command
from gateway.cli.status import as_text, look
from gateway.cli.terminal import run_until_signal
from gateway.config import Settings, is_dumb_terminal
from gateway.errors import Unavailable

PERIOD = 2.0
"""Seconds between two looks; nodes write their figures every 3."""
_BEGIN, _END = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""Another screen without a cursor, and back."""
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def add(commands: Commands) -> None:
    """Offer the command."""
    add_command(commands, "top", run, settings=REDIS_SETTINGS, summary="show the cluster live")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Show the nodes and their figures, anew every two seconds, until it is interrupted.

    Where the output is no terminal, or a dumb one, each look is printed below the one before.
    """
    return run_until_signal(lambda: _top(settings))


async def _top(settings: Settings) -> None:
    own = own_settings(settings)
    is_terminal = sys.stdout.isatty() and not is_dumb_terminal()
    async with Guest(own).running() as guest:
        try:
            print(_BEGIN if is_terminal else "", end="")
            while True:
                text = f"{time.strftime('%H:%M:%S')}  {await _look(guest)}"
                print(_drawn(text) if is_terminal else text, end="" if is_terminal else "\n\n", flush=True)
                await asyncio.sleep(PERIOD)
        finally:
            print(_END if is_terminal else "", end="", flush=True)


async def _look(guest: Guest) -> str:
    try:
        return as_text(await look(guest))
    except Unavailable as error:
        return str(error)


def _drawn(text: str) -> str:
    """Write over what the screen shows, without flicker, and no more than it has room for."""
    width, height = shutil.get_terminal_size()
    lines = [line[: width - 1] + _CLEAR_LINE for line in text.splitlines()[: height - 1]]
    return _HOME + "\n".join(lines) + _CLEAR_BELOW
