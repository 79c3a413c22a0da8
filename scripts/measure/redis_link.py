"""Measure the reasons for a Redis link of our own beside redis-py's asyncio client; see `scripts/redis-link`."""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
import uvloop
from redis.asyncio import Redis

from gateway.redis.link import Link, LinkLost

MESSAGES, AT_ONCE, ROUNDS = 100_000, 100, 7
CANCELLED = 200
PUBLISHED = 20
TOPIC, PAYLOAD = "news", b"x" * 100
SEEN_WITHIN = 0.3
"""Seconds after which a message that a cut-off publisher has sent once more would have come."""


class Server:
    """A Redis of its own, behind a Unix socket."""

    def __init__(self, folder: str) -> None:
        self.socket = str(Path(folder, "redis.sock"))
        command = ("redis-server", "--port", "0", "--unixsocket", self.socket, "--save", "", "--dir", folder)
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    async def ready(self) -> None:
        """Wait until it takes connections."""
        async with asyncio.timeout(10):
            while True:
                with suppress(OSError):
                    (await asyncio.open_unix_connection(self.socket))[1].close()
                    return
                await asyncio.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


class Cutter:
    """Passes commands on, and cuts the connection after a PUBLISH, before the answer: its fate is unknown."""

    def __init__(self, target: str, path: str) -> None:
        self._target = target
        self.path = path

    async def start(self) -> asyncio.Server:
        """Listen."""
        return await asyncio.start_unix_server(self._serve, self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, on = await asyncio.open_unix_connection(self._target)
        while data := await reader.read(2**16):
            on.write(data)
            answer = await back.read(2**16)
            if b"PUBLISH" in data:
                break
            writer.write(answer)
        on.close()
        writer.close()


async def link_to(path: str, received: Callable[[list[Any]], None] | None = None) -> Link:
    """Open a link of ours."""
    loop = asyncio.get_running_loop()
    return (await loop.create_unix_connection(lambda: Link(received), path))[1]


# ---- what a message costs who reads it


async def ours(path: str, most: int) -> None:
    """Read so many messages with our link."""
    done, count = asyncio.Event(), 0

    def received(replies: list[Any]) -> None:
        nonlocal count
        count += len(replies)
        if count > most:  # one more: that it is subscribed
            done.set()

    link = await link_to(path, received)
    link.write("SUBSCRIBE", TOPIC)
    await done.wait()
    link.abort()


async def theirs(path: str, most: int) -> None:
    """Read so many messages with redis-py."""
    client = Redis(unix_socket_path=path)
    async with client.pubsub() as subscription:
        await subscription.subscribe(TOPIC)
        for _ in range(most + 1):
            await subscription.get_message(timeout=None)
    await client.aclose()


async def subscribed(link: Link) -> None:
    """Wait until somebody reads."""
    for _ in range(1000):
        if (await link.call("PUBSUB", "NUMSUB", TOPIC))[1]:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError("nobody has subscribed within 10 s")


async def publish(path: str) -> None:
    """Write the messages, in a process of its own."""
    link = await link_to(path)
    await subscribed(link)
    for _ in range(MESSAGES // AT_ONCE):
        await asyncio.gather(*(link.request("PUBLISH", TOPIC, PAYLOAD) for _ in range(AT_ONCE)))


def cost(read: Callable[[str, int], Awaitable[None]], path: str) -> float:
    """Return the microseconds of CPU that a message takes a process which reads all."""
    writer = os.fork()
    if not writer:
        uvloop.run(publish(path))
        os._exit(0)

    async def reading() -> None:
        await read(path, MESSAGES)

    began = time.process_time()
    uvloop.run(reading())
    spent = time.process_time() - began
    os.waitpid(writer, 0)
    return spent / MESSAGES * 1e6


# ---- what becomes of a PUBLISH whose answer is lost, and of a cancellation


async def repeated(server: Server, folder: str) -> tuple[int, int]:
    """Return how many messages arrive of those published once by our link, and by redis-py, each cut off."""
    seen: list[bytes] = []
    hearer = await link_to(
        server.socket, lambda replies: seen.extend(reply[2] for reply in replies if reply[0] == b"message")
    )
    hearer.write("SUBSCRIBE", TOPIC)
    cutter = Cutter(server.socket, str(Path(folder, "cutter.sock")))
    async with await cutter.start():
        for _ in range(PUBLISHED):
            with suppress(LinkLost):
                await (await link_to(cutter.path)).call("PUBLISH", TOPIC, b"ours")
            client = Redis(unix_socket_path=cutter.path)
            with suppress(redis.ConnectionError):
                await client.publish(TOPIC, b"theirs")
            await client.aclose()
        await asyncio.sleep(SEEN_WITHIN)
    hearer.abort()
    return seen.count(b"ours"), seen.count(b"theirs")


async def swallowed(path: str) -> int:
    """Return how many of the tasks that work with redis-py go on after they were cancelled."""
    client = Redis(unix_socket_path=path)
    going_on = 0

    async def work() -> None:
        while True:
            await client.ping()

    for number in range(CANCELLED):
        task = asyncio.create_task(work())
        await asyncio.sleep(0.0001 * (number % 10))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,), timeout=0.2)
        going_on += not task.done()
        while not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=0.05)
    await client.aclose()
    return going_on


def main() -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        try:
            asyncio.run(server.ready())
            print(f"redis-py {redis.__version__}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}")
            costs = [(cost(ours, server.socket), cost(theirs, server.socket)) for _ in range(ROUNDS)]
            ratios = sorted(their / our for our, their in costs)
            our, their = (statistics.median(column) for column in zip(*costs, strict=True))
            print(f"CPU for a message that is read: {our:.2f} us here, {their:.2f} us there;", end=" ")
            print(f"{statistics.median(ratios):.1f} times ({ratios[0]:.1f} to {ratios[-1]:.1f})")
            once, again = asyncio.run(repeated(server, folder))
            print(f"{PUBLISHED} messages whose answer is lost arrive {once} times here, {again} times there")
            print(f"of {CANCELLED} cancelled tasks {asyncio.run(swallowed(server.socket))} go on there")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
