"""A bad network between two processes, on this machine and without privileges.

A `Proxy` listens on a port of its own and passes every connection on to a target. Each direction can be made
silent, slow or narrow, connections can be reset or refused, and `heal` ends all of it. It runs in a thread with an
event loop of its own, so that neither a busy test nor a busy proxy slows the other one down.

Nothing is ever lost inside a connection that lives on: like TCP on a dead route, a silent direction holds what it
was given and passes it on when healed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

import uvloop

from .ports import HOST, free_port, release_port

__all__ = ["Direction", "Proxy"]

_CHUNK = 65536
# How much a delayed direction has on its way; a sender beyond that meets a full socket.
_HELD_CHUNKS = 4096


class Direction:
    """One direction of all connections of a proxy. Its methods take effect before they return."""

    def __init__(self, call_in_loop: Callable[[Callable[[], None]], None]) -> None:
        self._call = call_in_loop
        self._open = asyncio.Event()
        self._open.set()
        self._delay = 0.0
        self._rate = 0.0
        # Bytes passed on so far, over all connections.
        self.bytes = 0

    def black_hole(self) -> None:
        """Pass nothing on, and keep every connection open, new ones too."""
        self._call(self._open.clear)

    def delay(self, seconds: float) -> None:
        """Let what arrives from now on take so much longer, in order, without narrowing the stream."""
        self._delay = seconds

    def throttle(self, bytes_per_second: float) -> None:
        """Pass on no more than so many bytes a second on each connection."""
        self._rate = bytes_per_second

    def heal(self) -> None:
        """Pass everything on again at once, what was held first."""
        self._delay = self._rate = 0.0
        self._call(self._open.set)

    async def carry(self, source: socket.socket, target: socket.socket) -> None:
        """Pass one connection's bytes on until the source ends, then end the target's stream too."""
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_HELD_CHUNKS)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take(source, held))
            tasks.create_task(self._give(held, target))

    async def _take(self, source: socket.socket, held: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # While silent or narrow it does not read ahead, so that the sender's buffers fill as they would.
            await self._open.wait()
            if self._rate:
                await held.join()
            chunk = await loop.sock_recv(source, _CHUNK)
            await held.put((loop.time() + self._delay, chunk))
            if not chunk:
                return

    async def _give(self, held: asyncio.Queue[tuple[float, bytes]], target: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, chunk = await held.get()
            if self._delay and due > loop.time():
                await asyncio.sleep(due - loop.time())
            await self._open.wait()
            if not chunk:
                target.shutdown(socket.SHUT_WR)
                return
            await self._pass(chunk, target)
            held.task_done()

    async def _pass(self, chunk: bytes, target: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        rest = memoryview(chunk)
        while rest:
            # A tenth of a second's worth at a time, so that `heal` and `black_hole` are soon felt.
            piece = rest[: max(1, int(self._rate / 10))] if self._rate else rest
            await loop.sock_sendall(target, piece)
            self.bytes += len(piece)
            rest = rest[len(piece) :]
            if self._rate:
                await asyncio.sleep(len(piece) / self._rate)
                await self._open.wait()


class Proxy:
    """Passes TCP connections on to `target_port`; see the module for what it can do to them.

    `to_server` carries what clients send to the target, `to_client` what it answers.
    """

    def __init__(self, target_port: int, *, port: int | None = None) -> None:
        self.target_port = target_port
        self._owns_port = port is None
        self.port = free_port() if port is None else port
        # Connections accepted so far.
        self.accepted = 0
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._links: set[_Link] = set()
        self.to_server = Direction(self._call)
        self.to_client = Direction(self._call)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The address of a Redis behind it, as nodes take it."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def connections(self) -> int:
        """How many connections are open through it now."""
        return len(self._links)

    def start(self) -> None:
        """Begin to accept connections, before it returns."""
        self._thread.start()
        self._call(self._listen)

    def black_hole(self) -> None:
        """Silence both directions; connections stay open, and new ones are accepted."""
        self.to_server.black_hole()
        self.to_client.black_hole()

    def delay(self, seconds: float) -> None:
        """Delay both directions."""
        self.to_server.delay(seconds)
        self.to_client.delay(seconds)

    def reset(self) -> None:
        """End every open connection by a TCP reset (RST) on both sides; new ones are passed on."""
        self._call(self._reset)

    def refuse(self) -> None:
        """Refuse new connections, as a port nobody listens on does; open ones go on."""
        self._call(self._deafen)

    def cut(self) -> None:
        """Refuse new connections and reset the open ones: the target is gone."""
        self.refuse()
        self.reset()

    def heal(self) -> None:
        """Make it a good network again; connections that are still open get what was held."""
        self.to_server.heal()
        self.to_client.heal()
        self._call(self._listen)

    def close(self) -> None:
        """Reset all connections and end the thread: the last use. May be called twice."""
        if not self._thread.is_alive():
            return
        self._call(self._deafen)
        asyncio.run_coroutine_threadsafe(self._end_links(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        if self._owns_port:
            release_port(self.port)

    def _call(self, function: Callable[[], None]) -> None:
        """Run a function in the proxy's loop and wait until it has."""

        async def call() -> None:
            function()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def _listen(self) -> None:
        if self._listener is not None:
            return
        self._listener = listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind((HOST, self.port))
        listener.listen(4096)
        self._accepting = self._loop.create_task(self._accept(listener))

    def _deafen(self) -> None:
        if self._listener is None or self._accepting is None:
            return
        self._accepting.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._listener = self._accepting = None

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            self.accepted += 1
            link = _Link(client, self)
            self._links.add(link)
            link.task.add_done_callback(partial(self._forget, link))

    def _forget(self, link: _Link, _: asyncio.Task[None]) -> None:
        self._links.discard(link)

    def _reset(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _end_links(self) -> None:
        tasks = [link.task for link in self._links]
        self._reset()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Link:
    """One connection through a proxy: the client's socket, the target's, and the task between them."""

    def __init__(self, client: socket.socket, proxy: Proxy) -> None:
        self._client = client
        self._server = socket.socket()
        self._server.setblocking(False)
        self._with_reset = False
        self.task = asyncio.get_running_loop().create_task(self._run(proxy))

    def reset(self) -> None:
        self._with_reset = True
        self.task.cancel()

    async def _run(self, proxy: Proxy) -> None:
        try:
            for each in (self._client, self._server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(self._server, (HOST, proxy.target_port))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(proxy.to_server.carry(self._client, self._server))
                tasks.create_task(proxy.to_client.carry(self._server, self._client))
        except OSError:
            self._with_reset = True
        except BaseExceptionGroup as errors:
            # One side has broken: the other one learns it the same way.
            if errors.split(OSError)[1] is not None:
                raise
            self._with_reset = True
        finally:
            for each in (self._client, self._server):
                if self._with_reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.close()
