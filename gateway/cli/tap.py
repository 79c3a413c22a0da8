"""`gateway tap`: prints the live traffic."""

from __future__ import annotations

import argparse
import sys

from gateway.application.guest import Guest, own_settings
from gateway.cli.options import REDIS_SETTINGS, Commands, add_command
from gateway.cli.terminal import line_of, run_until_signal
from gateway.config import Settings
from gateway.errors import InvalidEnvelope
from gateway.operations.taps import Filter, Sight


def add(commands: Commands) -> None:
    """Offer the command."""
    command = add_command(commands, "tap", run, settings=REDIS_SETTINGS, summary="print the live traffic")
    command.add_argument("--channel", metavar="NAME", default="", help="only what is written to, or sent in, a channel")
    command.add_argument("--user", metavar="ID", default="", help="only what a user sends or is written")
    command.add_argument("--connection", metavar="ID", default="", help="only what one connection sends or is written")
    command.add_argument("--cmd", metavar="CMD", default="", help="only messages of this command")
    command.add_argument("--direction", choices=("in", "out"), default="", help="only from clients, or only to them")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the live traffic of the cluster until it is interrupted, one JSON object a line.

    `at` is in ms since the epoch; direction `in` is from a client, `out` to a channel, a user, a connection or all.
    What is too much to be shown is left out; how much is said on standard error.
    """
    return run_until_signal(lambda: _tap(settings, arguments))


async def _tap(settings: Settings, arguments: argparse.Namespace) -> None:
    own = own_settings(settings)
    fields = {name: getattr(arguments, name) for name in ("channel", "user", "connection", "cmd", "direction")}
    told = 0
    async with Guest(own).running() as guest, guest.observers.observing(Filter(**fields)) as tap:
        while True:
            _print(await tap.waiting.get())
            if tap.missed > told:
                print(f"gateway: {tap.missed - told} messages are not shown", file=sys.stderr, flush=True)
                told = tap.missed


def _print(sight: Sight) -> None:
    try:
        message = sight.message
    except InvalidEnvelope:
        return
    seen = {"at": sight.at, "node": sight.node, "direction": sight.direction, "to": sight.kind, "name": sight.name}
    if sight.connection:
        seen["connection"] = sight.connection
    if sight.user or message.sender:
        seen["from"] = sight.user or message.sender
    print(line_of({**seen, "channel": message.channel, "cmd": message.cmd, "param": message.param}), flush=True)
