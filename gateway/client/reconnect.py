"""The loop that keeps a client connected: connect, wait for `$welcome`, rejoin, read until the end, pause, again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

from aiohttp import (
    ClientError,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    ClientWSTimeout,
    DummyCookieJar,
    WSServerHandshakeError,
)

from gateway.client.link import Link
from gateway.client.retry import LOST, Backoff, End, refused_with
from gateway.client.times import pause
from gateway.client.token import Token, Unusable, fetch, renewal_delay
from gateway.errors import Forbidden, GatewayError, NotConnected, Unauthorized
from gateway.protocol.message import Message

logger = logging.getLogger(__name__)

PROTOCOL = "gateway.v1.json"
CONNECT_TIMEOUT = 10.0
"""Seconds for name, TCP, TLS and upgrade together: a node answers at once, and one that is dead never does."""
CLOSE_TIMEOUT = 2.0
"""Seconds that the closing handshake may take: whoever closes the client waits for it."""
HEARTBEAT = 20.0
"""Seconds between pings to the node; one that does not answer within half of that is taken for dead.

Proxies end what was silent for 60 seconds, some after 30. The node's pings tell only the node who is dead.
"""
STABLE = 10.0
"""Seconds that a connection must hold before earlier failures are forgotten: else a node that takes clients in and
fails at once would be dialled twice a second by all of them."""
PATIENCE = 5.0
"""Seconds that slow channels may keep everything else from going on: they go on joining beside it."""

MOST_UNUSABLE = 5
"""How often in a row a function may answer what cannot be a token: a server that restarts shows such pages for some
seconds, a wrong address shows them for ever."""

State = Literal["idle", "connecting", "open", "waiting", "closed", "failed"]
"""What a client is doing; `waiting` is for its next attempt, `failed` is refused for good, `closed` was wanted."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a node says first: the id of the connection, the node's, the user's, and the channels it is in already.

    `heartbeat` is the seconds between two pings of the node, 0 where it sends none.
    """

    connection: str
    node: str
    user: str
    channels: list[str]
    heartbeat: float


class Owner(Protocol):
    """Whose connection it is."""

    async def resume(self, link: Link) -> None:
        """Take part again over a new link, before anything else is sent."""

    def heard(self, message: Message) -> None:
        """Take a message that answers no request."""

    def changed(self, state: State) -> None:
        """Hear of a new state."""

    def ended(self, failure: GatewayError | None) -> None:
        """Hear that nothing more will come, and why if that was not wanted."""


class Connection:
    """One link after the other, to the same address: what `Connection` is in the browser client."""

    def __init__(
        self, url: str, token: Token | None, owner: Owner, *, backoff: Backoff, session: ClientSession | None
    ) -> None:
        self.state: State = "idle"
        self.welcome: Welcome | None = None
        """What the link at hand, or the last one, was welcomed with."""
        self.link: Link | None = None
        """From the welcome on, until it is lost."""
        self.connects = self.sent = self.received = 0
        """Of the links before the one at hand, as far as they are messages."""
        self._url, self._token, self._owner = url, token, owner
        self._backoff = backoff
        self._session, self._owns_session = session, session is None
        self._refused: str | None = None
        """The token for which the last connection was refused."""
        self._unusable = 0
        """What the token's source has answered in a row that cannot be a token."""
        self._opened: asyncio.Future[Link] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect."""
        if self._task is None:
            timeout = ClientTimeout(total=None)
            self._session = self._session or ClientSession(cookie_jar=DummyCookieJar(), timeout=timeout)
            self._opened = _promise()
            self._task = asyncio.create_task(self._run(self._session))

    async def opened(self) -> Link:
        """Wait for a link that is ready for the application. Raises why there will be none."""
        if self._opened is None:
            raise NotConnected("the client was not started: use `async with` or `await`")
        return await asyncio.shield(self._opened)

    async def close(self) -> None:
        """End for good."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._finish("closed", None)
        if self._owns_session and self._session is not None:
            await self._session.close()

    async def _run(self, session: ClientSession) -> None:
        try:
            await self._keep_going(session)
        except Exception as error:
            logger.exception("the client has failed")
            self._finish("failed", NotConnected(f"the client has failed: {error!r}"))

    async def _keep_going(self, session: ClientSession) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._enter("connecting")
            began = loop.time()
            end = await self._live(session)
            if self.state == "open" and loop.time() - began >= STABLE:
                self._backoff.reset()
            if end.verdict == "closed":
                return self._finish("closed", None)
            if end.verdict == "failed":
                return self._finish("failed", _failure(end))
            delay = self._backoff.next() if end.retry_after is None else end.retry_after
            logger.info("connection lost: code=%s reason=%s; again in %.1f s", end.code, ascii(end.reason), delay)
            self._lose()
            self._enter("waiting")
            await pause(delay)

    async def _live(self, session: ClientSession) -> End:
        """Dial, and stay until the connection ends."""
        token: str | None = None
        try:
            token = await self._fetch()
            if token is not None and token == self._refused:
                return End(4401, "there is no other token", "failed")
            socket = await self._dial(session, token)
        except Unusable as error:
            return self._without_token(error)
        except WSServerHandshakeError as error:
            return self._once(refused_with(error), token)
        except ValueError as error:  # a wrong address, or no gateway: no attempt can mend that
            return End(LOST, str(error), "failed")
        except (ClientError, OSError, NotConnected) as error:
            return End(LOST, f"{type(error).__name__}: {error}")
        link = Link(socket)
        try:
            end = await self._read(link, token)
        finally:
            self.link = None  # first: nobody is to begin anything on it while it is being closed
            await link.close()
            self.sent, self.received = self.sent + link.sent, self.received + link.received
        return self._once(end, token)

    async def _fetch(self) -> str | None:
        try:
            token = await fetch(self._token)
            self._unusable = 0
            return token
        except Unusable:
            raise
        except Exception as error:  # the application's own; its text might hold the token
            logger.warning("no token: %s", type(error).__name__)
            raise NotConnected("there is no token") from error

    def _without_token(self, error: Unusable) -> End:
        """Let a function that answers nonsense be asked again: a server that is restarted answers such pages."""
        self._unusable += 1
        if callable(self._token) and self._unusable < MOST_UNUSABLE:
            logger.warning("no token: %s", error)
            return End(LOST, str(error))
        return End(LOST, str(error), "failed")

    async def _dial(self, session: ClientSession, token: str | None) -> ClientWebSocketResponse:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with asyncio.timeout(CONNECT_TIMEOUT):
            socket = await session.ws_connect(
                self._url,
                protocols=[PROTOCOL],
                headers=headers,
                heartbeat=HEARTBEAT,
                max_msg_size=0,
                timeout=ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
            )
        if socket.protocol == PROTOCOL:
            return socket
        await socket.close()
        raise ValueError(f"the server does not speak {PROTOCOL}")

    def _once(self, end: End, token: str | None) -> End:
        """Let a refused token be replaced once: who refuses the fresh one as well will refuse the next."""
        if end.verdict != "renew":
            return end
        if self._refused is not None or not callable(self._token):
            return end._replace(verdict="failed")
        self._refused = token
        return end

    async def _read(self, link: Link, token: str | None) -> End:
        async for message in link.messages():
            if message.cmd == "$welcome":
                # Beside the reading: it joins the channels again, and awaits answers that are read here.
                link.spawn(self._welcomed(link, message.param))
                if token is not None and callable(self._token):
                    link.spawn(self._renew(link, token))
            elif message.cmd == "close-connection":
                return End(4410, message.cmd, "closed")
            else:
                self._owner.heard(message)
        return link.end

    async def _welcomed(self, link: Link, param: dict[str, Any]) -> None:
        self.welcome = Welcome(**{field.name: param[field.name] for field in fields(Welcome)})
        # The link is there for joins and leaves at once, for all else when the channels are joined again. Should it end
        # meanwhile, this is cancelled with it (`Link.close`), and whoever waits goes on waiting.
        self.link, self._refused = link, None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._owner.resume(link)
        self.connects += 1
        self._enter("open")
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(link)

    async def _renew(self, link: Link, token: str) -> None:
        """Show a fresh token before the one at hand expires."""
        while (delay := renewal_delay(token)) is not None:
            await pause(delay)
            with contextlib.suppress(GatewayError, Unusable):
                fresh = await self._fetch()
                if fresh and fresh != token:
                    await link.request("$auth", {"token": fresh}, None, CONNECT_TIMEOUT)
                    token = fresh

    def _lose(self) -> None:
        """Let whoever wants to send wait for the next link."""
        # Not one that is still open: whoever waits for it has waited since before the last attempt, and goes on.
        if self._opened is not None and self._opened.done():
            self._opened = _promise()

    def _finish(self, state: Literal["closed", "failed"], failure: GatewayError | None) -> None:
        if self.state in ("closed", "failed"):
            return
        self._lose()
        if self._opened is not None:
            self._opened.set_exception(failure or NotConnected("the client is closed"))
        self._enter(state)
        self._owner.ended(failure)

    def _enter(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._owner.changed(state)


def _promise() -> asyncio.Future[Link]:
    """Make a future of which asyncio does not complain when it fails and nobody waits for it."""
    promise: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
    promise.add_done_callback(lambda done: done.cancelled() or done.exception())
    return promise


def _failure(end: End) -> GatewayError:
    if end.code == LOST:
        return NotConnected(end.reason)
    kind = {401: Unauthorized, 4401: Unauthorized, 403: Forbidden, 4403: Forbidden}.get(end.code, NotConnected)
    return kind(f"the server refused the connection: {end.code} {end.reason}".strip())
