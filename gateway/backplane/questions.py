"""Requests between nodes, over the backplane: to the node that holds a connection, or to all of them.

A connection id contains the name of its node, so a question goes straight there without a look-up in Redis, and the
answer straight back. Answers are matched by number: each question has its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from itertools import count
from typing import Any, NamedTuple

from gateway.backplane import Backplane, Target
from gateway.errors import KINDS, ConnectionNotFound, GatewayError, InvalidEnvelope, Unavailable
from gateway.protocol.envelope import pack_map, unpack_map
from gateway.protocol.message import is_name, node_of

logger = logging.getLogger(__name__)

Act = Callable[[str, dict[str, Any]], Awaitable[object]]
"""Carries out what another node asks, given a verb and its arguments; what it returns, or raises, is the answer."""


_SILENCE = object()
"""Instead of an answer, which may be None."""
BRIEFLY = 0.1
"""Seconds for which `ask_all` waits for a node that was silent the last time, until it has said something again."""


class Heard(NamedTuple):
    """The answers to a question to several nodes."""

    answers: dict[str, Any]
    """By node."""
    silent: list[str]
    """Nodes that are gone, did not answer in time, or could not."""


class Questions:
    """This node's questions to others, and its answers to theirs."""

    def __init__(self, node_id: str, backplane: Backplane, act: Act, *, timeout: float, hint: str = "") -> None:
        self.node = node_id
        self._backplane = backplane
        self._act = act
        self._timeout = timeout
        self._hint = hint
        """Appended to the message that a node did not answer: why that may be."""
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._silent: set[str] = set()
        """Nodes that did not answer the last question of `ask_all` in time, and no other one since."""
        self.in_vain = 0.0
        """Seconds spent in all waiting for answers that did not come, after the last one that did."""

    async def ask(self, verb: str, connection_id: str, **arguments: object) -> Any:
        """Have the connection's node do something; return its answer.

        Only for connections of other nodes. Raises what was raised there, if it is a `GatewayError`;
        `ConnectionNotFound` when there is no such node, or the id is this node's own; and `Unavailable` when no answer
        came within the timeout, after which it may have been done or not.
        """
        node = node_of(str(connection_id))
        if not node or node == self.node:
            raise ConnectionNotFound(f"no connection {connection_id!r}")
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._ask_node(node, verb, {"connection": connection_id, **arguments})
        except TimeoutError:
            raise Unavailable(f"node {node} did not answer{self._hint}") from None
        if answer is _SILENCE:
            raise ConnectionNotFound(f"no connection {connection_id!r}: no node {node!r}")
        return answer

    async def ask_all(
        self, nodes: Collection[str], verb: str, *, within: float, patient: bool = False, **arguments: object
    ) -> Heard:
        """Ask several nodes the same, this one too if it is among them; return what came within so many seconds.

        A node that was silent when it was last asked is waited for only briefly, unless `patient`: one that hangs would
        make everybody who asks wait each time. Raises nothing for a node that refuses or fails: it is among the silent.
        """
        time = asyncio.get_running_loop().time
        last = time()

        async def asked(node: str) -> Any:
            nonlocal last
            seconds = min(within, BRIEFLY) if node in self._silent and not patient else within
            answer = await self._ask_within(seconds, node, verb, arguments)
            if answer is not _SILENCE:
                last = time()
            return answer

        answers = await asyncio.gather(*map(asked, nodes))
        self.in_vain += time() - last if _SILENCE in answers else 0.0
        heard = dict(zip(nodes, answers, strict=True))
        silent = [node for node, answer in heard.items() if answer is _SILENCE]
        return Heard({node: answer for node, answer in heard.items() if answer is not _SILENCE}, silent)

    async def _ask_within(self, seconds: float, node: str, verb: str, arguments: dict[str, object]) -> Any:
        try:
            async with asyncio.timeout(seconds):
                if node == self.node:
                    return await self._act(verb, arguments)
                return await self._ask_node(node, verb, arguments)
        except TimeoutError:
            self._note_silence(node, verb)
        except GatewayError as error:
            logger.info("node %s did not say %s: %s", node, verb, error)
        return _SILENCE

    def _note_silence(self, node: str, verb: str) -> None:
        if node not in self._silent:
            logger.info("node %s did not say %s in time", node, verb)
        if node != self.node:
            self._silent.add(node)

    async def _ask_node(self, node: str, verb: str, arguments: dict[str, object]) -> Any:
        """Return what a node answers, however long it takes; `_SILENCE` when there is no such node."""
        number = next(self._numbers)
        question = {"ask": verb, "number": number, "from": self.node, **arguments}
        # Before it is published: the answer may come before PUBLISH itself is answered, over another link.
        self._asked[number] = answer = asyncio.get_running_loop().create_future()
        try:
            if not await self._backplane.publish(Target("node", node), pack_map(question)):
                # Nobody subscribes its topic: it is gone, which takes no waiting. Another may come with its name.
                self._silent.discard(node)
                return _SILENCE
            return await answer
        finally:
            del self._asked[number]

    async def heard(self, data: bytes) -> None:
        """Take what another node said: a question, which is carried out and answered, or the answer to one of ours.

        Raises `InvalidEnvelope` for what no node says, in which case nothing was done and nobody is answered, and
        `Unavailable` when the answer could not be published.
        """
        match unpack_map(data):
            case {"ask": str(verb), "number": int(number), "from": str(node), **arguments} if is_name(node):
                await self._answer(verb, number, node, arguments)
            case {"answer": int(number), "result": result, **rest}:
                self._settle(number, rest, lambda answer: answer.set_result(result))
            case {"answer": int(number), "error": [str(kind), str(text)], **rest}:
                error = KINDS.get(kind, GatewayError)(text)
                self._settle(number, rest, lambda answer: answer.set_exception(error))
            case _:
                raise InvalidEnvelope("expected a question or an answer")

    async def _answer(self, verb: str, number: int, node: str, arguments: dict[str, Any]) -> None:
        said: dict[str, object] = {"answer": number, "from": self.node}
        try:
            said["result"] = await self._act(verb, arguments)
        except InvalidEnvelope:
            raise
        except GatewayError as error:
            said["error"] = (type(error).__name__, error.message)
        await self._backplane.publish(Target("node", node), pack_map(said))

    def _settle(self, number: int, rest: dict[str, Any], settle: Callable[[asyncio.Future[Any]], None]) -> None:
        # An answer that comes too late for its question counts as well: the node is there, and to be waited for.
        self._silent.discard(str(rest.get("from", "")))
        answer = self._asked.get(number)
        if answer is not None and not answer.done():
            settle(answer)
