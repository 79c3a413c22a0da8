"""A `Wire` over TLS: as obedient, and as silent where it is not told to read."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Self

from .wire import Wire

__all__ = ["SecureWire"]


class SecureWire(Wire):
    """One TLS connection to a node, whose certificate is not looked at."""

    def __init__(self, connection: socket.socket, url: str) -> None:
        super().__init__(connection, url)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)

    @classmethod
    async def open(cls, url: str, *, receive_buffer: int = 0) -> Self:
        """Open the connection, shake hands over TLS, and send nothing yet."""
        wire = await super().open(url, receive_buffer=receive_buffer)
        while not await wire._shakes():
            await wire._take()
        return wire

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the node does not take them."""
        self._tls.write(data)
        await super().write(self._outgoing.read())

    async def read(self, size: int = 65536, *, deadline: float = 5.0) -> bytes:
        """Return the next bytes, at most `size`; none at the end of the stream. Raises `TimeoutError`."""
        async with asyncio.timeout(deadline):
            while not self._rest:
                try:
                    self._rest = self._tls.read(65536)
                except ssl.SSLWantReadError:
                    if not await self._take():
                        return b""
                except ssl.SSLZeroReturnError:
                    return b""
        return await super().read(size)

    async def say_goodbye(self) -> None:
        """Send TLS' close_notify, after which nothing may come, and neither wait nor read."""
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            await super().write(self._outgoing.read())

    async def _shakes(self) -> bool:
        try:
            self._tls.do_handshake()
            return True
        except ssl.SSLWantReadError:
            return False
        finally:
            await super().write(self._outgoing.read())

    async def _take(self) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(self._socket, 65536)
        self._incoming.write(data)
        return data
