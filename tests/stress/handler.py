"""The handler of the nodes under stress: it does what a scenario asks, and tells what its process holds."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any, cast

from gateway import Connection, Handler, Service
from gateway.errors import Forbidden, UnknownCommand
from gateway.protocol.message import Message, Position

KINDS = ("Connection", "WebSocket", "Progress", "Upgraded", "Tap", "Publication", "Outbox", "Listener")
"""Of these there must be none left when those who needed them are gone."""


class Asked(Handler):
    """One method for each command."""

    async def authorize(self, connection: Connection, channel: str, action: str) -> bool:
        if channel.startswith("raises-"):
            raise ValueError("authorize failed, as asked")
        return not channel.startswith("secret-")

    async def on_open(self, service: Service, connection: Connection) -> None:
        if connection.profile.name == "fails-to-open":
            raise ValueError("on_open failed, as asked")

    async def on_close(self, service: Service, connection: Connection) -> None:
        if connection.profile.name == "fails-to-close":
            raise ValueError("on_close failed, as asked")
        if connection.profile.name == "farewell":
            await service.write_channel("farewell", connection.id, "farewells")

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        command = getattr(self, f"do_{cmd.replace('-', '_')}", None)
        if command is None:
            raise UnknownCommand(f"unknown command {cmd!r}")
        return await command(service, connection, param)

    # ---- writing

    async def do_say(self, service: Service, connection: Connection, param: Any) -> object:
        """Write to the channel of the message, as often as asked, each with its number."""
        channel = connection.message.channel if connection.message else ""
        cmd, by, exclude = param.get("cmd", "n"), param.get("by", connection.user), param.get("exclude", ())
        at: Position | None = None
        for number in range(param.get("first", 0), param.get("first", 0) + param.get("count", 1)):
            said = {"by": by, "n": number} | param.get("also", {})
            at = await service.write_channel(cmd, said, channel, exclude=exclude, sender=param.get("sender"))
        return {"epoch": at.epoch, "offset": at.offset} if at else {}

    async def do_say_at_once(self, service: Service, connection: Connection, param: Any) -> object:
        """Write many messages without waiting for one before the next; return how many were refused."""
        channel = connection.message.channel if connection.message else ""
        padding = "x" * param.get("size", 0)
        writes = [
            service.write_channel("n", {"by": param["by"], "n": number, "x": padding}, channel)
            for number in range(param["count"])
        ]
        found = await asyncio.gather(*writes, return_exceptions=True)
        return Counter(type(each).__name__ for each in found)

    async def do_tell(self, service: Service, connection: Connection, param: Any) -> object:
        await service.write_connection(param["cmd"], param.get("param"), param["to"])
        return None

    async def do_tell_user(self, service: Service, connection: Connection, param: Any) -> object:
        await service.write_user(param["cmd"], param.get("param"), param["to"])
        return None

    async def do_tell_all(self, service: Service, connection: Connection, param: Any) -> object:
        await service.write_all(param["cmd"], param.get("param"), exclude=param.get("exclude", ()))
        return None

    async def do_echo(self, service: Service, connection: Connection, param: Any) -> object:
        return param

    # ---- channels and connections

    async def do_put(self, service: Service, connection: Connection, param: Any) -> object:
        return await service.join(param["id"], param["channel"])

    async def do_take(self, service: Service, connection: Connection, param: Any) -> object:
        return await service.leave(param["id"], param["channel"])

    async def do_end(self, service: Service, connection: Connection, param: Any) -> object:
        await service.disconnect(param["id"], **param.get("how", {}))
        return None

    async def do_channels(self, service: Service, connection: Connection, param: Any) -> object:
        return list(connection.channels)

    async def do_members(self, service: Service, connection: Connection, param: Any) -> object:
        return [found.id async for found in service.get_connections_by_channel(param)]

    async def do_tap(self, service: Service, connection: Connection, param: Any) -> object:
        """Say that the tap is open, and return what it saw up to a last word."""
        seen: list[Any] = []
        tap = service.tap(param.get("channel"))
        following = asyncio.ensure_future(anext(tap))
        await asyncio.sleep(0)  # it is open once it is waited for
        await service.write_connection("tapping", None, connection.id)
        while (message := await following).cmd != param["until"]:
            seen.append([message.channel, message.cmd, message.param])
            if len(seen) == param.get("enough"):
                await service.write_connection("seen", None, connection.id)
            following = asyncio.ensure_future(anext(tap))
        await cast(AsyncGenerator[Message, None], tap).aclose()
        return seen

    # ---- trouble

    async def do_fail(self, service: Service, connection: Connection, param: Any) -> object:
        failures: dict[str, BaseException] = {
            "value": ValueError("as asked"),
            "exit": SystemExit(3),
            "interrupt": KeyboardInterrupt(),
            "cancelled": asyncio.CancelledError(),
            "generator": GeneratorExit(),
            "memory": MemoryError(),
            "group": BaseExceptionGroup("as asked", [ValueError(), KeyboardInterrupt()]),
            "stop": StopAsyncIteration(),
            "forbidden": Forbidden("as asked"),
            "timeout": TimeoutError(),
        }
        raise failures[param]

    async def do_recurse(self, service: Service, connection: Connection, param: Any) -> object:
        return await self.do_recurse(service, connection, param)

    async def do_unsayable(self, service: Service, connection: Connection, param: Any) -> object:
        return {"set": {1}, "object": object()}

    async def do_sleep(self, service: Service, connection: Connection, param: Any) -> object:
        await asyncio.sleep(param)
        return param

    async def do_block(self, service: Service, connection: Connection, param: Any) -> object:
        time.sleep(param)
        return param

    # ---- looking inside

    async def do_inspect(self, service: Service, connection: Connection, param: Any) -> object:
        """Say how much this process holds."""
        gc.collect()
        kinds = Counter(type(each).__name__ for each in gc.get_objects() if type(each).__module__.startswith("gateway"))
        return {
            "tasks": len(asyncio.all_tasks()),
            "files": len(os.listdir("/dev/fd")),
            **{kind: kinds[kind] for kind in KINDS},
        }
