"""Fills one gateway with channels of one member each: `channels.py PORT REDIS_PORT PROCESS MOVES COUNT...`.

At each COUNT of channels it has MOVES more joined and left again, and reports what that cost the gateway.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack

from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector
from redis.asyncio import Redis

from measure.servers import cpu_seconds, memory

CHANNELS = 100  # of one connection
AT_ONCE = 100  # connections that ask
POLL_SECONDS = 0.05


class Member:
    """One connection, and the channels that are its own."""

    def __init__(self, socket: ClientWebSocketResponse, first: int) -> None:
        self._socket = socket
        self._channels = range(first, first + CHANNELS)
        self._replies: asyncio.Queue[str] = asyncio.Queue()

    async def read(self) -> None:
        """Read to the end, so that pings are answered, too."""
        async for message in self._socket:
            self._replies.put_nowait(message.data)

    async def move(self, cmd: str, first: int, end: int) -> None:
        """Join or leave those of its channels that are in the range, one after the other."""
        for number in self._channels:
            if first <= number < end:
                await self._socket.send_json({"channel": f"channel-{number}", "cmd": cmd, "id": number})
                await self._reply(number)

    async def _reply(self, number: int) -> None:
        while True:
            reply = json.loads(await self._replies.get())
            if reply["cmd"] == "$error":
                raise SystemExit(f"a request was refused: {reply['param']!a}")
            if reply.get("id") == number:
                return


class Crowd:
    """All connections, and the gateway that is measured."""

    def __init__(self, members: list[Member], redis: Redis, pid: int) -> None:
        self._members = members
        self._redis = redis
        self._pid = pid

    async def run(self, moves: int, counts: list[int]) -> dict[str, float]:
        """Fill and measure; return the figures."""
        own, empty, filled = await self._subscriptions(), memory(self._pid), 0
        figures: dict[str, float] = {}
        for count in counts:
            await self._move("$join", filled, count)
            filled = count
            figures["bytes_per_channel"] = (memory(self._pid) - empty) // count
            for cmd, left in (("$join", count + moves), ("$leave", count)):
                cpu = await self._cost(cmd, count, count + moves, own + left)
                figures[f"{cmd[1:]}_us_at_{count}"] = round(cpu / moves * 1e6, 1)
        return figures

    async def _cost(self, cmd: str, first: int, end: int, left: int) -> float:
        """Move, and return the seconds of CPU that took until Redis knows of it."""
        before = cpu_seconds(self._pid)
        await self._move(cmd, first, end)
        while await self._subscriptions() != left:  # noqa: ASYNC110 - Redis does not say when
            await asyncio.sleep(POLL_SECONDS)
        return cpu_seconds(self._pid) - before

    async def _move(self, cmd: str, first: int, end: int) -> None:
        members = self._members[first // CHANNELS : -(-end // CHANNELS)]
        turns = asyncio.Semaphore(AT_ONCE)

        async def move(member: Member) -> None:
            async with turns:
                await member.move(cmd, first, end)

        await asyncio.gather(*map(move, members))

    async def _subscriptions(self) -> int:
        return int((await self._redis.info("stats"))["pubsub_channels"])


async def main(port: int, redis_port: int, pid: int, moves: int, *counts: int) -> None:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis(port=redis_port))
        session = await stack.enter_async_context(ClientSession(connector=TCPConnector(limit=0)))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        members = []
        for first in range(0, max(counts) + moves, CHANNELS):
            url = f"http://127.0.0.1:{port}/connect"
            member = Member(await session.ws_connect(url, protocols=("gateway.v1.json",)), first)
            members.append(member)
            stack.callback(tasks.create_task(member.read()).cancel)
        print(json.dumps(await Crowd(members, redis, pid).run(moves, list(counts))))


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
