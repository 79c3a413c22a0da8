"""Writing to a connection, a channel, a user and everyone, from any node."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway import ConnectionNotFound, InvalidParam, InvalidUser, Service
from tests.harness.embedded import EmbeddedCluster, Member

StartCluster = Callable[..., Awaitable[EmbeddedCluster]]

WRITES: dict[str, Callable[..., Awaitable[object]]] = {
    "write_connection": lambda service, cmd, param, id: service.write_connection(cmd, param, id),
    "write_channel": lambda service, cmd, param, _: service.write_channel(cmd, param, "lobby"),
    "write_user": lambda service, cmd, param, _: service.write_user(cmd, param, "ada"),
    "write_all": lambda service, cmd, param, _: service.write_all(cmd, param),
}
every_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


async def settled(cluster: EmbeddedCluster, *members: Member) -> None:
    """Wait until everything written so far, by both nodes, has reached these clients."""
    for node in cluster.nodes:
        for member in members:
            await node.service.write_all("settled", node.service.node_id)
            await member.client.expect("settled", param=node.service.node_id)


def cmds(*members: Member) -> list[list[str]]:
    """List the commands that each has received, without announcements."""
    return [
        [message["cmd"] for message in member.client.received if message["cmd"] not in ("online-update", "settled")]
        for member in members
    ]


async def test_a_channel_s_members_are_written_to(cluster: EmbeddedCluster) -> None:
    """On both nodes, and nobody else; the message has the contract's keys and no others."""
    one, two = await cluster.connect(cluster.a, "lobby"), await cluster.connect(cluster.b, "lobby")
    other = await cluster.connect(cluster.a, "side")
    await cluster.a.service.write_channel("x", {"n": [1, "ü", None]}, "lobby")
    expected = {"channel": "lobby", "cmd": "x", "param": {"n": [1, "ü", None]}}
    assert [await member.client.expect("x") for member in (one, two)] == [expected, expected]
    await settled(cluster, other)
    assert cmds(other) == [[]]


async def test_a_member_of_two_channels_gets_each_message_once(cluster: EmbeddedCluster) -> None:
    """A message belongs to the channel it was written to."""
    one = await cluster.connect(cluster.a, "lobby")
    await cluster.b.service.join(one.id, "side")
    await cluster.b.service.write_channel("x", None, "side")
    await cluster.b.service.write_channel("y", None, "lobby")
    assert (await one.client.expect("x"))["channel"] == "side"
    assert (await one.client.expect("y"))["channel"] == "lobby"
    await settled(cluster, one)
    assert sorted(cmds(one)[0]) == ["x", "y"]


async def test_a_sender_becomes_from(cluster: EmbeddedCluster) -> None:
    """All four calls can say who speaks; without that there is no `from`."""
    ada = await cluster.connect(cluster.a, "lobby", user="ada")
    service = cluster.b.service
    await service.write_connection("a", 1, ada.id, sender="bob")
    await service.write_channel("b", 2, "lobby", sender="bob")
    await service.write_user("c", 3, "ada", sender="bob")
    await service.write_all("d", 4, sender="bob")
    found = [await ada.client.expect(cmd) for cmd in "abcd"]
    assert found == [
        {"channel": "", "cmd": "a", "param": 1, "from": "bob"},
        {"channel": "lobby", "cmd": "b", "param": 2, "from": "bob"},
        {"channel": "", "cmd": "c", "param": 3, "from": "bob"},
        {"channel": "", "cmd": "d", "param": 4, "from": "bob"},
    ]
    await service.write_all("e", 5)
    assert "from" not in await ada.client.expect("e")


async def test_excluded_connections_are_skipped(cluster: EmbeddedCluster) -> None:
    """On whichever node they are, and whatever collection their ids come in; unknown ids do no harm."""
    one, two, three = [await cluster.connect(node, "lobby") for node in (cluster.a, cluster.b, cluster.b)]
    service = cluster.a.service
    await service.write_channel("x", None, "lobby", exclude=[one.id])
    await service.write_channel("y", None, "lobby", exclude={one.id, two.id, "nowhere~1"})
    await service.write_all("z", None, exclude=(two.id,))
    await settled(cluster, one, two, three)
    assert [sorted(found) for found in cmds(one, two, three)] == [["z"], ["x"], ["x", "y", "z"]]


async def test_an_id_in_the_place_of_several_is_refused(cluster: EmbeddedCluster) -> None:
    """It is a collection, too, of its characters, and would exclude nobody."""
    one = await cluster.connect(cluster.a, "lobby")
    for write in (
        cluster.b.service.write_channel("x", 1, "lobby", exclude=one.id),
        cluster.b.service.write_all("x", 1, exclude=one.id),
    ):
        with pytest.raises(InvalidParam, match="exclude to be several connection ids"):
            await write


async def test_what_can_be_no_id_is_refused(cluster: EmbeddedCluster) -> None:
    """A number of a database, say."""
    number: Any = 42
    with pytest.raises(InvalidParam, match="expected sender to be a user id, got 42"):
        await cluster.a.service.write_all("x", 1, sender=number)
    with pytest.raises(ConnectionNotFound, match="no connection 42"):
        await cluster.a.service.write_connection("x", 1, number)
    with pytest.raises(ConnectionNotFound, match="no connection 42"):
        await cluster.a.service.join(number, "lobby")
    for wrong in ([number], ["\ud800"], {"a~1", number}):
        with pytest.raises(InvalidParam, match="expected exclude to be several connection ids"):
            await cluster.a.service.write_all("x", 1, exclude=wrong)


async def test_everyone_is_written_to(cluster: EmbeddedCluster) -> None:
    """In whatever channel, and in none."""
    members = [await cluster.connect(cluster.a, "lobby"), await cluster.connect(cluster.b, user="ada")]
    members.append(await cluster.connect(cluster.b))
    await cluster.a.service.write_all("x", 1)
    for member in members:
        assert await member.client.expect("x") == {"channel": "", "cmd": "x", "param": 1}


async def test_one_connection_is_written_to(cluster: EmbeddedCluster) -> None:
    """Held by this node or by the other one; the second tab of the same user gets nothing."""
    one, tab = [await cluster.connect(cluster.a, "lobby", user="ada") for _ in range(2)]
    for node in cluster.nodes:
        await node.service.write_connection("x", node.service.node_id, one.id)
        expected = {"channel": "", "cmd": "x", "param": node.service.node_id}
        assert await one.client.expect("x") == expected
    await settled(cluster, tab)
    assert cmds(tab) == [[]]


class TestUsers:
    async def test_all_tabs_of_a_user_are_written_to(self, cluster: EmbeddedCluster) -> None:
        """On all nodes, and no other user's."""
        tabs = [await cluster.connect(node, user="ada") for node in (cluster.a, cluster.b, cluster.b)]
        bob = await cluster.connect(cluster.a, user="bob")
        await cluster.a.service.write_user("x", 1, "ada")
        for tab in tabs:
            assert await tab.client.expect("x") == {"channel": "", "cmd": "x", "param": 1}
        await settled(cluster, bob)
        assert cmds(bob) == [[]]

    async def test_a_user_who_is_away_is_no_error(self, cluster: EmbeddedCluster) -> None:
        """The message is for whoever is there."""
        await cluster.a.service.write_user("x", 1, "nobody")

    async def test_a_user_who_left_gets_nothing_and_who_came_back_does(self, cluster: EmbeddedCluster) -> None:
        """The user's messages follow the user's connections."""
        first = await cluster.connect(cluster.a, user="ada")
        bob = await cluster.connect(cluster.a, user="bob")
        await first.client.close()
        await cluster.b.service.write_user("x", 1, "ada")
        await cluster.b.service.write_user("behind it", None, "bob")
        await bob.client.expect("behind it")  # else it may be on its way still, and find who came back
        again = await cluster.connect(cluster.a, user="ada")
        await cluster.b.service.write_user("y", 2, "ada")
        await again.client.expect("y")
        assert cmds(first, again) == [[], ["y"]]

    async def test_an_anonymous_connection_is_its_own_user(self, cluster: EmbeddedCluster) -> None:
        """Its connection id is its user id, from any node; once it is gone, it is a user who is away."""
        somebody = await cluster.connect(cluster.a, "lobby")
        for node in cluster.nodes:
            await node.service.write_user("x", node.service.node_id, somebody.id)
            await somebody.client.expect("x", param=node.service.node_id)
        await somebody.client.close()
        for node in cluster.nodes:
            await node.service.write_user("x", 1, somebody.id)

    @pytest.mark.parametrize("user", ["team~ada", "~", "a~b~c", "größe", "😀", "x" * 200])
    async def test_a_user_id_may_look_like_anything(self, cluster: EmbeddedCluster, user: str) -> None:
        """Even like a connection id."""
        member = await cluster.connect(cluster.a, user=user)
        for node in cluster.nodes:
            await node.service.write_user("x", 1, user)
            await member.client.expect("x")

    @pytest.mark.parametrize("user", ["", "a b", "x" * 201, "*", "\ud800", None, 1])
    async def test_an_illegal_user_id_is_refused(self, cluster: EmbeddedCluster, user: Any) -> None:
        """As it would be when connecting."""
        with pytest.raises(InvalidUser):
            await cluster.a.service.write_user("x", 1, user)


@every_write
class TestEveryWrite:
    async def test_what_is_no_message_is_refused(
        self, cluster: EmbeddedCluster, write: Callable[..., Awaitable[object]]
    ) -> None:
        """A command has 1 to 128 characters and no $ in front, a parameter is what JSON can say."""
        ada = await cluster.connect(cluster.a, "lobby", user="ada")
        nothing: Any = None
        for cmd in ("", "x" * 129, nothing, "$left", "$"):
            with pytest.raises(InvalidParam) as refused:
                await write(cluster.b.service, cmd, None, ada.id)
            assert refused.value.fields == {"field": "cmd"}
        for param in ({1, 2}, object(), "\ud800", 2**64, {1: 2}, {"rate": math.nan}, -math.inf):
            with pytest.raises(InvalidParam):
                await write(cluster.b.service, "x", param, ada.id)
        await settled(cluster, ada)
        assert cmds(ada) == [[]]

    async def test_what_one_node_writes_arrives_in_order(
        self, cluster: EmbeddedCluster, write: Callable[..., Awaitable[object]]
    ) -> None:
        """One after the other, or as many at once as there are."""
        ada = await cluster.connect(cluster.a, "lobby", user="ada")
        service: Service = cluster.b.service
        for number in range(50):
            await write(service, "x", number, ada.id)
        await asyncio.gather(*(write(service, "x", number, ada.id) for number in range(50, 250)))
        numbers = [(await ada.client.expect("x"))["param"] for _ in range(250)]
        assert numbers == list(range(250))

    @pytest.mark.parametrize("size", [0, 126, 70_000, 2_000_000])
    async def test_a_message_of_any_size_arrives_whole(
        self, start_cluster: StartCluster, write: Callable[..., Awaitable[object]], size: int
    ) -> None:
        """The limit on what clients send is none on what is sent to them."""
        cluster = await start_cluster(outbox_bytes=0)
        ada = await cluster.connect(cluster.a, "lobby", user="ada")
        await write(cluster.b.service, "x", "é" * (size // 2), ada.id)
        assert (await ada.client.expect("x"))["param"] == "é" * (size // 2)


async def test_all_members_see_one_order(cluster: EmbeddedCluster) -> None:
    """Two nodes write into one channel at the same time: members on both see the same sequence."""
    members = [await cluster.connect(node, "lobby") for node in (cluster.a, cluster.b, cluster.b)]
    writes = [
        node.service.write_channel("x", [number, turn], "lobby")
        for turn in range(200)
        for number, node in enumerate((cluster.a, cluster.b))
    ]
    await asyncio.gather(*writes)
    orders = []
    for member in members:
        found = [(await member.client.expect("x"))["param"] for _ in writes]
        assert [turn for number, turn in found if number == 0] == list(range(200))
        assert [turn for number, turn in found if number == 1] == list(range(200))
        orders.append(found)
    assert orders[0] == orders[1] == orders[2]
