"""One open WebSocket: what is sent over it, and the answers that somebody awaits."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import orjson
from aiohttp import ClientError, ClientWebSocketResponse, WSMsgType

from gateway.client.retry import End, closed_with
from gateway.errors import KINDS, GatewayError, NoAnswer, NotConnected
from gateway.message import Message

_ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)
_BY_CODE = {kind.code: kind for kind in reversed(KINDS.values())}


class NotSent(NotConnected):
    """The connection had ended before: the message may go over the next one."""


class Link:
    """Speaks `gateway.v1.json` over a WebSocket, until it ends."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.sent = 0
        self.received = 0
        self.ended = asyncio.Event()
        self._socket = socket
        self._reason = ""
        self._ids = itertools.count(1)
        self._answers: dict[object, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pending(self) -> int:
        """Requests without an answer yet."""
        return len(self._answers)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside the reading, for as long as the link lasts."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def send(self, cmd: str, param: object, channel: str | None, id: int | None = None) -> None:
        """Send a message. Raises `NotSent`."""
        message = {"cmd": cmd, "param": param, "channel": channel, "id": id}
        text = orjson.dumps({key: value for key, value in message.items() if value is not None}).decode()
        try:
            await self._socket.send_str(text)
        except (ClientError, ConnectionError) as error:
            raise NotSent("the connection has ended") from error
        self.sent += 1

    async def request(self, cmd: str, param: object, channel: str | None, timeout: float) -> Any:
        """Send a command and return the answer to it.

        Raises the `GatewayError` that the server answers, `NoAnswer`, and `NotConnected` when the link ends first.
        """
        id = next(self._ids)
        answer = self._answers[id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self.send(cmd, param, channel, id)
                return await answer
        except TimeoutError:
            raise NoAnswer(f"no answer to {cmd!r} within {timeout:g} s") from None
        finally:
            del self._answers[id]

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what comes and answers no request, until the end."""
        while (frame := await self._socket.receive()).type not in _ENDS:
            if frame.type is not WSMsgType.TEXT:
                continue
            self.received += 1
            message = _read(frame.data)
            if message is not None and not self._settle(message):
                yield message
        if frame.type is WSMsgType.CLOSE:
            self._reason = frame.extra or ""

    async def close(self) -> None:
        """End it, in good order where that is quick; whoever awaits an answer is told."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=1)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(NotConnected("the connection ended before the answer came"))
        await self._socket.close()
        self.ended.set()

    @property
    def end(self) -> End:
        """How it ended, and what that means."""
        return closed_with(self._socket.close_code, self._reason)

    def _settle(self, message: Message) -> bool:
        answer = self._answers.get(message.id)
        if answer is None or message.cmd not in ("$reply", "$error"):
            return message.cmd == "$reply"
        if not answer.done():
            if message.cmd == "$reply":
                answer.set_result(message.param)
            else:
                answer.set_exception(error_of(message.param))
        return True


def error_of(param: Any) -> GatewayError:
    """Make the error that a `$error` message tells."""
    fields = dict(param) if isinstance(param, dict) else {}
    code, text = str(fields.pop("code", "internal")), str(fields.pop("message", ""))
    error = _BY_CODE.get(code, GatewayError)(text)
    error.code = code
    error.fields = fields
    return error


def _read(text: str) -> Message | None:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("cmd"), str):
        return None
    return message_of(found)


def message_of(found: dict[str, Any]) -> Message:
    """Make a message of its JSON object."""
    return Message(
        found.get("channel") or "",
        found["cmd"],
        found.get("param"),
        sender=found.get("from"),
        id=found.get("id"),
        offset=found.get("offset"),
    )
