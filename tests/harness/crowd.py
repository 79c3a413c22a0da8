"""Thousands of WebSockets that only count: for tests in which the number of clients is the point.

A `Client` decodes and keeps what it gets; a member of a crowd counts the messages and bytes, answers pings, and
costs a few kilobytes. Where the content matters, let a `Client` or two watch among them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar, cast
from urllib.parse import urlsplit

from .wire import CLOSE, PING, PONG, frame, upgrade

__all__ = ["Crowd", "Member", "upgraded"]


class Member(asyncio.Protocol):
    """One WebSocket of a crowd."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        # Done when the upgrade is answered; fails unless that was a 101.
        self.upgraded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Text and binary messages so far, and their payload's bytes.
        self.messages = 0
        self.bytes = 0
        # None while open; the code of the close frame, or 1006 when there was none.
        self.close_code: int | None = None
        self.close_reason = ""
        # Done when the TCP connection has ended.
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send(self, payload: str | bytes) -> None:
        """Send a text frame."""
        assert self._transport is not None
        self._transport.write(frame(payload))

    def take(self, payload: bytes) -> None:
        """Count a message."""
        self.messages += 1
        self.bytes += len(payload)

    def drop(self) -> None:
        """Vanish without a close frame."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self.upgraded.done():
            head, separator, data = data.partition(b"\r\n\r\n")
            if not separator:
                self._rest = head
                return
            self._settle(head)
        self._rest = self._walk(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.close_code is None:
            self.close_code = 1006
        if not self.upgraded.done():
            self.upgraded.set_exception(ConnectionError(f"the node ended the connection: {error!r}"))
        if not self.ended.done():  # whoever waited for it may have been cancelled
            self.ended.set_result(None)

    def _settle(self, head: bytes) -> None:
        first = head.split(b"\r\n", 1)[0].decode()
        if " 101 " in first:
            self.upgraded.set_result(None)
        else:
            self.upgraded.set_exception(ConnectionError(f"the node answered: {first}"))

    def _walk(self, data: bytes) -> bytes:
        """Take the whole frames from the front of `data`; return what is left."""
        start, end = 0, len(data)
        while end - start >= 2:
            opcode, size, body = data[start] & 0x0F, data[start + 1], start + 2
            if size >= 126:
                body += 2 if size == 126 else 8
                size = int.from_bytes(data[start + 2 : body], "big")
            if body + size > end:
                break
            if opcode < CLOSE:
                self.take(data[body : body + size])
            else:
                self._obey(opcode, data[body : body + size])
            start = body + size
        return data[start:]

    def _obey(self, opcode: int, payload: bytes) -> None:
        assert self._transport is not None
        if opcode == PING:
            self._transport.write(frame(payload, PONG))
        elif opcode == CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") or 1005
            self.close_reason = payload[2:].decode()
            self._transport.write(frame(payload, CLOSE))
            self._transport.close()


class Crowd:
    """The members of all crowds of one test."""

    def __init__(self) -> None:
        self.members: list[Member] = []

    async def join(self, urls: Iterable[str], *, at_once: int = 200) -> list[Member]:
        """Connect to each address, `at_once` handshakes at a time; return the members in that order.

        Raises `ConnectionError` in an exception group when one is refused.
        """
        gate = asyncio.Semaphore(at_once)

        async def connect(url: str) -> Member:
            async with gate:
                return await upgraded(url, Member(upgrade(url)))

        async with asyncio.TaskGroup() as tasks:
            joining = [tasks.create_task(connect(url)) for url in urls]
        joined = [task.result() for task in joining]
        self.members += joined
        return joined

    @property
    def open(self) -> int:
        """How many are connected now."""
        return sum(member.close_code is None for member in self.members)

    @property
    def messages(self) -> int:
        """How many messages all have received together."""
        return sum(member.messages for member in self.members)

    def close(self) -> None:
        """Let all vanish."""
        for member in self.members:
            member.drop()


M = TypeVar("M", bound=Member)


async def upgraded(url: str, member: M) -> M:
    """Connect one member to the host of an address, and return it when its upgrade is answered.

    Raises `ConnectionError` when it is refused, and `OSError` when nobody listens.
    """
    address = urlsplit(url)
    await asyncio.get_running_loop().create_connection(lambda: member, str(address.hostname), address.port or 80)
    await member.upgraded
    return member
