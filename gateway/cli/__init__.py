"""The command line: one module per command, each with `add` (its parser) and `run` (what it does)."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import NoReturn

from gateway.cli import completion, config, publish, schema, serve, status, tap, token, top
from gateway.cli.options import read_settings
from gateway.errors import GatewayError, InvalidChannel, InvalidParam, InvalidSettings, InvalidUser
from gateway.version import __version__

__all__ = ["main"]

COMMANDS = (serve, publish, status, top, tap, token, schema, config, completion)
WRONG_USE, CANNOT_START = 2, 1


def main() -> NoReturn:
    """Run a command and exit: 0 when it worked, 1 when it could not start, 2 when it was asked wrongly."""
    arguments = _parser().parse_args()
    if "" not in sys.path:
        sys.path.insert(0, "")  # handlers are looked for here, too, as `python -m` does
    logging.getLogger("gateway").addHandler(logging.NullHandler())  # what goes wrong is said in the last line
    try:
        code = arguments.run(read_settings(arguments), arguments)
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:  # whoever read has enough; the flush at the exit must find somebody all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (InvalidSettings, InvalidChannel, InvalidUser, InvalidParam) as error:
        _fail(str(error), WRONG_USE)
    except GatewayError as error:
        _fail(str(error), CANNOT_START)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gateway", description="A WebSocket gateway for applications.")
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    parser.set_defaults(parser=parser)
    return parser


def _fail(line: str, code: int) -> NoReturn:
    print(f"gateway: {line}", file=sys.stderr)
    sys.exit(code)
