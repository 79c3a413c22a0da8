"""A WebSocket client that keeps everything it received; light enough for thousands in one test."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import msgpack
import orjson
from aiohttp import (
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    ClientWSTimeout,
    DummyCookieJar,
    TCPConnector,
    WSMessage,
    WSMsgType,
)
from yarl import URL

from .address import Addressed

__all__ = ["Client", "Clients", "Close", "Message", "open_session"]

Message = dict[str, Any]
Marker = Callable[[str], Awaitable[object]]

_MSGPACK = "gateway.v1.msgpack"
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Close:
    """How a connection ended; code 1006 when it ended without a close frame."""

    code: int
    reason: str = ""


class Client:
    """One WebSocket to a node.

    A task reads without pause, answers pings, and puts each message in `received` and in the queue that `receive`
    and `expect` take from. Messages are JSON in text frames, msgpack where the node chose that subprotocol.
    """

    def __init__(self, websocket: ClientWebSocketResponse) -> None:
        self._socket = websocket
        self._binary = websocket.protocol == _MSGPACK
        # Every message, oldest first, taken or not.
        self.received: list[Message] = []
        # Those that no call has taken yet.
        self.waiting: deque[Message] = deque()
        self.closed: Close | None = None
        self._takers: list[_Taker] = []
        self._closing = False
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def connect(
        cls,
        session: ClientSession,
        url: str,
        channels: Iterable[str] = (),
        *,
        protocols: Iterable[str] = (),
        headers: Mapping[str, str] | None = None,
        deadline: float = 10.0,
        **options: Any,
    ) -> Self:
        """Open a WebSocket that joins these channels; `options` are those of aiohttp's `ws_connect`.

        Raises aiohttp's `WSServerHandshakeError` with its `status` when the node refuses.
        """
        address = URL(url).extend_query([("ch", channel) for channel in channels])
        limits: dict[str, Any] = {"max_msg_size": 0, "timeout": ClientWSTimeout(ws_close=5.0)}
        async with asyncio.timeout(deadline):
            websocket = await session.ws_connect(
                address, protocols=tuple(protocols), headers=headers, **(limits | options)
            )
        return cls(websocket)

    def __repr__(self) -> str:
        return f"<client: {len(self.received)} received, {self.closed or 'open'}, last {self.received[-1:]}>"

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the node chose."""
        return self._socket.protocol

    async def send(self, cmd: str, param: Any = None, channel: str | None = None, **extra: Any) -> None:
        """Send a command; `extra` are further keys of the message, such as `id`."""
        message = {"cmd": cmd, "param": param} | ({} if channel is None else {"channel": channel}) | extra
        await self.send_raw(msgpack.packb(message) if self._binary else json.dumps(message))

    async def send_raw(self, frame: str | bytes) -> None:
        """Send any text (`str`) or binary (`bytes`) frame."""
        if isinstance(frame, str):
            await self._socket.send_str(frame)
        else:
            await self._socket.send_bytes(frame)

    async def request(
        self, cmd: str, param: Any = None, channel: str | None = None, *, deadline: float = 5.0, **extra: Any
    ) -> Message:
        """Send a command with a fresh `id` and return the answer: the `$reply` or `$error` that carries it."""
        id = f"request-{next(_numbers)}"
        await self.send(cmd, param, channel, id=id, **extra)
        return await self._take(lambda message: _answers(message, id), deadline, f"an answer to {cmd}")

    async def receive(self, deadline: float = 5.0) -> Message:
        """Return the oldest message that was not taken yet."""
        return await self._take(lambda _: True, deadline, "a message")

    async def receive_many(self, count: int, deadline: float = 30.0) -> list[Message]:
        """Return the `count` oldest messages that were not taken yet."""
        taken: list[Message] = []
        end = time.monotonic() + deadline
        while len(taken) < count:
            what = f"message {len(taken) + 1} of {count}"
            taken.append(await self._take(lambda _: True, end - time.monotonic(), what))
        return taken

    async def expect(self, cmd: str, deadline: float = 5.0, **fields: Any) -> Message:
        """Return the oldest message not taken yet that has this command and these fields; leave the rest for later.

        `from_` stands for the field `from`.
        """
        wanted = {"cmd": cmd} | {name.rstrip("_"): value for name, value in fields.items()}
        return await self._take(lambda message: _has(message, wanted), deadline, str(wanted))

    async def expect_nothing_but(self, *cmds: str, marker: Marker | None = None, deadline: float = 5.0) -> None:
        """Fail if a message not taken yet has another command than these, or one that is still on its way has.

        What is on its way is made to arrive by a marker behind it. By default that is an unknown command from this
        client, which is answered after everything the node had for it. For what is still on the way through Redis
        give a `marker`: called with the name of a command, it makes a message with that command take the same road,
        as in `marker=lambda cmd: redis.publish("gateway:channel:lobby", cmd)`.
        """
        name = f"marker-{next(_numbers)}"
        if marker is None:
            await self.send(f"${name}", id=name)
        else:
            await marker(name)
        await self._take(lambda message: name in (message["cmd"], message.get("id")), deadline, name)
        others = [message for message in self.waiting if message["cmd"] not in cmds]
        assert not others, f"expected nothing but {cmds}, got {others}"

    async def expect_close(self, code: int | None = None, deadline: float = 5.0) -> Close:
        """Wait for the end of the connection and return how it came; with `code`, fail on any other one."""
        async with _within(deadline, "the end of the connection", self):
            await asyncio.shield(self._reader)
        assert self.closed is not None
        assert code is None or self.closed.code == code, f"expected close code {code}, got {self.closed}"
        return self.closed

    async def close(self, code: int = 1000) -> None:
        """Close in good order, and return when the node has answered, or five seconds later. May be called twice."""
        self._closing = True
        await self._socket.close(code=code)
        await self._reader
        if self.closed is None:
            self.closed = Close(self._socket.close_code or 1006)
            self._disappoint()

    async def drop(self) -> None:
        """Vanish: end the TCP connection without a close frame."""
        connection = self._socket.get_extra_info("socket")
        with socket.socket(fileno=os.dup(connection.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)
        await self._reader

    async def ended(self) -> None:
        """Wait until nothing more can come, for whatever reason."""
        await asyncio.wait([self._reader])

    async def _take(self, matches: Callable[[Message], bool], deadline: float, what: str) -> Message:
        for index, message in enumerate(self.waiting):
            if matches(message):
                del self.waiting[index]
                return message
        assert self.closed is None, f"waited for {what}, but the connection has ended: {self!r}"
        taken: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        taker = _Taker(matches, taken, what)
        self._takers.append(taker)
        try:
            async with _within(deadline, what, self):
                return await taken
        finally:
            if taker in self._takers:
                self._takers.remove(taker)

    async def _read(self) -> None:
        while self.closed is None:
            frame = await self._socket.receive()
            if self._closing and frame.type in (WSMsgType.CLOSING, WSMsgType.CLOSED):
                # `close` hears the node's answer itself.
                return
            self._accept(frame)
        self._disappoint()

    def _accept(self, frame: WSMessage) -> None:
        match frame.type:
            case WSMsgType.TEXT:
                self._keep(orjson.loads(frame.data))
            case WSMsgType.BINARY:
                self._keep(msgpack.unpackb(frame.data))
            case WSMsgType.CLOSE:
                self.closed = Close(frame.data or 1005, frame.extra or "")
            case _:
                self.closed = Close(1006, repr(frame.data or self._socket.exception() or ""))

    def _disappoint(self) -> None:
        """Tell everyone who still waits that nothing more will come."""
        for taker in self._takers:
            if not taker.taken.done():
                error = f"waited for {taker.what}, but the connection ended: {self!r}"
                taker.taken.set_exception(AssertionError(error))

    def _keep(self, message: Message) -> None:
        self.received.append(message)
        for taker in self._takers:
            if not taker.taken.done() and taker.matches(message):
                taker.taken.set_result(message)
                return
        self.waiting.append(message)


class Clients:
    """All clients of one test, on one session; called, it connects one more."""

    def __init__(self) -> None:
        """Open the session; needs a running loop."""
        self.session = open_session()
        self._clients: list[Client] = []

    async def __call__(
        self, to: Addressed | str, *channels: str, path: str = "/connect", name: str | None = None, **options: Any
    ) -> Client:
        """Connect to a node or balancer at `path`, or to an address, and join these channels.

        `name` is the display name; `options` are those of `Client.connect`.
        """
        url = URL(to if isinstance(to, str) else to.ws_url(path=path))
        query = {} if name is None else {"name": name}
        client = await Client.connect(self.session, str(url.update_query(query)), channels, **options)
        self._clients.append(client)
        return client

    async def many(
        self, count: int, to: Addressed | str, *channels: str, at_once: int = 200, **options: Any
    ) -> list[Client]:
        """Connect so many clients in the same way, `at_once` handshakes at a time."""
        gate = asyncio.Semaphore(at_once)

        async def connect() -> Client:
            async with gate:
                return await self(to, *channels, **options)

        async with asyncio.TaskGroup() as tasks:
            connecting = [tasks.create_task(connect()) for _ in range(count)]
        return [task.result() for task in connecting]

    async def close(self) -> None:
        """End all at once, without a close frame, whatever state their nodes are in: the last use."""
        await self.session.close()
        await asyncio.gather(*(client.ended() for client in self._clients))


def open_session() -> ClientSession:
    """Open a session without limits of number or time, and without cookies."""
    return ClientSession(
        connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar(), timeout=ClientTimeout(total=None)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Taker:
    """Someone who waits for a message, and what for."""

    matches: Callable[[Message], bool]
    taken: asyncio.Future[Message]
    what: str


@asynccontextmanager
async def _within(deadline: float, what: str, client: Client) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(deadline):
            yield
    except TimeoutError:
        raise AssertionError(f"not within {deadline:g} s: {what}; {client!r}") from None


def _answers(message: Message, id: str) -> bool:
    return message.get("id") == id and message["cmd"] in ("$reply", "$error")


def _has(message: Message, wanted: Mapping[str, Any]) -> bool:
    return all(name in message and message[name] == value for name, value in wanted.items())
