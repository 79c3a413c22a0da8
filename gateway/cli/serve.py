"""`gateway serve`: runs a node, or several that share a port."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable
from typing import Any

from gateway.access.origin import is_loopback
from gateway.cli import logs
from gateway.cli.options import Commands, add_command
from gateway.cli.workers import DRAIN, HURRY, UP, Greeting, supervise
from gateway.config import Settings
from gateway.node import startup
from gateway.node.service import NodeService
from gateway.server.admin import PREFIX, Links
from gateway.server.running import Standalone, running_node
from gateway.version import __version__

logger = logging.getLogger(__name__)


def add(commands: Commands) -> None:
    """Offer the command, with every setting."""
    command = add_command(commands, "serve", run, settings=Settings.model_fields, summary="run a node")
    command.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # the line to the supervisor


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Run a node until SIGTERM, which drains it, or SIGINT, which ends it quickly, as a second SIGTERM does."""
    settings = settings.named()  # this process does not fork: its workers are given names of their own
    # Until the node has started, what it cannot do is said once, in the line it ends with; but that it waits is told.
    logs.use(settings.log_format, settings.node_id, logging.ERROR)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    logging.getLogger(startup.__name__).setLevel(max(level, logging.WARNING))
    if settings.workers > 1 and arguments.worker is None:
        logging.getLogger().setLevel(settings.log_level.upper())
        return supervise(settings, Greeting(_link_secret(settings), is_first=True))
    line = None if arguments.worker is None else socket.socket(fileno=arguments.worker)
    greeting = Greeting(_link_secret(settings), is_first=True) if line is None else Greeting.read(line)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(settings, line, greeting))


def _link_secret(settings: Settings) -> str:
    """Make what log-in links are signed with, "" where there are none: by a password operators log in as themselves.

    A node that others than this machine reach has no pages without one: whoever reads its log may be anybody.
    """
    return secrets.token_hex(32) if is_loopback(settings.host) and not settings.admin_password else ""


class Ending:
    """How a node is asked to end: in good order, or in haste. One that has not started gives up."""

    def __init__(self, give_up: Callable[[], object]) -> None:
        self._give_up = give_up
        self._service: NodeService | None = None
        self._asked = asyncio.Event()

    def drain(self) -> None:
        """End in good order."""
        self._asked.set()
        if self._service is None:
            self._give_up()

    def hurry(self) -> None:
        """End quickly, whatever was asked before."""
        self.drain()
        if self._service is not None:
            self._service.hurry()

    def terminate(self) -> None:
        """End in good order; asked again, quickly."""
        if self._asked.is_set():
            self.hurry()
        else:
            self.drain()

    async def asked(self, service: NodeService) -> None:
        """Wait until a node that has started is to end."""
        self._service = service
        await self._asked.wait()


async def _serve(settings: Settings, line: socket.socket | None, greeting: Greeting) -> int:
    """Run a node until it is asked to end: by a signal, or by its supervisor. Return the exit code."""
    node: asyncio.Task[int]
    ending = Ending(lambda: node.cancel())
    node = asyncio.create_task(_run_node(settings, ending, line, greeting))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ending.terminate)
    loop.add_signal_handler(signal.SIGINT, ending.hurry)
    obeying = asyncio.create_task(_obey(line, ending))
    await asyncio.wait((node,))
    obeying.cancel()
    return 0 if node.cancelled() else node.result()


async def _obey(line: socket.socket | None, ending: Ending) -> None:
    """Do what the supervisor says; without one, nothing."""
    if line is None:
        return
    os.set_inheritable(line.fileno(), False)
    line.setblocking(False)
    order = DRAIN
    while order:
        try:
            order = await asyncio.get_running_loop().sock_recv(line, 1)
        except OSError:
            order = b""
        (ending.hurry if order == HURRY else ending.drain)()


async def _run_node(settings: Settings, ending: Ending, line: socket.socket | None, greeting: Greeting) -> int:
    links = Links(greeting.secret, settings.prefix) if greeting.secret else None
    async with running_node(settings, shares_port=line is not None, links=links) as node:
        logging.getLogger().setLevel(settings.log_level.upper())
        _calm_collector()
        _announce(settings, node, links if greeting.is_first else None)
        node.service.operations.announce()
        if line is not None:
            line.send(UP)
        crash = asyncio.create_task(node.service.crashed.wait())
        crash.add_done_callback(lambda _: ending.drain())
        await ending.asked(node.service)
        crash.cancel()
    return int(node.service.crashed.is_set())


def _announce(settings: Settings, node: Standalone, links: Links | None) -> None:
    """Say in one line what a person opens first; of several nodes on one port the first has a link for all."""
    first = f"chat demo {node.address}/example" if node.has_demo else f"at {node.address}"
    if links is not None:
        pages = f"admin pages, log in once by {links.make()}"
    elif node.has_pages:
        pages = f"admin pages {node.address}{PREFIX}"
    else:
        pages = "admin pages off without admin_password"
    facts = {"version": __version__, "node": settings.node_id, "first": first, "pages": pages}
    logger.info("gateway %(version)s node %(node)s: %(first)s - %(pages)s", facts)


def _calm_collector() -> None:
    """Let the garbage collector run seldom: by default it took 13 % of a busy node's time, and found next to nothing.

    What the program consists of is not looked through again, and what ends here is freed at once: connections, links
    and errors make no circles. Those of an application are looked for among what is new after 50,000 objects, and
    everywhere after 400,000, when a quarter is new: 60 ms with 65,000 connections.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 4, 2)


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:  # not on every platform
        return None
    return uvloop.new_event_loop
