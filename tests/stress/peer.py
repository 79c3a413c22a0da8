"""A client that keeps everything it receives, in any of the protocols."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import jwt
import msgpack
import orjson
from aiohttp import ClientSession, ClientWebSocketResponse, WSMessage, WSMsgType, WSServerHandshakeError
from yarl import URL

from tests.stress.checks import DEADLINE, Wrong, short
from tests.stress.node import SECRET, Node

T = TypeVar("T")

JSON, MSGPACK, PLAIN = "gateway.v1.json", "gateway.v1.msgpack", ""
PROTOCOLS = (JSON, MSGPACK, PLAIN)


class Refused(Exception):
    """The node answered `$error`, or refused the upgrade: then the code is the status."""

    def __init__(self, code: str, param: Any = None) -> None:
        super().__init__(f"{code}: {param}")
        self.code = code
        self.param = param


def token(user: str, *, ttl: float = 3600, **claims: object) -> str:
    """Return a token as the nodes take it."""
    return jwt.encode({"sub": user, "exp": time.time() + ttl, **claims}, SECRET, algorithm="HS256")


class Peer:
    """One open WebSocket. What comes is in `got`, in order; `code` is how it ended."""

    def __init__(self, socket: ClientWebSocketResponse, node: Node, protocol: str, user: str = "") -> None:
        self.node = node
        self.user = user
        self.protocol = protocol
        self.got: list[dict[str, Any]] = []
        self.id = ""
        self.code: int | None = None
        self.reason = ""
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._came = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    def __repr__(self) -> str:
        return f"{self.id or 'a client'} on {self.node}"

    @classmethod
    async def connect(
        cls,
        session: ClientSession,
        node: Node,
        *channels: str,
        protocol: str = JSON,
        user: str = "",
        shown: str | None = None,
        name: str = "",
        compress: int = 0,
        path: str = "/connect",
        headers: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Peer:
        """Connect; return once the first joins are made. Raises `Refused` with the status."""
        query = {"name": name} if name else {}
        shown = token(user) if user and shown is None else shown
        try:
            socket = await session.ws_connect(
                URL(node.url(*channels, path=path, **query), encoded=True),
                protocols=(protocol,) if protocol else (),
                headers={"Authorization": f"Bearer {shown}"} if shown else headers,
                max_msg_size=0,
                compress=compress,
            )
        except WSServerHandshakeError as error:
            raise Refused(str(error.status)) from None
        peer = cls(socket, node, protocol, user)
        if wait:
            await peer.opened()
        return peer

    async def opened(self) -> None:
        """Wait for the first joins."""
        if self.protocol:
            self.id = (await self.wait_for("$welcome"))["param"]["connection"]
        else:
            await self.settled()

    # ---- sending

    async def send(self, cmd: str, param: object = None, channel: str | None = None, **fields: object) -> None:
        message = {"cmd": cmd, "param": param, **({"channel": channel} if channel is not None else {}), **fields}
        if self.protocol == MSGPACK:
            await self._socket.send_bytes(msgpack.packb(message))
        else:
            await self._socket.send_str(orjson.dumps(message).decode())

    async def request(self, cmd: str, param: object = None, channel: str | None = None) -> Any:
        """Send a command and return the answer; raise `Refused`."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self.send(cmd, param, channel, id=number)
        try:
            async with asyncio.timeout(2 * DEADLINE):
                message = await answer
        except TimeoutError:
            raise Wrong(f"{self.id} asked {cmd} on {self.node}: expected an answer, got none") from None
        finally:
            del self._answers[number]
        if message["cmd"] == "$error":
            raise Refused(message["param"]["code"], message["param"])
        return message["param"]

    async def settled(self) -> None:
        """Wait until all that was sent before has been handled."""
        try:
            await self.request("no-such-command")
        except Refused as refused:
            if refused.code != "unknown-command":
                raise

    async def close(self) -> None:
        await self._socket.close()
        await asyncio.wait((self._reading,))

    def abort(self) -> None:
        """Break the TCP connection."""
        transport = self._socket._response.connection.transport if self._socket._response.connection else None
        if transport is not None:
            transport.abort()

    # ---- what came

    async def wait_for(self, cmd: str, param: object = ...) -> dict[str, Any]:
        """Return the first message of a command, once it is there."""

        return await self.until(
            cmd, lambda: next((m for m in self.got if m["cmd"] == cmd and param in (..., m.get("param"))), None)
        )

    async def until(self, what: str, found: Callable[[], T | None]) -> T:
        """Look at what came, after each message, until something is found."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not (seen := found()):
                    if self.code is not None:
                        raise Wrong(f"{self}: expected {what}, but it was closed with {self.code}")
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            raise Wrong(f"{self}: expected {what}, got {short(self.got[-3:])}") from None
        return seen

    async def has(self, cmd: str, count: int) -> list[Any]:
        """Wait until a command came so often; return what came with it."""
        await self.until(f"{count} times {cmd}", lambda: len(self.params(cmd)) >= count)
        return self.params(cmd)

    async def hears(self, by: str, count: int, channel: str | None = None) -> list[int]:
        """Wait until so many numbers of one writer came; return them all."""
        await self.until(f"{count} messages of {by}", lambda: len(self.numbers(by, channel)) >= count)
        return self.numbers(by, channel)

    async def wait_end(self) -> int:
        """Return the close code, once it is closed."""
        try:
            async with asyncio.timeout(DEADLINE):
                await asyncio.wait((self._reading,))
        except TimeoutError:
            raise Wrong(f"{self.id} on {self.node}: expected to be closed, but it is open") from None
        assert self.code is not None
        return self.code

    def params(self, cmd: str, channel: str | None = None) -> list[Any]:
        """Return what came with a command."""
        return [m.get("param") for m in self.got if m["cmd"] == cmd and channel in (None, m.get("channel"))]

    def numbers(self, by: str, channel: str | None = None, cmd: str = "n") -> list[int]:
        """Return the numbers that came from one writer."""
        return [param["n"] for param in self.params(cmd, channel) if param["by"] == by]

    async def _read(self) -> None:
        frame = await self._receive()
        while frame is not None and frame.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            message = msgpack.unpackb(frame.data) if frame.type is WSMsgType.BINARY else orjson.loads(frame.data)
            answer = self._answers.get(message.get("id"))
            if answer is not None and not answer.done() and message["cmd"] in ("$reply", "$error"):
                answer.set_result(message)
            else:
                self.got.append(message)
            self._came.set()
            frame = await self._receive()
        self.reason = str(frame.extra or "") if frame is not None else ""
        self.code = self._socket.close_code or 1006
        self._came.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Refused(f"closed {self.code}"))
                answer.exception()  # whoever asked may not wait any more

    async def _receive(self) -> WSMessage | None:
        """Wait for a frame; None when a ping could not be answered because the connection is broken."""
        with suppress(ConnectionError):
            return await self._socket.receive()
        return None
