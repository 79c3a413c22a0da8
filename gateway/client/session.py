"""The client as an application sees it: join, leave, send, request, and iterate over what comes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Generator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import ClientSession

from gateway.client.encode import encoded
from gateway.client.inbox import Inbox
from gateway.client.link import Link, NotSent, error_of, message_of, no_answer
from gateway.client.reconnect import Connection, State, Welcome
from gateway.client.retry import CAP, FIRST, Backoff
from gateway.client.subscription import Counts, Subscription
from gateway.client.times import LONGEST, checked, limit
from gateway.client.token import Token
from gateway.errors import GatewayError, NoAnswer, NotConnected
from gateway.protocol.message import Message, Position, check_channel

T = TypeVar("T")

logger = logging.getLogger(__name__)

ALWAYS = ("$gap", "$left")
"""What a reader of one command hears as well: that it may have missed some, or will hear no more."""


@dataclass(frozen=True, slots=True)
class Presence:
    """Who is in a channel: how many users, and their ids; None where they are more than the node names (1,000)."""

    count: int
    users: list[str] | None


@dataclass(frozen=True, slots=True)
class History:
    """Past messages, oldest first, and the epoch and offset that the channel's history has reached by now."""

    messages: list[Message]
    epoch: str | None
    offset: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What a client has done so far."""

    state: State
    connects: int
    sent: int
    received: int
    dropped: int
    """Messages for which an `Inbox` had no room."""
    duplicates: int
    """Messages that came again and were not told again."""
    gaps: int
    pending: int
    """Requests without an answer yet."""


def connect(
    url: str,
    *,
    token: Token | None = None,
    channels: Iterable[str] = (),
    timeout: float = 10,
    buffer: int = 1000,
    first_delay: float = FIRST,
    max_delay: float = CAP,
    on_state: Callable[[State], None] | None = None,
    session: ClientSession | None = None,
) -> Client:
    """Make a client of a gateway, for `async with` or `await`.

    Either waits until it is connected, however long that takes, and raises when the server refuses it for good:
    `Unauthorized`, `Forbidden`, or `NotConnected` for all else that no other attempt can mend.

    `token` is a JWT, or a function that returns one: it is asked for every connection, and before a token expires.
    `channels` are joined from the start; who is connected before they are all joined waits no more than 5 seconds for
    them. `timeout` is that of a request in seconds (0 or infinity: none), `buffer` how many messages wait for a slow
    reader. `first_delay` and `max_delay`, in seconds, bound the first pause before a reconnect, and every pause.
    `on_state` hears every change of `state`, in the event loop. `session` is an aiohttp session to use; the caller
    closes it. Raises `InvalidChannel`, and `ValueError` for what is no time.
    """
    return Client(
        url,
        token=token,
        channels=channels,
        timeout=timeout,
        buffer=buffer,
        backoff=Backoff(checked("first_delay", first_delay), limit("max_delay", max_delay) or LONGEST, random.random),
        on_state=on_state,
        session=session,
    )


class Client:
    """A connection to a gateway that comes back by itself; for one event loop. Made by `connect`.

    It reconnects with full jitter (up to 0.5 s, doubling to 20 s, begun anew after 10 stable seconds), or at the
    moment the server named; not after 4400, 4403 and 4410, and after 4401 once, with another token. Its channels are
    joined again before anything else is sent, for 5 seconds at most. What is sent meanwhile waits for the connection.

    Messages come in the order in which the node sent them. Of a channel that keeps history each comes once, also
    across reconnects, and where some are missing a `$gap` stands in their place. As an async iterator it yields all
    messages that come, from the start. Before `async with` or `await`, what needs a connection raises `NotConnected`.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None,
        channels: Iterable[str],
        timeout: float,
        buffer: int,
        backoff: Backoff,
        on_state: Callable[[State], None] | None,
        session: ClientSession | None,
    ) -> None:
        self._connection = Connection(url, token, self, backoff=backoff, session=session)
        self._first = [check_channel(channel) for channel in channels]
        """To be joined from the start."""
        self._timeout, self._buffer, self._on_state = limit("timeout", timeout), buffer, on_state
        self._subscriptions: dict[str, Subscription] = {}
        self._left = Counts()
        """Of channels that were left."""
        self._inboxes: set[Inbox] = set()
        self._dropped = 0
        self._failure: GatewayError | None = None
        """Why it has ended, unless that was wanted."""
        self._all = self.messages()

    @property
    def state(self) -> State:
        """`idle`, `connecting`, `open`, `waiting` (for the next attempt), `closed` or `failed` (refused for good)."""
        return self._connection.state

    @property
    def welcome(self) -> Welcome | None:
        """What the present connection, or the last one, was welcomed with; None before the first."""
        return self._connection.welcome

    # ---- life

    async def __aenter__(self) -> Self:
        return await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __await__(self) -> Generator[Any, None, Self]:
        return self._start().__await__()

    def __aiter__(self) -> Inbox:
        return self._all

    async def close(self) -> None:
        """Disconnect for good, within some 3 seconds; harmless when repeated.

        Whoever iterates reads what came before; what waits to be sent or answered raises `NotConnected`.
        """
        await self._connection.close()

    async def _start(self) -> Self:
        for channel in self._first:
            self._subscriptions.setdefault(channel, self._subscription(channel))
        self._connection.start()
        try:
            await self._connection.opened()
        except BaseException:
            await self.close()
            raise
        return self

    # ---- channels

    async def join(self, channel: str) -> None:
        """Join a channel and stay joined, across reconnects; return when the node has confirmed it.

        Waits for that without a limit: a node that is busy, or without its Redis, is asked again. Cancelling the wait
        does not give up the join. Raises the `GatewayError` with which the node refuses, `InvalidChannel`,
        `NotConnected` when the channel is left meanwhile, and after the end of the client what `send` would. A channel
        that is refused only later, at a reconnect, is told as an `$error` message on it.
        """
        if self._has_ended:
            raise self._why()
        known = self._subscriptions.get(check_channel(channel))
        if known is None or known.refused is not None:
            known = self._subscriptions[channel] = self._subscription(channel)
            # A link that is there has begun to resume, without this channel; the next one will know of it.
            if self._connection.link is not None:
                known.enter(self._connection.link)
        await asyncio.shield(known.joined)  # others may wait for the same join, which is not cancelled with one of them

    async def leave(self, channel: str) -> None:
        """Leave a channel and stay away; return when that is so, which the end of the connection brings as well.

        Harmless where it was not joined. Raises `NoAnswer` past the client's `timeout`, and what the node answers: then
        the client is out of it at its next reconnect at the latest.
        """
        subscription = self._subscriptions.pop(channel, None)  # first: a reconnect meanwhile is not to join it again
        if subscription is None:
            return
        subscription.leave()
        self._left += subscription.counts
        if (link := self._connection.link) is not None:
            try:
                await link.request("$leave", None, channel, self._timeout)
            except NotConnected:
                return

    def position(self, channel: str) -> Position | None:
        """Return how far a channel with history was read; None without history, and before it is joined."""
        subscription = self._subscriptions.get(channel)
        return subscription.progress.position if subscription else None

    async def presence(self, channel: str) -> Presence:
        """Ask who is in a channel; raises what `request` raises, such as `Forbidden` for who is no member."""
        answer = await self.request("$presence", channel=channel)
        return Presence(answer["count"], answer.get("users"))

    async def history(self, channel: str, *, since: Position | None = None, limit: int | None = None) -> History:
        """Read past messages: the newest `limit` ones, or the first `limit` after `since`; oldest first.

        One answer is a page of 1,000 messages and 256 KiB at most: while its last message is not the one at `offset`,
        there are more, to be read `since` it. Raises what `request` raises, such as `Forbidden` for who is no member.
        """
        position = since and {"epoch": since.epoch, "offset": since.offset}
        wanted = {key: value for key, value in (("since", position), ("limit", limit)) if value is not None}
        answer = await self.request("$history", wanted, channel=channel)
        return History([message_of(found) for found in answer["messages"]], answer["epoch"], answer["offset"])

    # ---- messages

    async def send(self, cmd: str, param: object = None, *, channel: str | None = None) -> None:
        """Send a command; wait for a connection if there is none, without a limit.

        Returns when it is handed to the socket: if the connection breaks then, it may be lost. What must arrive is for
        `request`. What one task sends goes out in order. Raises `NotConnected` after the end (or why the server refused
        the client), and `TypeError` for what JSON cannot carry.
        """
        text = encoded(param)
        await self._over_a_link(lambda link: link.send(cmd, text, channel))

    async def request(
        self, cmd: str, param: object = None, *, channel: str | None = None, timeout: float | None = None
    ) -> Any:
        """Send a command and return the handler's answer.

        `timeout` is in seconds and includes the wait for a connection; 0 is none, None the client's own. Raises the
        `GatewayError` that the server answers, `NoAnswer`, and `NotConnected` when the connection that carried the
        request is lost: nobody knows then whether it was handled. `TypeError` is for what JSON cannot carry.
        """
        text = encoded(param)
        patience = self._timeout if timeout is None else limit("timeout", timeout)
        try:
            async with asyncio.timeout(patience):
                return await self._over_a_link(lambda link: link.request(cmd, text, channel, patience))
        except NoAnswer:
            raise
        except TimeoutError:
            raise no_answer(cmd, patience) from None

    async def _over_a_link(self, use: Callable[[Link], Awaitable[T]]) -> T:
        """Use the connection, or the next one if this one turns out to have ended before anything was sent."""
        while True:
            link = await self._connection.opened()
            try:
                return await use(link)
            except NotSent:
                # `opened` may still give this link: it is replaced once its reader has noticed the end.
                await link.ended.wait()

    def messages(self, channel: str | None = None, cmd: str | None = None, *, limit: int | None = None) -> Inbox:
        """Return an iterator over the messages that come from now on: of a channel, of a command, or all.

        The `$gap` and `$left` of its channels are always among them. Each iterator gets every message that it is for,
        and holds up to `limit` (None: the client's `buffer`) for its reader; past that the oldest are dropped, and a
        `$gap` stands in their place. `close()` it when it is not read any more. Never waits.
        """

        def is_wanted(message: Message) -> bool:
            return channel in (None, message.channel) and (cmd in (None, message.cmd) or message.cmd in ALWAYS)

        inbox = Inbox(is_wanted, self._buffer if limit is None else limit, self._inboxes.discard)
        self._inboxes.add(inbox)
        if self._has_ended:
            inbox.end(self._failure)
        return inbox

    def stats(self) -> Stats:
        """Count what was done so far, over all connections."""
        connection, link = self._connection, self._connection.link
        counts = sum((channel.counts for channel in self._subscriptions.values()), self._left)
        return Stats(
            connection.state,
            connection.connects,
            connection.sent + (link.sent if link else 0),
            connection.received + (link.received if link else 0),
            self._dropped,
            counts.duplicates,
            counts.gaps,
            link.pending if link else 0,
        )

    # ---- what the connection tells

    async def resume(self, link: Link) -> None:
        """Join all channels again, in one round trip."""
        if entering := [channel.enter(link) for channel in self._subscriptions.values()]:
            await asyncio.wait(entering)

    def heard(self, message: Message) -> None:
        """Pass a message on, once and in order where its channel keeps a history."""
        subscription = self._subscriptions.get(message.channel)
        if message.cmd == "$left":
            self._taken_out(message)
        elif subscription is not None:
            subscription.hear(message)
        else:
            self._tell(message)

    def _taken_out(self, message: Message) -> None:
        """Let go of a channel that the server has taken us out of; whoever wants in asks anew."""
        # A join that the node has yet to answer was asked for since: its answer tells whether we are in.
        if (link := self._connection.link) is not None and link.is_joining(message.channel):
            return
        if (subscription := self._subscriptions.pop(message.channel, None)) is not None:
            reason = message.param.get("reason") if isinstance(message.param, dict) else None
            text = f"the server has taken us out of {message.channel}"
            subscription.leave(error_of({"code": reason or "removed", "message": text}))
            self._left += subscription.counts
        self._tell(message)

    def changed(self, state: State) -> None:
        """Pass a change of state on."""
        if self._on_state is not None:
            try:
                self._on_state(state)
            except Exception:
                logger.exception("on_state failed")

    def ended(self, failure: GatewayError | None) -> None:
        """Let whoever reads or waits know that nothing more will come."""
        self._failure = failure
        for inbox in self._inboxes:
            inbox.end(failure)
        for subscription in self._subscriptions.values():
            subscription.fail(self._why())

    @property
    def _has_ended(self) -> bool:
        return self.state in ("closed", "failed")

    def _why(self) -> GatewayError:
        return self._failure or NotConnected("the client is closed")

    def _subscription(self, channel: str) -> Subscription:
        return Subscription(channel, self._tell)

    def _tell(self, message: Message) -> None:
        for inbox in self._inboxes:
            self._dropped += inbox.put(message)
