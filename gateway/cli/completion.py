"""`gateway completion`: prints completions for a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import shtab

from gateway.cli.options import Commands, add_command, setting_of
from gateway.config import Settings

SHELLS = ("bash", "zsh", "fish")
FILES = {"config", "jwks_file", "jwt_public_key"}
"""Options whose values are files."""


def add(commands: Commands) -> None:
    """Offer the command."""
    command = add_command(commands, "completion", run, settings=(), summary="print completions for a shell")
    command.add_argument("shell", choices=SHELLS, help="the shell")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print a script that completes commands, options and their values.

    For bash write it to ~/.local/share/bash-completion/completions/gateway, for zsh to a file called _gateway in a
    directory of $fpath, for fish to ~/.config/fish/completions/gateway.fish.
    """
    for action in _options(arguments.parser):
        name = setting_of(action) or action.dest
        if name in FILES:
            action.complete = shtab.FILE
        elif name in Settings.model_fields:
            action.choices = _values(Settings.model_fields[name].annotation)
    print(shtab.complete(arguments.parser, arguments.shell))
    return 0


def _options(parser: argparse.ArgumentParser) -> Iterator[Any]:
    """Yield the options of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _options(command)
        else:
            yield action


def _values(annotation: object) -> tuple[str, ...] | None:
    """Return the values a setting may have, where they can be listed."""
    if annotation is bool:
        return ("true", "false")
    return get_args(annotation) if get_origin(annotation) is Literal else None
