"""What every presence promises: one suite over all of them. A new one passes it unchanged.

What happens when nodes or Redis die is in presence/test_healing.py and presence/test_random.py.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.connections.connection import ConnectionInfo
from gateway.presence import NodeInfo
from gateway.version import __version__
from tests.harness.presence import PresenceCluster, PresenceNode, Somebody
from tests.harness.wait import eventually

StartCluster = Callable[..., Awaitable[PresenceCluster]]


@pytest.fixture(params=["memory", "redis", "redis cluster"])
def backplane_url(request: pytest.FixtureRequest) -> str:
    """The address of each presence there is."""
    match request.param:
        case "memory":
            return "memory://"
        case "redis":
            return str(request.getfixturevalue("redis_url"))
        case _:
            return str(request.getfixturevalue("small_cluster").url)


@pytest.fixture
async def start_cluster(backplane_url: str) -> AsyncIterator[StartCluster]:
    """Starts two nodes: `await start_cluster(presence_max=2)`."""
    async with AsyncExitStack() as stack:

        async def start_node(**settings: Any) -> PresenceNode:
            return await stack.enter_async_context(PresenceNode(backplane_url, **settings).running())

        async def start(**settings: Any) -> PresenceCluster:
            one = await start_node(**settings)
            two = one if backplane_url.startswith("memory:") else await start_node(**settings)
            cluster = PresenceCluster(one, two)
            await cluster.listen("lobby", "side")
            return cluster

        yield start


@pytest.fixture
async def cluster(start_cluster: StartCluster) -> PresenceCluster:
    """Two nodes that hear what is said in `lobby` and `side`."""
    return await start_cluster()


async def every(found: AsyncIterator[Any]) -> list[Any]:
    """List what is found, sorted; fail if anything is found twice."""
    listed = [item async for item in found]
    assert len(set(listed)) == len(listed)
    return sorted(listed)


class TestMembers:
    async def test_the_first_member_creates_a_channel_and_the_last_empties_it(self, cluster: PresenceCluster) -> None:
        """Of the whole cluster."""
        one, two = await cluster.somebody(cluster.one), await cluster.somebody(cluster.two)
        for _ in range(2):
            assert [await one.join("lobby"), await two.join("lobby")] == [True, False]
            assert [await one.leave("lobby"), await two.leave("lobby")] == [False, True]
        assert [await two.join("side"), await one.join("side")] == [True, False]
        await one.lose()
        assert await two.leave("side") is True

    async def test_members_are_known_to_every_node(self, cluster: PresenceCluster) -> None:
        """With all that is known of their connections."""
        ada = await cluster.somebody(cluster.one, "ada", "lobby", "größe/1", name="Ada <b>")
        bob = await cluster.somebody(cluster.two, "bob", "lobby")
        for node in cluster.nodes:
            assert await every(node.presence.members("lobby")) == sorted([ada.info, bob.info])
            assert await every(node.presence.members("größe/1")) == [ada.info]
            assert await every(node.presence.members("nowhere")) == []
            assert await every(node.presence.connections()) == sorted([ada.info, bob.info])
        assert ada.info == ConnectionInfo(
            ada.id,
            cluster.one.settings.node_id,
            "ada",
            "Ada <b>",
            ("lobby", "größe/1"),
            1_700_000_000_123,
            "192.0.2.1",
        )

    async def test_who_leaves_or_is_lost_is_no_member(self, cluster: PresenceCluster) -> None:
        """One that is lost has left everything."""
        one = await cluster.somebody(cluster.one, "ada", "lobby", "side")
        two = await cluster.somebody(cluster.two, "bob", "lobby", "side")
        await one.leave("side")
        await two.lose()
        for node in cluster.nodes:
            assert await every(node.presence.members("lobby")) == [one.info]
            assert await every(node.presence.members("side")) == []
            assert await every(node.presence.connections()) == [one.info]

    async def test_thousands_are_listed_each_once(self, cluster: PresenceCluster) -> None:
        """Page by page, in whatever order; users once, however many connections they have."""
        everybody = [
            Somebody(cluster.nodes[number % len(cluster.nodes)], f"user-{number % 700}", "") for number in range(1300)
        ]
        for one in everybody:
            one.node.presence.open(one.info, "")
        await asyncio.gather(*(one.join("lobby") for one in everybody))
        for node in cluster.nodes:
            assert await every(node.presence.members("lobby")) == sorted(one.info for one in everybody)
            assert await every(node.presence.connections()) == sorted(one.info for one in everybody)
            assert await every(node.presence.online("lobby")) == sorted(f"user-{number}" for number in range(700))

    async def test_a_list_may_be_read_while_members_come_and_go(self, cluster: PresenceCluster) -> None:
        """Whoever was there all the time is listed, once."""
        stayed = [await cluster.somebody(cluster.one, f"stayed-{number}", "lobby") for number in range(20)]
        going = [await cluster.somebody(cluster.two, f"going-{number}", "lobby") for number in range(20)]
        found = [await anext(listing := cluster.two.presence.members("lobby"))]
        for one in going:
            await one.lose()
        await cluster.somebody(cluster.one, "came", "lobby")
        found += [info async for info in listing]
        ids = [info.id for info in found]
        assert len(set(ids)) == len(ids)
        assert {one.id for one in stayed} <= set(ids)


class TestOnline:
    async def test_a_user_is_online_while_any_connection_is(self, cluster: PresenceCluster) -> None:
        """On any node; each user is listed once."""
        tabs = [await cluster.somebody(node, "ada", "lobby") for node in (cluster.one, cluster.two, cluster.two)]
        await cluster.somebody(cluster.one, "bob", "lobby")
        for tab in tabs:
            assert await every(cluster.one.presence.online("lobby")) == ["ada", "bob"]
            await tab.leave("lobby")
        for node in cluster.nodes:
            assert await every(node.presence.online("lobby")) == ["bob"]

    async def test_an_anonymous_connection_is_its_own_user(self, cluster: PresenceCluster) -> None:
        """Two of them are two users, and neither counts as identified."""
        one, two = [await cluster.somebody(cluster.one, "", "lobby") for _ in range(2)]
        assert await every(cluster.two.presence.online("lobby")) == sorted([one.id, two.id])
        assert (await cluster.two.presence.count()).users == 0

    async def test_everything_is_counted(self, cluster: PresenceCluster) -> None:
        """Nodes, channels, connections, identified users; down to nothing again."""
        nodes = len(cluster.nodes)
        everybody = [
            await cluster.somebody(cluster.one, "ada", "lobby", "side"),
            await cluster.somebody(cluster.two, "ada", "lobby"),
            await cluster.somebody(cluster.two, "bob"),
            await cluster.somebody(cluster.one, "", "third"),
        ]
        for node in cluster.nodes:
            assert tuple(await node.presence.count()) == (nodes, 3, 4, 2)
        for one in everybody:
            await one.lose()
        for node in cluster.nodes:
            assert tuple(await node.presence.count()) == (nodes, 0, 0, 0)

    async def test_nodes_report_themselves(self, cluster: PresenceCluster) -> None:
        """Every node knows of every node; one that has ended in good order is gone at once."""
        for node in cluster.nodes:
            found = await node.presence.nodes()
            assert {info.id for info in found} == {each.settings.node_id for each in cluster.nodes}
            assert all(self._is_plausible(info) for info in found)
        if cluster.one is not cluster.two:
            await cluster.one.presence.close()
            assert [info.id for info in await cluster.two.presence.nodes()] == [cluster.two.settings.node_id]

    def _is_plausible(self, info: NodeInfo) -> bool:
        return (info.version, bool(info.host), info.started > 1_700_000_000_000) == (__version__, True, True)


class TestAnnouncements:
    async def test_the_first_and_the_last_connection_of_a_user_are_announced(self, cluster: PresenceCluster) -> None:
        """Once each, to all but the connection itself; tabs in between, on any node, are not."""
        one = await cluster.somebody(cluster.one, "ada", "lobby")
        two = await cluster.somebody(cluster.two, "ada", "lobby")
        await one.leave("lobby")
        third = await cluster.somebody(cluster.one, "ada", "lobby")
        await two.lose()
        await third.leave("lobby")
        for node in cluster.nodes:
            assert await node.announced("lobby") == [("ada", True, {one.id}), ("ada", False, {third.id})]
            assert await node.announced("side") == []

    async def test_each_channel_is_told_for_itself(self, cluster: PresenceCluster) -> None:
        """Who is lost leaves all of them."""
        one = await cluster.somebody(cluster.one, "ada", "lobby", "side")
        await cluster.somebody(cluster.two, "ada", "side")
        await one.lose()
        assert await cluster.two.announced("lobby") == [("ada", True, {one.id}), ("ada", False, {one.id})]
        assert await cluster.two.announced("side") == [("ada", True, {one.id})]

    async def test_an_anonymous_connection_is_announced_by_its_id(self, cluster: PresenceCluster) -> None:
        """There is no other name for it."""
        one = await cluster.somebody(cluster.one, "", "lobby")
        await one.lose()
        assert await cluster.two.announced("lobby") == [(one.id, True, {one.id}), (one.id, False, {one.id})]

    async def test_what_is_repeated_is_not_announced_again(self, cluster: PresenceCluster) -> None:
        """Joining, leaving and losing twice change nothing, and say so."""
        one = await cluster.somebody(cluster.one, "ada", "lobby")
        assert await cluster.one.presence.join(one.info, "lobby") is False
        await one.leave("lobby")
        assert await cluster.one.presence.leave(one.info, "lobby") is False
        assert await cluster.one.presence.leave(one.info, "never") is False
        await one.lose()
        await cluster.one.presence.lose(one.info)
        assert await cluster.two.announced("lobby") == [("ada", True, {one.id}), ("ada", False, {one.id})]
        assert tuple(await cluster.two.presence.count())[1:] == (0, 0, 0)

    async def test_changes_are_made_in_the_order_of_the_calls(self, cluster: PresenceCluster) -> None:
        """Though nobody waits for one before the next."""
        one = await cluster.somebody(cluster.one, "ada")
        for _ in range(50):
            one.join("lobby")
            one.leave("lobby")
        await one.join("lobby")
        assert [connected for _, connected, _ in await cluster.two.announced("lobby")] == [True, False] * 50 + [True]
        assert await every(cluster.two.presence.members("lobby")) == [one.info]

    async def test_a_channel_may_tell_nobody_who_is_there(self, start_cluster: StartCluster) -> None:
        """Neither by name nor by number, however they go; the sets are as ever."""
        cluster = await start_cluster(
            channels=[{"match": "lobby", "presence": False}], presence_max=1, presence_grace=1
        )
        ada = await cluster.somebody(cluster.one, "ada", "lobby", "side")
        bob = await cluster.somebody(cluster.two, "bob", "lobby")
        assert await every(cluster.one.presence.online("lobby")) == ["ada", "bob"]
        await ada.leave("lobby")
        await bob.lose()
        await ada.leave("side")
        assert [user for user, _, _ in await cluster.two.announced("side")] == ["ada", "ada"]
        assert await cluster.two.announced("lobby") == []
        assert {cmd for channel, cmd, _, _ in cluster.two.said if channel == "lobby"} <= {
            cmd for _, cmd, _, _ in cluster.two.said if cmd.startswith("mark-")
        }

    async def test_two_nodes_at_once_announce_a_user_once(self, cluster: PresenceCluster) -> None:
        """Whichever tab came first, and whichever went last."""
        for turn in range(20):
            user = f"user-{turn}"
            tabs = await asyncio.gather(*(cluster.somebody(node, user, "lobby") for node in (cluster.one, cluster.two)))
            await asyncio.gather(*(tab.lose() for tab in tabs))
        announced = [(user, connected) for user, connected, _ in await cluster.two.announced("lobby")]
        for turn in range(20):
            mine = [connected for user, connected in announced if user == f"user-{turn}"]
            assert mine in ([True, False], [True, False] * 2)


class TestCrowds:
    async def test_above_the_maximum_the_number_is_told_instead(self, start_cluster: StartCluster) -> None:
        """Seldom, and in the end it is the right one; back below the maximum each is announced again."""
        cluster = await start_cluster(presence_max=3)
        began = asyncio.get_running_loop().time()
        nodes = itertools.cycle(cluster.nodes)
        everybody = [await cluster.somebody(next(nodes), f"user-{number}", "lobby") for number in range(60)]
        assert [user for user, _, _ in await cluster.two.announced("lobby")] == ["user-0", "user-1", "user-2"]
        await eventually(lambda: self._counts(cluster.two)[-1:] == [60])
        for one in everybody[3:]:
            await one.lose()
        await eventually(lambda: self._counts(cluster.two)[-1] == 3)
        # Once a second at most: one at the beginning of each second, and one for what came just behind it.
        elapsed = asyncio.get_running_loop().time() - began
        assert len(self._counts(cluster.two)) <= 2 + elapsed
        await everybody[0].lose()
        assert (await cluster.two.announced("lobby"))[3:] == [("user-0", False, {everybody[0].id})]

    async def test_one_node_tells_the_number_for_all(self, start_cluster: StartCluster) -> None:
        """However many of them have noted a change before that."""
        cluster = await start_cluster(presence_max=1)
        everybody = [await cluster.somebody(node, f"user-{n}", "lobby") for n in range(5) for node in cluster.nodes]
        await eventually(lambda: self._counts(cluster.two)[-1:] == [5])
        for one in everybody:
            one.leave("lobby")
        await cluster.somebody(cluster.one, "last", "side", "lobby")
        await eventually(lambda: self._counts(cluster.two)[-1:] == [1])
        told = self._counts(cluster.two)
        assert told == list(dict.fromkeys(told)), "a number was told again though nobody had come or gone since"

    def _counts(self, node: PresenceNode) -> list[int]:
        return [param["count"] for channel, cmd, param, _ in node.said if (channel, cmd) == ("lobby", "online-count")]


class TestGrace:
    async def test_who_is_back_in_time_was_never_away(self, start_cluster: StartCluster) -> None:
        """On any node; the sets are exact meanwhile. Who does not come back is announced once."""
        cluster = await start_cluster(presence_grace=1.5)
        ada = await cluster.somebody(cluster.one, "ada", "lobby")
        bob = await cluster.somebody(cluster.one, "bob", "lobby")
        await ada.lose()
        assert await every(cluster.two.presence.online("lobby")) == ["bob"]
        again = await cluster.somebody(cluster.two, "ada", "lobby")
        await bob.lose()

        async def bob_is_gone() -> bool:
            return ("bob", False) in [(user, connected) for user, connected, _ in await cluster.two.announced("lobby")]

        await eventually(bob_is_gone)
        announced = [(user, connected) for user, connected, _ in await cluster.two.announced("lobby")]
        assert announced == [("ada", True), ("bob", True), ("bob", False)]
        await again.leave("lobby")
        assert (await cluster.two.announced("lobby"))[3:] == [("ada", False, {again.id})]

    async def test_who_leaves_of_their_own_will_is_announced_at_once(self, start_cluster: StartCluster) -> None:
        """The grace is for connections that were lost."""
        cluster = await start_cluster(presence_grace=3600)
        ada = await cluster.somebody(cluster.one, "ada", "lobby")
        await ada.leave("lobby")
        assert (await cluster.two.announced("lobby"))[1:] == [("ada", False, {ada.id})]


class TestReserve:
    async def test_a_user_may_have_so_many_in_the_whole_cluster(self, cluster: PresenceCluster) -> None:
        """Who is refused is nowhere; who is lost, opened or not, makes room."""
        held = [Somebody(cluster.nodes[number % len(cluster.nodes)], "ada", "") for number in range(4)]

        async def reserved(who: Somebody) -> bool:
            return await who.node.presence.reserve(who.info, "a browser", 3)

        assert [await reserved(who) for who in held] == [True, True, True, False]
        assert await reserved(held[0])
        assert await cluster.one.presence.user_counts(["ada"]) == [3]
        await held[0].node.presence.open(held[0].info, "a browser")
        assert await every(cluster.one.presence.connections()) == sorted(who.info for who in held[:3])
        for gone, waiting in ((held[0], held[3]), (held[1], held[0]), (held[3], held[1])):
            assert not await reserved(waiting)
            await gone.lose()
            assert await reserved(waiting)

    async def test_those_who_come_at_once_are_counted_one_by_one(self, cluster: PresenceCluster) -> None:
        """On whatever node."""
        many = [Somebody(cluster.nodes[number % len(cluster.nodes)], "ada", "") for number in range(30)]
        found = await asyncio.gather(*(who.node.presence.reserve(who.info, "a browser", 7) for who in many))
        assert found.count(True) == 7
        assert await cluster.two.presence.user_counts(["ada"]) == [7]
