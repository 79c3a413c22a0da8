"""Several nodes as one: one user's tabs, a balancer without sticky sessions, a reader who is too slow.

One order for all members is in test_order.py, how nodes end in test_ends.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import ClientError

from tests.harness.client import Client, Clients
from tests.harness.haproxy import Haproxy
from tests.harness.node import Node, Nodes
from tests.harness.redis import RedisServer, injection
from tests.harness.wait import eventually
from tests.harness.wire import CLOSE, TEXT, Wire, Wires

V1 = ["gateway.v1.json"]

StartNodes = Callable[..., Awaitable[Nodes]]


async def id_of(client: Client) -> str:
    """Return the id that a client's `$welcome` gave it."""
    return str((await client.expect("$welcome"))["param"]["connection"])


def updates(client: Client) -> list[tuple[str, bool]]:
    """List who was announced to a client: user, and whether connected."""
    return [
        (message["param"]["userID"], message["param"]["connected"])
        for message in client.received
        if message["cmd"] == "online-update"
    ]


class TestTabs:
    async def test_a_user_with_two_tabs_on_two_nodes_is_one_user(
        self, redis: RedisServer, start_nodes: StartNodes, connect: Clients
    ) -> None:
        """Announced once when the first comes, once when the last goes; readable by hand all the while."""
        nodes = await start_nodes(2, redis, handler="named:Named")
        watcher = await connect(nodes[0].ws_url("tabs", user="watcher"), protocols=V1)
        watcher_id = await id_of(watcher)
        tabs = [await connect(node.ws_url("tabs", user="ada"), protocols=V1) for node in nodes]
        ids = {await id_of(tab) for tab in tabs}
        assert await redis.command("SMEMBERS", "gateway:user:ada:connections") == ids
        assert await redis.command("SMEMBERS", "gateway:online:tabs") == {"ada", "watcher"}
        assert await redis.command("SMEMBERS", "gateway:members:tabs") == ids | {watcher_id}
        assert await redis.command("SMEMBERS", "gateway:users") == {"ada", "watcher"}

        await redis.publish("gateway:user:ada", "psst")
        for tab in tabs:
            await tab.expect("psst")
        await tabs[0].drop()

        async def has_one_tab() -> bool:
            return int(await redis.command("SCARD", "gateway:user:ada:connections")) == 1

        await eventually(has_one_tab)
        assert await redis.command("SISMEMBER", "gateway:online:tabs", "ada")
        await tabs[1].close()
        await watcher.expect("online-update", param={"userID": "ada", "connected": False})
        assert updates(watcher) == [("ada", True), ("ada", False)]
        assert await redis.command("SMEMBERS", "gateway:users") == {"watcher"}

    async def test_what_one_tab_says_the_other_hears(
        self, redis: RedisServer, start_nodes: StartNodes, connect: Clients
    ) -> None:
        """The sender included, once each, and from the user, not from the tab."""
        nodes = await start_nodes(2, redis, handler="named:Named")
        tabs = []
        for node in nodes:
            tabs.append(await connect(node.ws_url("tabs", user="ada", name="Ada"), protocols=V1))
            await id_of(tabs[-1])
        await tabs[0].send("chat", {"text": "hello"})
        for tab in tabs:
            chat = await tab.expect("chat")
            assert (chat["from"], chat["param"]["user"], chat["param"]["text"]) == ("ada", "Ada", "hello")
            await tab.expect_nothing_but()


class TestBehindHaproxy:
    async def test_clients_meet_wherever_the_balancer_puts_them(
        self,
        redis: RedisServer,
        start_nodes: StartNodes,
        start_haproxy: Callable[[Iterable[Node]], Awaitable[Haproxy]],
        connect: Clients,
    ) -> None:
        """Each hears every other one, and nobody is told more than once."""
        nodes = await start_nodes(3, redis)
        balancer = await start_haproxy(nodes)
        clients = await connect.many(9, balancer, "meeting", protocols=V1)
        held = {(await client.expect("$welcome"))["param"]["node"] for client in clients}
        assert held == {node.id for node in nodes}
        for number, client in enumerate(clients):
            await client.send("chat", {"text": str(number)})
        for client in clients:
            chats = [await client.expect("chat") for _ in clients]
            assert sorted(chat["param"]["text"] for chat in chats) == [str(number) for number in range(9)]
            await client.expect_nothing_but("online-update")

    async def test_clients_of_a_stopping_node_find_another_one(
        self,
        redis: RedisServer,
        start_nodes: StartNodes,
        start_haproxy: Callable[[Iterable[Node]], Awaitable[Haproxy]],
        connect: Clients,
    ) -> None:
        """Told to come back, they come back by the same address, and the chat goes on."""
        nodes = await start_nodes(2, redis)
        balancer = await start_haproxy(nodes)
        clients = await connect.many(6, balancer, "moving", protocols=V1)
        moved = [client for client in clients if (await client.expect("$welcome"))["param"]["node"] == nodes[0].id]
        stayed = [client for client in clients if client not in moved]
        assert len(moved) == len(stayed) == 3
        stopping = asyncio.ensure_future(nodes[0].stop())
        for client in moved:
            await client.expect_close(1012)

        async def come_back() -> Client:
            return await connect(balancer, "moving", protocols=V1)

        # The balancer may take a moment to see that the node refuses: clients try again.
        again = [await eventually(come_back, 20, tolerating=(OSError, ClientError)) for _ in moved]
        assert {(await client.expect("$welcome"))["param"]["node"] for client in again} == {nodes[1].id}
        assert await stopping == 0
        await again[0].send("chat", {"text": "back"})
        for client in (*again, *stayed):
            await client.expect("chat")
        assert all(client.closed is None for client in stayed)


class TestSlowReaders:
    async def test_who_does_not_read_is_told_so_and_others_get_everything(
        self, redis: RedisServer, start_nodes: StartNodes, connect: Clients, wire: Wires
    ) -> None:
        """4008 is the last the slow one reads; all before it is whole and in order; memory stays bounded."""
        nodes = await start_nodes(2, redis, outbox_bytes=1_000_000)
        others = [await connect(node, "flood") for node in nodes]
        for client in others:
            await client.send("ping")
            await client.expect("pong")
        slow = await wire(nodes[0], "flood", receive_buffer=4096)
        await slow.send('{"cmd": "ping"}')
        for client in others:
            await client.expect("pong")
        async with redis.client() as publisher:
            for number in range(400):
                await publisher.publish("gateway:channel:flood", injection("x", [number, "x" * 30_000]))
        for client in others:
            numbers = [(await client.expect("x", deadline=30))["param"][0] for _ in range(400)]
            assert numbers == list(range(400))
        seen, code = await self._read_all(slow)
        assert code == 4008
        assert 0 < len(seen) < 400
        assert seen == list(range(len(seen)))

    async def _read_all(self, slow: Wire) -> tuple[list[int], int]:
        seen: list[int] = []
        while (found := await slow.read_frame()).opcode != CLOSE:
            if found.opcode == TEXT and found.json["cmd"] == "x":
                seen.append(found.json["param"][0])
        return seen, found.close_code

    async def test_who_reads_slowly_but_reads_loses_nothing(
        self, redis: RedisServer, start_nodes: StartNodes, connect: Clients, wire: Wires
    ) -> None:
        """What fits into the outbox waits for its reader."""
        nodes = await start_nodes(1, redis, outbox_bytes=8_000_000)
        slow = await wire(nodes[0], "burst", receive_buffer=4096)
        await slow.send('{"cmd": "ping"}')
        while (await slow.read_frame()).opcode != TEXT:
            pass
        for number in range(200):
            await redis.publish("gateway:channel:burst", "x", [number, "x" * 30_000])
        numbers: list[int] = []
        while len(numbers) < 200:
            if (found := await slow.read_frame()).opcode == TEXT:
                numbers.append(found.json["param"][0])
        assert numbers == list(range(200))
