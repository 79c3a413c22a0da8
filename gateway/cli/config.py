"""`gateway config`: prints all settings and where they come from."""

from __future__ import annotations

import argparse
import json

from gateway.cli.options import Commands, add_command, given_settings
from gateway.cli.terminal import line_of, text_of
from gateway.config import Settings, origins, shown


def add(commands: Commands) -> None:
    """Offer the command, with every setting."""
    command = add_command(
        commands, "config", run, settings=Settings.model_fields, summary="print all settings and where they come from"
    )
    command.add_argument("--json", action="store_true", help="as a list of JSON objects")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print all settings: meaning, default, value, and where the value comes from; secrets are masked.

    What is printed will do as a TOML file for --config, but for the secrets, which are commented out.
    """
    found = origins(given_settings(arguments))
    rows = [_row(settings, name, found.get(name, "default")) for name in Settings.model_fields]
    print(line_of(rows) if arguments.json else "\n\n".join(map(_text, rows)))
    return 0


def _row(settings: Settings, name: str, origin: str) -> dict[str, object]:
    field = Settings.model_fields[name]
    default = None if field.default_factory else shown(name, field.default)
    value = shown(name, getattr(settings, name))
    return {"name": name, "value": value, "default": default, "origin": origin, "meaning": field.description}


def _text(row: dict[str, object]) -> str:
    default = "" if row["default"] in (None, "", []) else f" (default: {text_of(row['default'])})"
    value = _toml(row["value"])
    # What is secret, empty, or made anew by each node would do harm in a file.
    is_for_a_file = "***" not in value and row["value"] != "" and (row["default"], row["origin"]) != (None, "default")
    line = f"{row['name']} = {value}  # {text_of(row['origin'])}"
    return f"# {row['meaning']}{default}\n{line if is_for_a_file else '# ' + line}"


def _toml(value: object) -> str:
    """Write a value as TOML: its strings, numbers and lists are JSON's; rules are a string of JSON."""
    has_tables = isinstance(value, list) and any(isinstance(each, dict) for each in value)
    return line_of(json.dumps(value)) if has_tables else line_of(value)
