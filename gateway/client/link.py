"""One open WebSocket to a node: sends commands over it, and matches the answers to the requests."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Coroutine
from typing import Any, NamedTuple

import orjson
from aiohttp import ClientError, ClientWebSocketResponse, WSMsgType

from gateway.client.encode import well_formed
from gateway.client.retry import End, closed_with
from gateway.errors import KINDS, GatewayError, NoAnswer, NotConnected
from gateway.protocol.message import Message

_ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)
_BY_CODE = {kind.code: kind for kind in reversed(KINDS.values())}


class NotSent(NotConnected):
    """The connection had ended before: the message may go over the next one."""


class Asked(NamedTuple):
    """A request whose answer somebody awaits."""

    cmd: str
    channel: str | None
    answer: asyncio.Future[Any]


class Link:
    """Speaks `gateway.v1.json` over a WebSocket, until it ends."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.sent = 0
        self.received = 0
        self.ended = asyncio.Event()
        self._socket = socket
        self._reason = ""
        self._ids = itertools.count(1)
        self._asked: dict[object, Asked] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pending(self) -> int:
        """Requests without an answer yet."""
        return len(self._asked)

    def is_joining(self, channel: str) -> bool:
        """Whether the node has yet to answer a `$join`: exact in the order of what came, whoever has been told."""
        return any(one.cmd == "$join" and one.channel == channel for one in self._asked.values() if _waits(one))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside the reading, for as long as the link lasts."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def send(self, cmd: str, param: object, channel: str | None, id: int | None = None) -> None:
        """Send a message; what comes from the application is `encoded`. Raises `NotSent`."""
        named = None if channel is None else well_formed(channel)
        message = {"cmd": well_formed(cmd), "param": param, "channel": named, "id": id}
        text = orjson.dumps({key: value for key, value in message.items() if value is not None}).decode()
        try:
            await self._socket.send_str(text)
        except (ClientError, ConnectionError) as error:
            raise NotSent("the connection has ended") from error
        self.sent += 1

    async def request(self, cmd: str, param: object, channel: str | None, timeout: float | None) -> Any:
        """Send a command and return the answer to it, however long that takes where there is no `timeout`.

        Raises the `GatewayError` that the server answers, `NoAnswer`, and `NotConnected` when the link ends first.
        """
        id = next(self._ids)
        asked = self._asked[id] = Asked(cmd, channel, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(timeout):
                await self.send(cmd, param, channel, id)
                return await asked.answer
        except TimeoutError:
            raise no_answer(cmd, timeout) from None
        finally:
            del self._asked[id]

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
        # First the tasks: a rejoin or a renewal that were told of the lost answer would go on over this link.
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=1)
        for one in self._asked.values():
            if _waits(one):
                one.answer.set_exception(NotConnected("the connection ended before the answer came"))
        await self._socket.close()
        self.ended.set()

    @property
    def end(self) -> End:
        """How it ended, and what that means."""
        return closed_with(self._socket.close_code, self._reason)

    def _settle(self, message: Message) -> bool:
        asked = self._asked.get(message.id)
        # A `$reply` without a request came after that had timed out or was cancelled: it is for nobody. An `$error`
        # without one is about something that was sent, and is told.
        if asked is None or message.cmd not in ("$reply", "$error"):
            return message.cmd == "$reply"
        if _waits(asked):
            if message.cmd == "$reply":
                asked.answer.set_result(message.param)
            else:
                asked.answer.set_exception(error_of(message.param))
        return True


def _waits(asked: Asked) -> bool:
    return not asked.answer.done()


def no_answer(cmd: str, timeout: float | None) -> NoAnswer:
    """Make the error of who has waited long enough."""
    return NoAnswer(f"no answer to {cmd!r} within {timeout} s")


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
