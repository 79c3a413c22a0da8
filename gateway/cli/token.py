"""`gateway token`: prints a token for a user."""

from __future__ import annotations

import argparse
import sys
import time

from gateway.access.tokens import make_token, weakness_of
from gateway.cli.options import Commands, add_command
from gateway.config import Settings
from gateway.errors import InvalidSettings, Unauthorized

LONGEST = 1e10
"""Seconds: some 300 years. A token whose end is no date is refused by other libraries."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def add(commands: Commands) -> None:
    """Offer the command, with what is to stand in the token."""
    command = add_command(commands, "token", run, settings=("jwt_secret",), summary="print a token for a user")
    command.add_argument("--user", metavar="ID", required=True, help="user id (sub)")
    command.add_argument("--name", default="", help="display name")
    command.add_argument(
        "--channels",
        metavar="PATTERN",
        nargs="+",
        default=(),
        help="channels that may be joined, * is any (default: all)",
    )
    command.add_argument(
        "--ttl", metavar="TIME", default="0", help="how long it is valid: seconds, or 90m, 12h, 30d (default: for ever)"
    )


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print a token that nodes with the same jwt_secret accept."""
    if not settings.jwt_secret:
        raise InvalidSettings("jwt_secret: expected one to sign with; jwt_public_key and jwks_file only check tokens")
    if weakness := weakness_of(settings.jwt_secret):
        print(f"gateway: {weakness}", file=sys.stderr)
    try:
        print(
            make_token(
                settings.jwt_secret,
                arguments.user,
                name=arguments.name,
                channels=arguments.channels,
                seconds=_seconds(arguments.ttl),
                now=time.time(),
            )
        )
    except (Unauthorized, ValueError) as error:
        raise InvalidSettings(str(error)) from None
    return 0


def _seconds(text: str) -> float:
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    try:
        seconds = float(number) * _UNITS[unit]
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= LONGEST:
        raise ValueError(
            f"--ttl: expected seconds, or a number with one of {', '.join(_UNITS)} behind it, got {text!a}"
        )
    return seconds
