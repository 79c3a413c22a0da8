"""Asks the node that holds a connection to act on it.

A connection id names its node, so a question goes straight there, over the backplane, and the answer
straight back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from gateway import codec
from gateway.backplane import Backplane, Target
from gateway.connection import node_of
from gateway.errors import KINDS, ConnectionNotFound, GatewayError, InvalidEnvelope, Unavailable

logger = logging.getLogger(__name__)

Act = Callable[[str, dict[str, Any]], Awaitable[object]]
"""Does what another node asks: a verb and its arguments."""


class Remote:
    """This node's questions to others, and its answers to theirs."""

    def __init__(self, node_id: str, backplane: Backplane, act: Act, *, timeout: float) -> None:
        self.node = node_id
        self._backplane = backplane
        self._act = act
        self._timeout = timeout
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}

    async def ask(self, verb: str, connection_id: str, **arguments: object) -> Any:
        """Have the connection's node do something; return what came of it.

        Raises what doing it raised there, `ConnectionNotFound` when there is no such node, and
        `Unavailable` when no answer came in time: then it may have been done or not.
        """
        node, number = node_of(connection_id), next(self._numbers)
        if not node or node == self.node:
            raise ConnectionNotFound(f"no connection {connection_id!r}")
        question = {
            "ask": verb,
            "number": number,
            "from": self.node,
            "connection": connection_id,
            **arguments,
        }
        self._asked[number] = answer = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timeout):
                if not await self._backplane.publish(Target("node", node), codec.pack_map(question)):
                    raise ConnectionNotFound(f"no connection {connection_id!r}: no node {node!r}")
                return await answer
        except TimeoutError:
            raise Unavailable(f"node {node} did not answer") from None
        finally:
            del self._asked[number]

    async def heard(self, data: bytes) -> None:
        """Take what another node said: a question, or the answer to one of ours."""
        match codec.unpack_map(data):
            case {"ask": str(verb), "number": int(number), "from": str(node), **arguments}:
                await self._answer(verb, number, node, arguments)
            case {"answer": int(number), "result": result}:
                self._settle(number, lambda answer: answer.set_result(result))
            case {"answer": int(number), "error": [str(kind), str(text)]}:
                error = KINDS.get(kind, GatewayError)(text)
                self._settle(number, lambda answer: answer.set_exception(error))
            case _:
                raise InvalidEnvelope("expected a question or an answer")

    async def _answer(self, verb: str, number: int, node: str, arguments: dict[str, Any]) -> None:
        said: dict[str, object] = {"answer": number}
        try:
            said["result"] = await self._act(verb, arguments)
        except GatewayError as error:
            said["error"] = (type(error).__name__, error.message)
        await self._backplane.publish(Target("node", node), codec.pack_map(said))

    def _settle(self, number: int, settle: Callable[[asyncio.Future[Any]], None]) -> None:
        answer = self._asked.get(number)
        if answer is not None and not answer.done():
            settle(answer)
