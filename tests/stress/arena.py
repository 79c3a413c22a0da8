"""Four nodes, a Redis, and what a scenario does with them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import ClientSession, TCPConnector

from tests.stress import traces
from tests.stress.checks import Wrong, eventually, same, short, told
from tests.stress.node import Node
from tests.stress.peer import JSON, PROTOCOLS, Peer, Refused
from tests.stress.redis import RedisServer
from tests.stress.wire import Wire

T = TypeVar("T")

NODES = 4
TOGETHER = 32
"""Clients that connect at the same time."""


class Arena:
    """What stays for all scenarios, and what one of them opened: that is closed when it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.redis = RedisServer(folder)
        self.random = random.Random()
        self.counts: Counter[str] = Counter()
        self.checks = 0
        self._others = 0

    async def __aenter__(self) -> Self:
        self.session = ClientSession(connector=TCPConnector(limit=0, force_close=True))
        self._begin()
        self.nodes = [self._node(f"node-{number}") for number in range(1, NODES + 1)]
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _start(self) -> None:
        await self.redis.start()
        await asyncio.gather(*(node.start() for node in self.nodes))
        await traces.look(self.redis, self.nodes, self.session)  # what is made at the first need is there now
        await traces.rest(self.nodes)
        self._before = await traces.look(self.redis, self.nodes, self.session)

    async def close(self) -> None:
        """End all of it, and whatever a scenario that failed left running here."""
        for task in (left := asyncio.all_tasks() - {asyncio.current_task()}):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self.redis.thaw()
        await asyncio.gather(*(_end(node) for node in self.all_nodes))
        await self.redis.close()
        await self.session.close()

    # ---- one scenario

    async def play(self, run: Callable[[Self], Awaitable[None]], *, seed: str, complaints: tuple[str, ...]) -> None:
        """Run a scenario and its epilogue: the logs complain of nothing but this, and nothing is left behind."""
        self._begin()
        self.random.seed(seed)
        for node in self.nodes:
            node.complaints(())  # those of one scenario are not the next one's
        try:
            await run(self)
        finally:
            await self._clean()
        self.checks += await traces.returns(self._before, self.redis, self.nodes, self.session)
        for node in self.all_nodes:
            self.equal(f"the log of {node} complains", [], node.complaints(complaints))

    def _begin(self) -> None:
        self.counts.clear()
        self.checks = 0
        self._peers: list[Peer] = []
        self._wires: list[Wire] = []
        self._extras: list[Node] = []

    async def _clean(self) -> None:
        """Close what was opened, and have everything run that is to run."""
        self.redis.thaw()
        await self.close_all()
        if not await self.redis.is_up():
            await self.redis.start()
        await asyncio.gather(*(_end(node) for node in self._extras))
        for node in self.nodes:
            node.thaw()
            if not node.is_running:
                await node.start()

    async def close_all(self) -> None:
        """Close all clients."""
        for wire in self._wires:
            wire.close()
        await asyncio.gather(*(peer.close() for peer in self._peers), return_exceptions=True)

    # ---- checking

    def equal(self, what: str, expected: object, got: object) -> None:
        """Raise `Wrong` unless they are equal."""
        self.checks += 1
        if not same(expected, got):
            raise Wrong(told(what, expected, got))

    def true(self, what: str, is_so: object) -> None:
        """Raise `Wrong` unless it is so."""
        self.checks += 1
        if not is_so:
            raise Wrong(f"expected {what}")

    async def refused(self, code: str, attempt: Awaitable[object]) -> Refused:
        """Raise `Wrong` unless it is refused with this code, or status; return the refusal."""
        try:
            result = await attempt
        except Refused as refused:
            self.equal("the refusal", code, refused.code)
            return refused
        raise Wrong(f"expected to be refused with {code}, got {short(result)}")

    async def set_becomes(self, key: str, expected: Iterable[str]) -> None:
        """Wait until a set in Redis holds exactly this."""
        self.checks += 1
        await eventually(f"the set {key}", lambda: self.redis.members(key), set(expected))

    def count(self, **amounts: int) -> None:
        """Note how much was done, for the report."""
        self.counts.update(amounts)

    # ---- clients

    async def peer(self, node: Node | None = None, *channels: str, **how: Any) -> Peer:
        """Connect a client, to any node unless told, and wait for its first joins."""
        peer = await Peer.connect(self.session, node or self.any_node(), *channels, **how)
        self._peers.append(peer)
        self.count(clients=1)
        return peer

    async def peers(self, number: int, *channels: str, mixed: bool = False, **how: Any) -> list[Peer]:
        """Connect clients to all nodes in turn; `mixed` with protocols in turn, too."""
        shift = self.random.randrange(NODES)

        def connect(index: int) -> Awaitable[Peer]:
            protocol = PROTOCOLS[index // NODES % len(PROTOCOLS)] if mixed else how.get("protocol", JSON)
            return self.peer(self.nodes[(index + shift) % NODES], *channels, **{**how, "protocol": protocol})

        return await in_turn(connect, range(number))

    async def wire(self, node: Node | None = None, *channels: str, protocol: str = "", buffer: int = 0) -> Wire:
        """Connect a client that may break rules; without a protocol its joins may still be under way."""
        url = (node or self.any_node()).url(*channels)
        wire = self.keep(await Wire.connect(url, protocols=filter(None, [protocol]), receive_buffer=buffer))
        if protocol:
            first = await wire.read_message()
            self.equal("the first message", "$welcome", first["cmd"])
        return wire

    def keep(self, wire: Wire) -> Wire:
        """Close it when the scenario ends."""
        self._wires.append(wire)
        self.count(clients=1)
        return wire

    # ---- nodes

    @property
    def all_nodes(self) -> list[Node]:
        """Those of this scenario alone included."""
        return [*self.nodes, *self._extras]

    def any_node(self) -> Node:
        return self.random.choice(self.nodes)

    async def extra(self, id: str = "", *, wait: bool = True, **settings: object) -> Node:
        """Start one more node, with settings of its own, for this scenario; unless told wait until it is ready."""
        self._others += 1
        node = self._node(id or f"extra-{self._others}", **{"drain_seconds": 1, **settings})
        self._extras.append(node)
        await node.start(wait=wait)
        return node

    def _node(self, id: str, **settings: object) -> Node:
        return Node(id, self.redis.url, self._folder, self.session, **settings)


async def in_turn(start: Callable[[int], Awaitable[T]], numbers: Iterable[int]) -> list[T]:
    """Do the same for every number, some at the same time; return what came, in order."""
    gate = asyncio.Semaphore(TOGETHER)

    async def one(number: int) -> T:
        async with gate:
            return await start(number)

    return list(await asyncio.gather(*map(one, numbers)))


async def _end(node: Node) -> None:
    """End a node, kindly if it may be so."""
    if node.is_running:
        node.thaw()
        await node.stop()
