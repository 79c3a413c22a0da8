"""What happens to the cluster, once a minute: each fault is made and mended before its function returns."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from tests.harness.node import Node
from tests.soak.scene import Scene


class Faults:
    """Faults in an order, and of a length, that the seed decides.

    The first node is never ended, only frozen and cut off: its memory is followed for the whole time. An allocator
    keeps what queues took at their longest; so the first fault of each kind hits that node and is as long as any.
    """

    def __init__(self, scene: Scene, *, seed: int, scale: float) -> None:
        self._scene = scene
        self._random = random.Random(seed)
        self._scale = scale
        """Shorter than a minute between faults makes each of them shorter, too."""
        self._made: list[str] = []

    async def one(self, names: list[str]) -> str:
        """Make one of these faults, all of them as often as each other; return what it was."""
        left = [name for name in names if self._made.count(name) == min(map(self._made.count, names))]
        name = self._random.choice(left)
        self._made.append(name)
        return f"{name}: {await FAULTS[name](self)}"

    # ---- nodes

    async def _kill(self) -> str:
        node = self._mortal()
        await node.kill()
        return await self._restarted(node, "killed")

    async def _drain(self) -> str:
        node = self._mortal()
        code = await node.stop(60)
        if code:
            raise AssertionError(f"{node.id} was to drain, and ended with {code}: {node.process.tail(10)}")
        return await self._restarted(node, "drained")

    async def _freeze(self) -> str:
        node = self._any()
        node.freeze()
        try:
            seconds = await self._pause(1, 18)
        finally:
            node.thaw()
        return f"{node.id} frozen for {seconds:.1f} s"

    # ---- Redis

    async def _redis_restart(self) -> str:
        redis = self._scene.redis
        await redis.stop(keep_data=True)
        try:
            seconds = await self._pause(0.1, 6)
        finally:
            await redis.start(30)
        return f"away for {seconds:.1f} s"

    async def _redis_freeze(self) -> str:
        redis = self._scene.redis
        redis.freeze()
        try:
            seconds = await self._pause(1, 12)
        finally:
            redis.thaw()
        return f"frozen for {seconds:.1f} s"

    async def _kill_pubsub(self) -> str:
        return f"{await self._scene.redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub')} subscriptions ended"

    async def _kill_clients(self) -> str:
        return f"{await self._scene.redis.command('CLIENT', 'KILL', 'TYPE', 'normal')} connections ended"

    async def _flushall(self) -> str:
        await self._scene.redis.command("FLUSHALL")
        return "all data lost"

    # ---- the network

    async def _cut(self) -> str:
        node = self._any()
        self._scene.link_of(node).reset()
        return f"{node.id} from Redis"

    async def _part(self) -> str:
        node = self._any()
        link = self._scene.link_of(node)
        link.cut()
        try:
            seconds = await self._pause(0.5, 14)
        finally:
            link.heal()
        return f"{node.id} finds no Redis for {seconds:.1f} s"

    async def _silence(self) -> str:
        node = self._any()
        link = self._scene.link_of(node)
        link.black_hole()
        try:
            seconds = await self._pause(1, 14)
        finally:
            link.heal()
        return f"{node.id} hears nothing of Redis for {seconds:.1f} s"

    async def _balancer(self) -> str:
        await self._scene.balancer.process.kill()
        await self._scene.balancer.start(30)
        return "killed and started, all clients with it"

    # ---- parts

    @property
    def _is_first(self) -> bool:
        """Whether a fault of this kind was never made before."""
        return self._made.count(self._made[-1]) == 1

    def _mortal(self) -> Node:
        return self._random.choice(self._scene.nodes[1:])

    def _any(self) -> Node:
        return self._scene.nodes[0] if self._is_first else self._random.choice(self._scene.nodes)

    async def _restarted(self, node: Node, how: str) -> str:
        seconds = await self._pause(0.1, 14)
        await self._scene.start_node(node)
        return f"{node.id} {how}, back after {seconds:.1f} s"

    async def _pause(self, least: float, most: float) -> float:
        seconds = (most if self._is_first else self._random.uniform(least, most)) * self._scale
        await asyncio.sleep(seconds)
        return seconds


FAULTS: dict[str, Callable[[Faults], Awaitable[str]]] = {
    "kill": Faults._kill,
    "drain": Faults._drain,
    "freeze": Faults._freeze,
    "redis-restart": Faults._redis_restart,
    "redis-freeze": Faults._redis_freeze,
    "pubsub-kill": Faults._kill_pubsub,
    "client-kill": Faults._kill_clients,
    "cut": Faults._cut,
    "part": Faults._part,
    "silence": Faults._silence,
    "balancer": Faults._balancer,
    "flushall": Faults._flushall,
}
