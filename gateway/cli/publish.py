"""`gateway publish`: writes one message."""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import aclosing

from gateway.application.publisher import Publisher
from gateway.cli.options import REDIS_SETTINGS, Commands, add_command
from gateway.cli.terminal import line_of
from gateway.config import Settings
from gateway.errors import InvalidSettings
from gateway.protocol.json_values import check_integers, parse
from gateway.protocol.message import Position

SHOWN = 200
"""Characters of what was no JSON that are repeated."""


def add(commands: Commands) -> None:
    """Offer the command."""
    command = add_command(commands, "publish", run, settings=REDIS_SETTINGS, summary="write a message")
    to = command.add_mutually_exclusive_group(required=True)
    to.add_argument("--channel", metavar="NAME", help="write to the members of a channel")
    to.add_argument("--user", metavar="ID", help="write to all connections of a user")
    to.add_argument("--connection", metavar="ID", help="write to one connection")
    to.add_argument("--all", action="store_true", help="write to every connection")
    command.add_argument("--from", metavar="USER", dest="sender", help="user id that receivers read as the sender")
    command.add_argument("cmd", metavar="CMD", help="the command")
    command.add_argument(
        "param",
        metavar="PARAM_JSON",
        nargs="?",
        default="null",
        help="any JSON value, or - to read it from the standard input (default: null)",
    )


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Write a message from any machine that reaches Redis; return when Redis has it.

    Where the channel keeps history the message's position is printed.
    """
    text = sys.stdin.buffer.read() if arguments.param == "-" else arguments.param.encode(errors="surrogateescape")
    try:
        param = parse(text)
        check_integers(text)
    except ValueError as error:
        raise InvalidSettings(f"PARAM_JSON: expected JSON, got {_shown(text)}: {error}") from None
    position = asyncio.run(_publish(settings, arguments, param))
    if position is not None:
        print(line_of({"epoch": position.epoch, "offset": position.offset}))
    return 0


def _shown(text: bytes) -> str:
    shown = ascii(text.decode(errors="replace"))
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."


async def _publish(settings: Settings, to: argparse.Namespace, param: object) -> Position | None:
    publisher = Publisher(
        settings.redis_url,
        prefix=settings.prefix,
        publish_timeout=settings.publish_timeout,
        cluster_secret=settings.cluster_secret,
    )
    async with aclosing(publisher):
        if to.channel is not None:
            return await publisher.write_channel(to.cmd, param, to.channel, sender=to.sender)
        if to.user is not None:
            await publisher.write_user(to.cmd, param, to.user, sender=to.sender)
        elif to.connection is not None:
            await publisher.write_connection(to.cmd, param, to.connection, sender=to.sender)
        else:
            await publisher.write_all(to.cmd, param, sender=to.sender)
    return None
