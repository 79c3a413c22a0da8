"""The command line `gateway`: one module for each command, with `add` (its parser) and `run` (what it does)."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from difflib import get_close_matches
from itertools import takewhile
from typing import NoReturn

from gateway.cli import completion, config, logs, publish, schema, serve, status, tap, token, top
from gateway.cli.options import read_settings
from gateway.config import misspelled
from gateway.errors import GatewayError, InvalidChannel, InvalidParam, InvalidSettings, InvalidUser
from gateway.version import __version__

__all__ = ["main"]

COMMANDS = (serve, publish, status, top, tap, token, schema, config, completion)
WRONG_USE, CANNOT_START, INTERRUPTED = 2, 1, 130
_OPTION = re.compile(r"--?[A-Za-z][^\s=]*(=.*)?", re.DOTALL)
"""What the parser takes for an option: nothing with a space in its name, no number."""


def main() -> NoReturn:
    """Run a command and exit: 0 when it worked, 1 when it could not start, 2 when it was asked wrongly.

    130 when it was interrupted before it had done what it was to do.
    """
    arguments = _arguments()
    if "" not in sys.path:
        sys.path.insert(0, "")  # handlers are looked for here, too, as `python -m` does
    logging.getLogger("gateway").addHandler(logging.NullHandler())  # what goes wrong is said in the last line
    try:
        settings = read_settings(arguments)
        for line in misspelled():
            print(f"gateway: {line}", file=sys.stderr)
        code = arguments.run(settings, arguments)
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:  # whoever read has enough; the flush at the exit must find somebody all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (InvalidSettings, InvalidChannel, InvalidUser, InvalidParam) as error:
        _fail(str(error), WRONG_USE)
    except GatewayError as error:
        _fail(str(error), CANNOT_START)


def _arguments() -> argparse.Namespace:
    """Parse the command line; exit when something in it is unknown, naming what may have been meant."""
    arguments, unknown = _parser().parse_known_args()
    if unknown:
        arguments.command.error(f"unrecognized argument {unknown[0]}")
    return arguments


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line, but for the URLs in it, and without the usage, which may be a page."""

    def error(self, message: str) -> NoReturn:
        """Exit. An option that there is none of goes before all else: what is missing may be what it was to give."""
        if self._subparsers is None:  # a command's own options
            words = takewhile(lambda word: word != "--", sys.argv[1:])
            message = next(map(self._unrecognized, filter(self._is_unknown, words)), message)
        said = re.sub(r"\S*://(.*@)?\S*", "***", message, flags=re.DOTALL)
        self.exit(WRONG_USE, f"{self.prog}: {said}; see {self.prog} --help\n")

    def _is_unknown(self, word: str) -> bool:
        return _OPTION.fullmatch(word) is not None and word.partition("=")[0] not in self._option_string_actions

    def _unrecognized(self, word: str) -> str:
        wrong = word.partition("=")[0]
        near = get_close_matches(wrong.replace("_", "-"), self._option_string_actions, 1)
        return f"unrecognized argument {wrong}" + (f"; did you mean {near[0]}?" if near else "")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gateway", description="A WebSocket gateway for applications.")
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    parser.set_defaults(parser=parser)
    return parser


def _fail(line: str, code: int) -> NoReturn:
    logs.flush()  # what led to it comes first
    print(f"gateway: {line}", file=sys.stderr)
    sys.exit(code)
