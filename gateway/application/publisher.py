"""Writes to a cluster from a process that is no node: a web application, a worker, a cron job."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Collection, Coroutine
from concurrent import futures
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Self, TypeVar

from gateway.application.guest import Guest, settings_of
from gateway.application.writing import Writing
from gateway.backplane import Target
from gateway.errors import GatewayError, Unavailable
from gateway.operations.tracing import open_tracing
from gateway.protocol.envelope import Envelope
from gateway.protocol.message import Position

T = TypeVar("T")


class Publisher(Writing):
    """The `write_*` calls of a service without a server, for one event loop at a time.

        async with Publisher("redis://localhost:6379/0") as publisher:
            await publisher.write_channel("chat", {"text": "hi"}, "lobby")

    Order, delivery and errors are those of `Service`: a write waits in a bounded queue (10,000 messages, 64 MiB) until
    Redis has it, and raises `Unavailable` past `publish_timeout` seconds, or at once when the queue is full. Messages
    to channels that keep history are kept: the rules are the nodes', which it reads when it connects and every 30 s.

    Without `async with` the first write connects it, and `aclose` must be called at the end; after that every write
    raises `GatewayError`. Whichever call connects raises `Unavailable` when Redis does not let it in within
    `publish_timeout`. In a new event loop, as each `asyncio.run` makes one, it connects anew. While another loop in
    which it is connected is still open, it raises `GatewayError` and sends nothing: threads share a `SyncPublisher`.

    `prefix` and `cluster_secret` are those of the nodes; without the secret, where they have one, `write_connection`
    gets no answer. With `tracing` a write is a span of the OpenTelemetry trace under way, which the nodes continue.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        prefix: str = "gateway",
        publish_timeout: float = 10,
        tracing: bool = False,
        cluster_secret: str = "",
    ) -> None:
        """Raise `InvalidSettings` for a URL that cannot be one (`memory://` joins nobody); connects nothing yet."""
        self._settings = settings_of(
            redis_url, prefix=prefix, publish_timeout=publish_timeout, cluster_secret=cluster_secret
        )
        self._tracing = open_tracing(tracing, node="publisher")
        self._claiming = threading.Lock()
        self._place: _Place | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._at_cluster()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Disconnect: Redis has all writes that have returned, and those still waiting fail. Harmless when repeated.

        In another event loop than the one it is connected in it only forbids further writes.
        """
        self._closed = True
        if self._place is not None and self._place.loop is asyncio.get_running_loop():
            await self._place.stack.aclose()

    async def _at_cluster(self) -> Guest:
        place = self._here()
        async with place.opening:  # its first writes may come at the same time: one of them connects, the others wait
            if self._closed:
                raise GatewayError("this publisher is closed")
            if place.guest is None:
                guest = Guest(self._settings, tracing=self._tracing)
                place.guest = await place.stack.enter_async_context(guest.running())
        return place.guest

    def _here(self) -> _Place:
        """Return where it is connected: a loop that is closed took all its connections along."""
        loop = asyncio.get_running_loop()
        with self._claiming:  # two threads may make its first calls, each in a loop of its own
            if self._place is None or self._place.loop.is_closed():
                self._place = _Place(loop)
            place = self._place
        if place.loop is not loop:
            raise GatewayError(
                "this publisher is connected in another event loop, which is not closed: make one for each loop, or "
                "use gateway.SyncPublisher"
            )
        return place

    async def _publish(self, target: Target, envelope: Envelope) -> Position | None:
        return await (await self._at_cluster()).outbound.publish(target, envelope)

    async def _write_direct(self, payload: bytes, conn_id: str) -> None:
        await (await self._at_cluster()).outbound.write_elsewhere(payload, conn_id)


class _Place:
    """An event loop in which a publisher is connected, or about to be."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.opening = asyncio.Lock()
        self.stack = AsyncExitStack()
        self.guest: Guest | None = None


class SyncPublisher:
    """A `Publisher` for code that does not await: each call returns when Redis has taken the message.

        publisher = SyncPublisher("redis://localhost:6379/0")    # once per process, for all its threads
        publisher.write_user("mail", {"unread": 3}, "42")

    Arguments, order, delivery and errors are those of `Publisher`; a call waits for `publish_timeout` seconds at most,
    the first one, which connects, for twice that. After `close` every call raises `GatewayError`.

    It works in a thread of its own, which begins with the first call or with `with`. Any thread may call it but that of
    an event loop, which it would block: there it raises `GatewayError` and sends nothing. Where processes fork
    (gunicorn, Celery), use it only after the fork: one that was used before raises `GatewayError` in the child. So does
    every call under gevent or eventlet: their patched threads all run in one, which an event loop would block.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        prefix: str = "gateway",
        publish_timeout: float = 10,
        tracing: bool = False,
        cluster_secret: str = "",
    ) -> None:
        """Raise `InvalidSettings` for a URL that cannot be one, and for `tracing` without OpenTelemetry."""
        self._make = partial(
            Publisher,
            redis_url,
            prefix=prefix,
            publish_timeout=publish_timeout,
            tracing=tracing,
            cluster_secret=cluster_secret,
        )
        self._make()  # and thrown away: what is wrong with the settings is to be raised here
        self._starting = threading.Lock()
        self._thread: _Thread | None = None
        self._closed = False

    def __enter__(self) -> Self:
        self._call(Publisher.__aenter__)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect; calls under way in other threads raise `Unavailable`. Harmless when repeated, or after a fork."""
        if self._thread is not None and not self._thread.is_here:
            return
        with self._starting:
            self._closed = True
            if self._thread is not None:
                self._thread.end()
            self._thread = None

    def write_connection(self, cmd: str, param: object, conn_id: str, *, sender: str | None = None) -> None:
        """Write to one connection; see `Publisher.write_connection`. Raises `ConnectionNotFound`."""
        self._call(lambda publisher: publisher.write_connection(cmd, param, conn_id, sender=sender))

    def write_channel(
        self, cmd: str, param: object, channel: str, *, exclude: Collection[str] = (), sender: str | None = None
    ) -> Position | None:
        """Write to every member of a channel but those in `exclude`; return its position where history is kept.

        Raises `InvalidChannel`.
        """
        return self._call(lambda to: to.write_channel(cmd, param, channel, exclude=exclude, sender=sender))

    def write_user(self, cmd: str, param: object, user_id: str, *, sender: str | None = None) -> None:
        """Write to every connection of a user; offline is no error. Raises `InvalidUser`."""
        self._call(lambda publisher: publisher.write_user(cmd, param, user_id, sender=sender))

    def write_all(self, cmd: str, param: object, *, exclude: Collection[str] = (), sender: str | None = None) -> None:
        """Write to every connection of every node but those in `exclude`."""
        self._call(lambda publisher: publisher.write_all(cmd, param, exclude=exclude, sender=sender))

    def _call(self, act: Callable[[Publisher], Coroutine[Any, Any, T]]) -> T:
        _refuse_where_it_would_block()
        # Looked at before the lock, which another thread may have held when the process forked.
        if self._thread is not None and not self._thread.is_here:
            raise GatewayError(f"this publisher belongs to process {self._thread.process}: make one after the fork")
        with self._starting:
            if self._closed:
                raise GatewayError("this publisher is closed")
            if self._thread is None:
                self._thread = _Thread(self._make)
            result = self._thread.begin(act)
        try:
            return result.result()
        except futures.CancelledError:  # `close` in another thread has cancelled what waited: it may have been sent
            raise Unavailable("the publisher was closed meanwhile") from None


def _refuse_where_it_would_block() -> None:
    if threading.get_ident.__module__ != "_thread":  # only the interpreter's own comes from there
        raise GatewayError(
            "threads are patched here (gevent, eventlet), so a SyncPublisher cannot have one: publish from a process "
            "that is not patched, or with POST /api/channels/{channel}/messages"
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise GatewayError(
        "called in an event loop, which would stand still meanwhile: await the calls of a gateway.Publisher there, or "
        "make this one with asyncio.to_thread"
    )


class _Thread:
    """A thread with an event loop, and the publisher that lives there."""

    def __init__(self, make: Callable[[], Publisher]) -> None:
        self.process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway-publisher", daemon=True)
        self._thread.start()
        self._publisher = make()

    @property
    def is_here(self) -> bool:
        """Whether this process is the one it runs in: a fork copies everything but threads."""
        return self.process == os.getpid()

    def begin(self, act: Callable[[Publisher], Coroutine[Any, Any, T]]) -> futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(act(self._publisher), self._loop)

    def end(self) -> None:
        try:
            self.begin(_close).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _close(publisher: Publisher) -> None:
    """Disconnect, and let those who still wait for a write know.

    Whoever waits in another thread is not woken by a loop that stops: without the cancelling they would wait for ever.
    """
    await publisher.aclose()
    waiting = asyncio.all_tasks() - {asyncio.current_task()}
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
