"""`gateway schema`: describes a handler's typed commands for clients."""

from __future__ import annotations

import argparse
import json
import sys

from gateway.application.loading import load_handler
from gateway.application.router import Router
from gateway.application.schema import describe, typescript
from gateway.cli.options import Commands, add_command
from gateway.config import Settings
from gateway.errors import InvalidSettings


def add(commands: Commands) -> None:
    """Offer the command."""
    command = add_command(
        commands, "schema", run, settings=("handler",), summary="describe a handler's commands for clients"
    )
    command.add_argument("--typescript", action="store_true", help="write TypeScript instead of JSON Schema")
    command.add_argument("--name", default="Schema", help="name of the TypeScript interface (default: Schema)")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Write what the typed commands of a handler take and answer, as JSON Schema or TypeScript.

    The same handler gives the same text, so that it can be committed. The interface is the type parameter of the
    browser client: new Client<Schema>("/connect").
    """
    handler = load_handler(settings.handler)
    if not arguments.name.isidentifier():
        raise InvalidSettings(f"name: expected a name for an interface, got {arguments.name!r}")
    if not isinstance(handler, Router):
        print(f"gateway: {settings.handler} is no Router, so its commands may be any", file=sys.stderr)
    document = describe(handler)
    text = typescript(document, arguments.name) if arguments.typescript else json.dumps(document, indent=2) + "\n"
    print(text, end="")
    return 0
