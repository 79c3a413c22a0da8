"""How a command is offered: its name, what it says of itself, and the settings it uses as options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from gateway.config import Settings, load, use_file

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = Callable[[Settings, argparse.Namespace], int]

REDIS_SETTINGS = ("redis_url", "prefix", "publish_timeout", "cluster_secret")
"""What a command needs that reaches the cluster through Redis."""

_SETTING = "setting "
"""Begins the names under which settings are parsed: a command's own options may be called the same."""


def add_command(
    commands: Commands, name: str, run: Run, *, settings: Iterable[str], summary: str
) -> argparse.ArgumentParser:
    """Add a command that offers `--config` and these settings; its own arguments are added to what is returned.

    `run` is called with the settings, read and checked, and with the parsed arguments; it returns the exit code.
    """
    command = commands.add_parser(name, help=summary, description=run.__doc__, allow_abbrev=False)
    command.set_defaults(run=run, command=command)
    options = command.add_argument_group("settings", "each may also stand in the environment or the TOML file")
    options.add_argument("--config", metavar="FILE", help="TOML file with settings")
    for setting in settings:
        _offer(options, setting)
    return command


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Read all settings: those given as options, then the environment, then the file. Raises `InvalidSettings`."""
    if arguments.config is not None:
        use_file(arguments.config)
    return load(**given_settings(arguments))


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given as options."""
    options = vars(arguments).items()
    given = ((name, value) for name, value in options if name.startswith(_SETTING) and value is not None)
    return {name.removeprefix(_SETTING): value for name, value in given}


def setting_of(action: argparse.Action) -> str:
    """Return the setting that an option gives, "" for a command's own."""
    return action.dest.removeprefix(_SETTING) if action.dest.startswith(_SETTING) else ""


def _offer(options: argparse._ArgumentGroup, setting: str) -> None:
    field = Settings.model_fields[setting]
    default = "" if field.default_factory or field.default in ("", ()) else f" (default: {field.default})"
    options.add_argument(
        f"--{setting.replace('_', '-')}",
        dest=_SETTING + setting,
        metavar="VALUE",
        help=f"{field.description}{default}".replace("%", "%%"),
    )
