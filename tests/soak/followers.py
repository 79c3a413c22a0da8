"""Clients that follow their channels through everything: the Python client, msgpack by hand, and plain sockets."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, cast

import jwt
import msgpack
import orjson
from aiohttp import (
    ClientError,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    ClientWSTimeout,
    DummyCookieJar,
    TCPConnector,
    WSMessage,
    WSMsgType,
)

from gateway.client import connect
from gateway.errors import Close, GatewayError
from tests.soak.ledger import Hearing, Stream, Verdict
from tests.soak.scene import SECRET

ANSWERS = ("$welcome", "$reply", "$error")
CONNECT_SECONDS = 10

Life = Callable[[str], str]
"""Names the present life of a node."""


class Tally:
    """What came over the sockets of one client, answers to its own requests aside."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self.connections = 0
        self.messages = 0
        self.by_life: Counter[str] = Counter()
        """By the life of the node that wrote them, where the client was told whose it is."""
        self.node = ""
        self._lived = ""

    def dialled(self) -> None:
        self.connections += 1
        self.node = self._lived = ""

    def count(self, frame: Any) -> None:
        message = decoded(frame)
        if message is None:
            return
        if message["cmd"] == "$welcome":
            self.node = message["param"]["node"]
            self._lived = self._life(self.node)
        elif message["cmd"] not in ANSWERS:
            self.messages += 1
            self.by_life[self._lived] += 1


class Ear(ClientWebSocketResponse[Any]):
    """A WebSocket that counts what comes before anybody else sees it."""

    def __init__(self, tally: Tally, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._tally = tally
        tally.dialled()

    async def receive(self, timeout: float | None = None) -> Any:
        frame = await super().receive(timeout)
        self._tally.count(frame)
        return frame


class Follower(ABC):
    """One client, and what it heard of each stream of its channels."""

    kind = ""
    told = True
    """Whether it speaks a subprotocol: it resumes, and hears of gaps."""

    def __init__(self, number: int, url: str, streams: Iterable[Stream], life: Life, user: str) -> None:
        self.agent = f"soak-{number}"
        self.url = url
        self.user = user
        self.token = jwt.encode({"sub": user}, SECRET, "HS256") if user else None
        self.hearings = {
            (stream.channel, stream.writer): Hearing(stream, resumes=self.told and stream.kept) for stream in streams
        }
        self.channels = list(dict.fromkeys(channel for channel, _ in self.hearings))
        self.tally = Tally(life)
        self.gaps: Counter[str] = Counter()
        self.lenient = False
        """Whether a fault is under way that a plain client is not told of."""
        self._heard_over: dict[tuple[str, str], int] = {}
        """By stream: the connection over which the last number came, unless a gap was told since."""
        self._session: ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow, for good."""
        factory = cast("type[ClientWebSocketResponse[Any]]", partial(Ear, self.tally))
        self._session = ClientSession(
            connector=TCPConnector(limit=0),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None),
            headers={"User-Agent": self.agent},
            ws_response_class=factory,
        )
        self._task = asyncio.create_task(self._follow(self._session), name=self.agent)

    async def stop(self) -> None:
        """Disconnect in good order."""
        if self._task is not None and self._session is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            await self._session.close()

    @property
    def failed(self) -> str:
        """Why it follows no more, though nobody stopped it; "" while it does."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return ""
        return f"{self.kind} {self.agent}: {self._task.exception()!r}"

    @property
    def dropped(self) -> int:
        """Messages that this process was too slow for."""
        return 0

    def beyond(self, marks: dict[Stream, int]) -> bool:
        """Tell whether something was heard in each channel that was written later than these numbers."""
        reached = {h.stream.channel for h in self.hearings.values() if h.last > marks[h.stream]}
        return len(reached) == len(self.channels)

    def verdict(self, *, resumed: bool) -> Verdict:
        """Judge what was heard of the channels that are resumed, or of the others."""
        return sum((h.verdict() for h in self.hearings.values() if h.resumes is resumed), Verdict())

    def wrong(self) -> list[str]:
        """Say what should not be and was not said before."""
        return [f"{self.kind} {self.agent}: {words}" for h in self.hearings.values() for words in h.wrong()]

    def take(self, channel: str, cmd: str, param: Any) -> None:
        """Take in what the client was told."""
        if cmd == "$gap":
            self._gap(channel)
        elif cmd == "n" and (hearing := self.hearings.get((channel, param["by"]))) is not None:
            key = channel, param["by"]
            hearing.heard(param["n"], excused=self._excused(hearing, key))
            self._heard_over[key] = self.tally.connections

    def end(self) -> None:
        """Miss what has not come by now."""
        for key, hearing in self.hearings.items():
            hearing.end(excused=self._excused(hearing, key))

    def calm(self) -> None:
        """Hear that the fault is over: what is missing before the next number was lost in it."""
        if self.lenient and not self.told:
            self._heard_over = {}
        self.lenient = False

    def _excused(self, hearing: Hearing, key: tuple[str, str]) -> bool:
        """Tell whether what is missing before the next number is no wonder."""
        over = self._heard_over.get(key)
        if hearing.resumes:
            return over == -1
        return over != self.tally.connections or (self.lenient and not self.told and not hearing.stream.kept)

    def _gap(self, channel: str) -> None:
        self.gaps[channel] += 1
        for key in self.hearings:
            if key[0] == channel:
                self._heard_over[key] = -1

    @abstractmethod
    async def _follow(self, session: ClientSession) -> None: ...


class Resuming(Follower):
    """The Python client, which comes back and resumes by itself."""

    kind = "client"

    async def _follow(self, session: ClientSession) -> None:
        self.client = connect(self.url, token=self.token, channels=self.channels, session=session)
        async with self.client as client:
            async for message in client:
                self.take(message.channel, message.cmd, message.param)
        raise GatewayError(f"the client has ended: {client.state}")

    @property
    def dropped(self) -> int:
        return self.client.stats().dropped

    async def say(self, cmd: str, param: object, channel: str) -> None:
        """Send a command and wait for the answer."""
        await self.client.request(cmd, param, channel=channel, timeout=20)


class ByHand(Follower):
    """Dials again and again; what is done over a connection is a subclass's."""

    protocols: tuple[str, ...] = ()

    async def _follow(self, session: ClientSession) -> None:
        failures = 0
        while True:
            pause = min(5, 0.3 * 2**failures) * random.random()
            failures += 1
            with suppress(ClientError, OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    socket = await self._dial(session)
                try:
                    pause = await self._listen(socket) or pause
                    failures = 0
                finally:
                    self._lose()
                    await socket.close()
            await asyncio.sleep(pause)

    async def _dial(self, session: ClientSession) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return await session.ws_connect(
            self.url,
            protocols=self.protocols,
            headers=headers,
            heartbeat=20,
            timeout=ClientWSTimeout(ws_close=2),
            max_msg_size=0,
        )

    async def _listen(self, socket: Any) -> float | None:
        """Take in what comes until the end; return after how many seconds the node wants to see us again."""
        while True:
            frame: WSMessage = await socket.receive()
            if (message := decoded(frame)) is not None:
                await self._take(socket, message)
            elif frame.type is not WSMsgType.PING:
                return Close(frame.data, frame.extra or "").retry_after if frame.type is WSMsgType.CLOSE else None

    async def _take(self, socket: Any, message: dict[str, Any]) -> None:
        self.take(message["channel"], message["cmd"], message.get("param"))

    def _lose(self) -> None:
        """Hear that the connection is gone."""


class Plain(ByHand):
    """The original's client: joins by the address, hears neither answers nor gaps."""

    kind = "plain"
    told = False


class ByMsgpack(ByHand):
    """Resumes by hand, and trusts the node to repeat nothing."""

    kind = "msgpack"
    protocols = ("gateway.v1.msgpack",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._epochs: dict[str, str | None] = {}
        self._offsets: dict[str, int] = {}
        self._held: dict[str, int] = {}
        """While a join is not answered: the newest offset that does not follow on what we have."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def _take(self, socket: Any, message: dict[str, Any]) -> None:
        match message:
            case {"cmd": "$welcome"}:
                for channel in self.channels:
                    await self._join(socket, channel)
            case {"cmd": "$reply", "id": str(channel), "param": answer}:
                self._joined(channel, answer)
            case {"cmd": "$error", "id": str(channel), "param": {"retry_after": after}}:
                self._spawn(self._join(socket, channel, after=after))
            case {"cmd": "$error"}:
                raise GatewayError(f"{message}")
            case _:
                self._follow_on(message)
                await super()._take(socket, message)

    def _follow_on(self, message: dict[str, Any]) -> None:
        channel, offset = message["channel"], message.get("offset")
        if message["cmd"] == "$gap" and (epoch := (message.get("param") or {}).get("epoch")):
            self._epochs[channel], self._offsets[channel] = epoch, 0
        if offset is None:
            return
        if channel in self._held and offset != self._offsets.get(channel, -1) + 1:
            self._held[channel] = offset
        else:
            self._offsets[channel] = offset

    async def _join(self, socket: Any, channel: str, *, after: float = 0) -> None:
        await asyncio.sleep(after)
        since = None
        if (epoch := self._epochs.get(channel)) is not None:
            since = {"since": {"epoch": epoch, "offset": self._offsets[channel]}}
        self._held[channel] = 0
        request = {"cmd": "$join", "channel": channel, "id": channel, "param": since}
        await socket.send_bytes(msgpack.packb(request))

    def _joined(self, channel: str, answer: dict[str, Any]) -> None:
        epoch, offset = answer["epoch"], answer["offset"] or 0
        known = self._epochs.get(channel)
        if known is not None and not answer["recovered"]:
            self._gap(channel)
        if known != epoch:
            self._offsets[channel] = 0
        self._epochs[channel] = epoch
        self._offsets[channel] = max(self._offsets.get(channel, 0), self._held.pop(channel, 0), offset)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    def _lose(self) -> None:
        self._held.clear()
        for task in self._tasks:
            task.cancel()


def decoded(frame: Any) -> dict[str, Any] | None:
    """Return the message in a frame, if there is one."""
    if frame.type is WSMsgType.TEXT:
        return cast("dict[str, Any]", orjson.loads(frame.data))
    if frame.type is WSMsgType.BINARY:
        return cast("dict[str, Any]", msgpack.unpackb(frame.data))
    return None
