"""The command line: `gateway serve`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from gateway.config import Settings, load, use_file
from gateway.errors import GatewayError, InvalidSettings
from gateway.server import running_node
from gateway.version import __version__

WRONG_USE, CANNOT_START = 2, 1


def main() -> NoReturn:
    """Run a command and exit: 0 when it worked, 1 when it could not start, 2 when it was asked wrongly."""
    arguments = vars(_parser().parse_args())
    command, file = arguments.pop("command"), arguments.pop("config")
    if file is not None:
        use_file(file)
    try:
        sys.exit(command(load(**{name: value for name, value in arguments.items() if value is not None})))
    except InvalidSettings as error:
        _fail(str(error), WRONG_USE)
    except GatewayError as error:
        _fail(str(error), CANNOT_START)


def serve(settings: Settings) -> int:
    """Run a node until SIGTERM or SIGINT."""
    # Until the node has started, what it cannot do is said once, in the line it ends with.
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    """Run a node until a signal comes: that drains it, or ends its attempt to start."""
    node = asyncio.create_task(_run_node(settings))
    _on_signal(node.cancel)
    await asyncio.wait((node,))
    if not node.cancelled():
        node.result()


async def _run_node(settings: Settings) -> None:
    async with running_node(settings) as address:
        stop = asyncio.Event()
        _on_signal(stop.set)
        logging.getLogger().setLevel(settings.log_level.upper())
        print(f"gateway {__version__} node {settings.node_id}", flush=True)
        print(f"chat demo: {address}/example", flush=True)
        await stop.wait()


def _on_signal(act: Callable[[], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, act)


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:  # not on every platform
        return None
    return uvloop.new_event_loop


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gateway", description="A WebSocket gateway for applications.")
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("serve", help="run a node", description=serve.__doc__)
    command.set_defaults(command=serve)
    _add_settings(command)
    return parser


def _add_settings(command: argparse.ArgumentParser) -> None:
    """Offer every setting as an option; `load` reads and checks the values."""
    command.add_argument("--config", metavar="FILE", help="TOML file with settings")
    for name, field in Settings.model_fields.items():
        default = "" if field.default_factory or field.default in ("", ()) else f" (default: {field.default})"
        command.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=f"{field.description}{default}")


def _fail(line: str, code: int) -> NoReturn:
    print(f"gateway: {line}", file=sys.stderr)
    sys.exit(code)
