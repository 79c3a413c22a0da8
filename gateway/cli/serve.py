"""`gateway serve`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
from collections.abc import Callable
from typing import Any

from gateway import logs
from gateway.cli.options import Commands, add_command
from gateway.config import Settings
from gateway.server import running_node
from gateway.version import __version__

logger = logging.getLogger(__name__)


def add(commands: Commands) -> None:
    """Offer the command, with every setting."""
    add_command(commands, "serve", run, settings=Settings.model_fields, summary="run a node")


def run(settings: Settings, _: argparse.Namespace) -> int:
    """Run a node until SIGTERM or SIGINT."""
    # Until the node has started, what it cannot do is said once, in the line it ends with.
    logs.use(settings.log_format, settings.node_id, logging.ERROR)
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
        _calm_collector()
        _announce(settings, address)
        await stop.wait()


def _announce(settings: Settings, address: str) -> None:
    """Say where the node is, in the way its log is written."""
    if settings.log_format == "json":
        logger.info("gateway %s listens at %s", __version__, address)
        return
    print(f"gateway {__version__} node {settings.node_id}", flush=True)
    print(f"chat demo: {address}/example", flush=True)


def _calm_collector() -> None:
    """Let the garbage collector run seldom: by default it took 13 % of a busy node's time, and found next to nothing.

    What the program consists of is not looked through again, and connections are few objects without cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _on_signal(act: Callable[[], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, act)


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:  # not on every platform
        return None
    return uvloop.new_event_loop
