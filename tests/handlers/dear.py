"""A handler whose commands are short and whose answers are long, each in another way."""

from __future__ import annotations

from typing import Any

from gateway import Connection, Handler, Service


class Dear(Handler):
    """`param` is how many bytes, or how many messages of how many bytes."""

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        match cmd:
            case "return":
                return "x" * param
            case "tell":
                await service.write_connection("told", "x" * param, connection.id)
            case "fill":
                for number in range(param[0]):
                    await service.write_channel("n", [number, "x" * param[1]], connection.channel)
        return None
