"""Keeps open pages up to date, over the gateway's own WebSocket and protocol.

A page says which view it shows, and is sent that view again when it has changed; a page that is hidden says so
and is sent nothing. These sockets are no connections of the hub: an operator who looks does not change what
there is to see, gets no broadcasts, and is let in when the node is full.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from aiohttp import web

from gateway.access.upgrade import agree, upgrade_of
from gateway.connections.connection import Socket
from gateway.connections.websocket import WebSocket
from gateway.errors import (
    GOING_AWAY,
    RESTART,
    BadMessage,
    Close,
    GatewayError,
    InvalidParam,
    Unavailable,
    UnknownCommand,
)
from gateway.node.service import NodeService
from gateway.operations.revocations import Revocations
from gateway.protocol import codec
from gateway.protocol.frames import TEXT, frame
from gateway.protocol.message import Message, make_id
from gateway.server.admin.session import Session
from gateway.server.admin.traffic import show_traffic
from gateway.server.admin.views import VIEWS, Query, picture_of

logger = logging.getLogger(__name__)

PERIOD = 2.0
"""Seconds between two pictures of the same view."""
RARELY = 20
"""How many times as long as a view takes to look at passes before it is looked at again, without what was waited for
nodes that did not answer."""
LONGEST = 5.0
"""Seconds within which a view is looked at again, however dear: a page whose picture is older than that says so."""
LATE = 10.0
"""Seconds after which a view that is still not ready is given up, and the page told."""
HEARTBEAT = 25.0
"""Seconds between pings to a page."""
MOST_BYTES = 64 * 1024
OUTBOX = 4 << 20
MOST_PAGES = 200
"""Pages open on one node at the same time."""
OVER = Close(RESTART.code, "the session must be shown again").after(0)


class Screen:
    """One open page: what it shows, and the task that keeps it up to date."""

    def __init__(self, socket: Socket, session: str, until: float) -> None:
        self.socket = socket
        self.session = session
        """What all nodes call the session that it was opened with."""
        self.until = until
        """Loop time at which the session is over."""
        self.showing: asyncio.Task[None] | None = None

    def send(self, cmd: str, param: object) -> None:
        self.write(codec.encode(cmd, param))

    def reply(self, message: Message, result: object) -> None:
        if message.id is not None:
            self.write(codec.encode_reply(message.id, result))

    def refuse(self, message: Message | None, error: GatewayError) -> None:
        self.write(codec.encode_error(error.code, error.message, message.id if message else None))

    def write(self, payload: bytes) -> None:
        self.socket.write(frame(TEXT, payload))

    @property
    def is_behind(self) -> bool:
        """Whether the page does not read as fast as it is written to."""
        return self.socket.is_behind

    def rest(self) -> None:
        """Show nothing more."""
        if self.showing is not None:
            self.showing.cancel()
            self.showing = None


class Live:
    """The sockets of all pages open on this node; their owner, to whom they tell what they receive."""

    def __init__(self, service: NodeService) -> None:
        self._service = service
        self._screens: dict[str, Screen] = {}
        """By the id that each page is told as its connection's."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def _revocations(self) -> Revocations:
        """Of the node, which has them once it runs."""
        return self._service.operations.revocations

    # ---- life

    async def running(self, _: web.Application) -> AsyncIterator[None]:
        """Own the tasks of all pages, as long as the application runs."""
        self._revocations.listeners.append(self._end_session)
        self._start(self._keep_alive())
        self._start(self._revocations.run())
        yield
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self, _: web.Application) -> None:
        """Send the pages to another node."""
        for screen in list(self._screens.values()):
            screen.socket.close(GOING_AWAY)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            self._start(self._revocations.catch_up({screen.session for screen in self._screens.values()}))
            now = asyncio.get_running_loop().time()
            for screen in list(self._screens.values()):
                socket = screen.socket
                if now > screen.until:
                    socket.close(OVER)
                elif not socket.ping():
                    socket.close(GOING_AWAY)

    def _end_session(self, session: str) -> None:
        """Close the pages of a session that was logged out of, wherever that was."""
        for screen in [screen for screen in self._screens.values() if screen.session == session]:
            screen.rest()
            screen.socket.close(OVER)

    async def open(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Turn a request into the socket of a page, until its session is over."""
        if len(self._screens) >= MOST_PAGES:
            raise web.HTTPServiceUnavailable(text="too many admin pages are open on this node\n")
        upgrade = upgrade_of(request, agree(request, (codec.JSON,)))
        id = make_id(self._service.node_id, secrets.token_hex(5))
        until = asyncio.get_running_loop().time() + session.until - time.time()
        socket = WebSocket(await upgrade.answer(), id, self, limit=MOST_BYTES, outbox=OUTBOX)
        screen = self._screens[id] = Screen(socket, session.digest, until)
        screen.send("$welcome", self._welcome(id))
        upgrade.hand_over(socket)
        if self._revocations.knows(session.digest):  # logged out while the handshake was under way
            self._end_session(session.digest)
        return upgrade.release()

    def _welcome(self, id: str) -> dict[str, object]:
        return {
            "connection": id,
            "node": self._service.node_id,
            "user": id,
            "channels": [],
            "heartbeat": HEARTBEAT,
        }

    # ---- what sockets tell

    def received(self, id: str, opcode: int, payload: bytes) -> None:
        screen = self._screens[id]
        message = None
        try:
            if opcode != TEXT:
                raise BadMessage("expected a text frame")
            message = codec.decode(payload)
            self._carry_out(screen, message)
        except GatewayError as error:
            screen.refuse(message, error)

    def overhead(self, id: str) -> None:
        pass

    def spared(self, id: str, messages: int, *, first: bool) -> None:
        pass

    def lost(self, id: str, close: Close) -> None:
        if (screen := self._screens.pop(id, None)) is not None:
            screen.rest()

    # ---- what pages ask

    def _carry_out(self, screen: Screen, message: Message) -> None:
        param = message.param if isinstance(message.param, dict) else {}
        match message.cmd:
            case "$ping":
                screen.reply(message, {})
            case "rest":
                screen.rest()
                screen.reply(message, {})
            case "look":
                self._start(self._look(screen, message, *_view_of(param)))
            case "watch":
                screen.rest()
                screen.showing = self._start(self._watch(screen, message, *_view_of(param)))
            case "tap":
                screen.rest()
                screen.reply(message, {})
                screen.showing = self._start(show_traffic(self._service, screen, param))
            case _:
                raise UnknownCommand(f"unknown command {message.cmd!r}")

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(_contained(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _look(self, screen: Screen, message: Message, view: str, query: Query) -> None:
        """Answer with a view, once."""
        try:
            screen.reply(message, await self._picture(view, query))
        except GatewayError as error:
            screen.refuse(message, error)

    async def _watch(self, screen: Screen, message: Message, view: str, query: dict[str, str]) -> None:
        """Answer with a view, look at it again and again until something else is shown, and say what came of it.

        The page is sent the view when it has changed, or else only that it is the `same`: without either it cannot
        tell a cluster where nothing happens from a node that hangs.
        """
        await self._look(screen, message, view, query)
        before, took = b"", 0.0
        while True:
            await asyncio.sleep(min(max(PERIOD, took * RARELY), LONGEST))
            if screen.is_behind:
                continue
            began = self._busy()
            try:
                picture = await self._picture(view, query)
            except GatewayError as error:
                picture = {"trouble": error.message}
            took = self._busy() - began
            if "mark" in picture:
                query["mark"] = str(picture["mark"])
            written = codec.encode("view", picture)
            if written != before or "trouble" in picture:
                screen.write(written)
            else:
                screen.send("same", {})
            before = written

    async def _picture(self, view: str, query: Query) -> dict[str, Any]:
        """Look at a view. Raises `Unavailable` when that takes too long."""
        try:
            async with asyncio.timeout(LATE):
                return await picture_of(view, self._service, query)
        except TimeoutError:
            raise Unavailable(f"this view was not ready within {LATE:g} s") from None

    def _busy(self) -> float:
        """Tell the time on a clock that stands still while nodes are waited for in vain."""
        return asyncio.get_running_loop().time() - self._service.operations.in_vain


def _view_of(param: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Read which view a page wants. Raises `InvalidParam`."""
    view, query = param.get("view"), param.get("query", {})
    if view not in VIEWS:
        raise InvalidParam(f"expected one of the views, got {view!r}", field="view")
    if not isinstance(query, dict) or not all(isinstance(value, str) for value in query.values()):
        raise InvalidParam("expected query to be an object of strings", field="query")
    return str(view), dict(query)


async def _contained(work: Coroutine[Any, Any, None]) -> None:
    """Let what goes wrong for one page be no more than that."""
    try:
        await work
    except Exception:
        logger.exception("an admin page could not be kept up to date")
