"""Connections and channels by the Service API, from the node that holds them and from another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import WSServerHandshakeError, web

from gateway import ConnectionInfo, ConnectionNotFound, InvalidChannel, InvalidParam, Service, TooManyChannels
from gateway.version import __version__
from tests.harness import http
from tests.harness.embedded import EmbeddedCluster
from tests.harness.wait import eventually

StartCluster = Callable[..., Awaitable[EmbeddedCluster]]

VERBS: dict[str, Callable[[Service, str], Awaitable[object]]] = {
    "join": lambda service, id: service.join(id, "side"),
    "leave": lambda service, id: service.leave(id, "lobby"),
    "write_connection": lambda service, id: service.write_connection("x", None, id),
    "disconnect": lambda service, id: service.disconnect(id),
}
every_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


async def ids(connections: AsyncIterator[ConnectionInfo]) -> set[str]:
    """List the ids of connections, each once."""
    found = [connection.id async for connection in connections]
    assert len(found) == len(set(found))
    return set(found)


async def names(found: AsyncIterator[str]) -> set[str]:
    """List what is found, each once."""
    listed = [name async for name in found]
    assert len(listed) == len(set(listed))
    return set(listed)


class TestUpgrade:
    async def test_a_connection_is_known_everywhere_once_it_is_upgraded(self, cluster: EmbeddedCluster) -> None:
        """`upgrade` returns when the join is stored; another node knows all about the connection then."""
        ada = await cluster.connect(cluster.a, "lobby", user="42", name="Ada")
        [found] = [connection async for connection in cluster.b.service.get_connections()]
        assert found == ConnectionInfo(
            ada.id, cluster.a.service.node_id, "42", "Ada", ("lobby",), found.started, "127.0.0.1"
        )
        assert found.started > 1_700_000_000_000

    async def test_a_connection_may_be_in_no_channel(self, cluster: EmbeddedCluster) -> None:
        """An empty channel is none; the connection is anonymous, and known by its own id."""
        somebody = await cluster.connect(cluster.a)
        [found] = [connection async for connection in cluster.b.service.get_connections()]
        assert (found.id, found.user, found.name, found.channels) == (somebody.id, somebody.id, "", ())

    async def test_the_loop_ends_with_the_connection(self, cluster: EmbeddedCluster) -> None:
        """`read_loop` returns the response for aiohttp when the client has gone, however it went."""
        polite, rude = await cluster.connect(cluster.a, "lobby"), await cluster.connect(cluster.a, "lobby")
        await polite.client.close()
        await rude.client.drop()
        responses = cluster.a.responses
        await eventually(lambda: {polite.id, rude.id} <= set(responses))
        assert all(isinstance(response, web.WebSocketResponse) for response in responses.values())

    @pytest.mark.parametrize("channel", ["a b", "x" * 201, "*", "a\x00"])
    async def test_an_illegal_channel_is_refused_before_the_upgrade(
        self, cluster: EmbeddedCluster, channel: str
    ) -> None:
        """The application is told, and nothing is left of the connection."""
        answer = await http.get(cluster.a.url("/connect", ch=channel))
        assert (answer.status, answer.text) == (400, "InvalidChannel")
        assert await ids(cluster.b.service.get_connections()) == set()

    async def test_an_illegal_user_is_refused_before_the_upgrade(self, cluster: EmbeddedCluster) -> None:
        """A user id is a name like a channel's."""
        answer = await http.get(cluster.a.url("/connect", ch="lobby", user="a b"))
        assert (answer.status, answer.text) == (400, "InvalidUser")

    async def test_what_is_no_websocket_is_refused(self, cluster: EmbeddedCluster) -> None:
        """A browser that follows the link is told what this is."""
        answer = await http.get(cluster.a.url("/connect"))
        assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")

    async def test_a_full_node_refuses(self, start_cluster: StartCluster) -> None:
        """503 with `Retry-After`; when somebody leaves there is room again."""
        cluster = await start_cluster(max_connections=1)
        first = await cluster.connect(cluster.a)
        with pytest.raises(WSServerHandshakeError) as raised:
            await cluster.connect(cluster.a)
        assert raised.value.status == 503
        assert raised.value.headers is not None
        assert int(raised.value.headers["Retry-After"]) >= 1
        await first.client.close()
        await eventually(lambda: first.id in cluster.a.responses)
        await cluster.connect(cluster.a)


class TestChannels:
    async def test_join_tells_who_created_the_channel_and_leave_who_emptied_it(self, cluster: EmbeddedCluster) -> None:
        """In the whole cluster, whichever node is asked."""
        one, two = await cluster.connect(cluster.a), await cluster.connect(cluster.b)
        for service in (cluster.a.service, cluster.b.service):
            assert await service.join(one.id, "side") is True
            assert await service.join(two.id, "side") is False
            assert await ids(service.get_connections_by_channel("side")) == {one.id, two.id}
            assert await service.leave(one.id, "side") is False
            assert await service.leave(two.id, "side") is True
            assert await ids(service.get_connections_by_channel("side")) == set()

    async def test_joining_and_leaving_twice_is_harmless(self, cluster: EmbeddedCluster) -> None:
        """The second time nothing is created or emptied."""
        one = await cluster.connect(cluster.a)
        service = cluster.b.service
        assert [await service.join(one.id, "side"), await service.join(one.id, "side")] == [True, False]
        assert [await service.leave(one.id, "side"), await service.leave(one.id, "side")] == [True, False]

    async def test_a_joined_channel_is_heard_at_once(self, cluster: EmbeddedCluster) -> None:
        """When `join` has returned, no message to the channel is missed; when `leave` has, none comes."""
        one = await cluster.connect(cluster.a)
        for number in range(20):
            await cluster.b.service.join(one.id, f"side-{number}")
            await cluster.b.service.write_channel("in", number, f"side-{number}")
            await one.client.expect("in", param=number, channel=f"side-{number}")
            await cluster.a.service.leave(one.id, f"side-{number}")
            await cluster.b.service.write_channel("out", number, f"side-{number}")
        await one.client.expect_nothing_but()
        assert "out" not in {message["cmd"] for message in one.client.received}

    async def test_a_connection_lists_its_channels_in_the_order_joined(self, cluster: EmbeddedCluster) -> None:
        """Every node knows them."""
        one = await cluster.connect(cluster.a, "lobby")
        for channel in ("b", "a", "größe/1"):
            await cluster.b.service.join(one.id, channel)
        await cluster.b.service.leave(one.id, "b")
        await eventually(lambda: self._channels(cluster.b.service, ("lobby", "a", "größe/1")))

    async def _channels(self, service: Service, expected: tuple[str, ...]) -> bool:
        return [connection.channels async for connection in service.get_connections()] == [expected]

    @pytest.mark.parametrize("channel", ["", "a b", "x" * 201, "*", "\ud800", None, 1])
    async def test_an_illegal_channel_is_refused_everywhere(self, cluster: EmbeddedCluster, channel: str) -> None:
        """By every method that takes one."""
        one = await cluster.connect(cluster.a)
        for service in (cluster.a.service, cluster.b.service):
            for call in (service.join(one.id, channel), service.leave(one.id, channel)):
                with pytest.raises(InvalidChannel):
                    await call
            with pytest.raises(InvalidChannel):
                await service.write_channel("x", None, channel)
            with pytest.raises(InvalidChannel):
                await ids(service.get_connections_by_channel(channel))
            with pytest.raises(InvalidChannel):
                await names(service.get_online(channel))

    async def test_a_connection_may_be_in_so_many_channels_only(self, start_cluster: StartCluster) -> None:
        """The error comes from the connection's node; after leaving one there is room again."""
        cluster = await start_cluster(max_channels_per_connection=2)
        one = await cluster.connect(cluster.a, "lobby")
        await cluster.b.service.join(one.id, "side")
        with pytest.raises(TooManyChannels):
            await cluster.b.service.join(one.id, "third")
        assert await cluster.b.service.join(one.id, "side") is False
        await cluster.b.service.leave(one.id, "lobby")
        assert await cluster.b.service.join(one.id, "third") is True


class TestUnknownConnections:
    @every_verb
    @pytest.mark.parametrize("id", ["", "x", "~", "a~", "~b", "nowhere~0123456789", "a b", "x" * 1000, "*~*", "ü~😀"])
    async def test_an_id_that_never_was_is_not_found(
        self, cluster: EmbeddedCluster, verb: Callable[[Service, str], Awaitable[object]], id: str
    ) -> None:
        """At once, whatever it looks like."""
        with pytest.raises(ConnectionNotFound):
            await verb(cluster.b.service, id)

    @every_verb
    async def test_an_id_that_is_over_is_not_found(
        self, cluster: EmbeddedCluster, verb: Callable[[Service, str], Awaitable[object]]
    ) -> None:
        """By its own node, and by others."""
        one = await cluster.connect(cluster.a, "lobby")
        await one.client.close()
        await eventually(lambda: one.id in cluster.a.responses)
        for node in cluster.nodes:
            with pytest.raises(ConnectionNotFound):
                await verb(node.service, one.id)

    @every_verb
    async def test_an_id_of_a_node_that_is_gone_is_not_found(
        self, start_cluster: StartCluster, verb: Callable[[Service, str], Awaitable[object]]
    ) -> None:
        """Nobody waits for an answer of a node that has ended."""
        gone, cluster = await start_cluster(), await start_cluster()
        one = await gone.connect(gone.a, "lobby")
        await gone.stop()
        with pytest.raises(ConnectionNotFound):
            await verb(cluster.a.service, one.id)


class TestDisconnect:
    async def test_a_connection_is_ended_for_good(self, cluster: EmbeddedCluster) -> None:
        """4410 tells a client not to come back; the others learn that it has gone."""
        one, other = await cluster.connect(cluster.a, "lobby"), await cluster.connect(cluster.a, "lobby")
        await cluster.b.service.disconnect(one.id)
        await one.client.expect_close(4410)
        await other.client.expect("online-update", param={"userID": one.id, "connected": False})
        assert await ids(cluster.b.service.get_connections()) == {other.id}

    @pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 1013, 3000, 4000, 4403, 4999])
    async def test_code_and_reason_are_the_caller_s(self, cluster: EmbeddedCluster, code: int) -> None:
        """Both reach the client."""
        one = await cluster.connect(cluster.a)
        await cluster.b.service.disconnect(one.id, code=code, reason="schöne Grüße")
        assert (await one.client.expect_close(code)).reason == "schöne Grüße"

    @pytest.mark.parametrize("code", [0, -1, 999, 1005, 1006, 1015, 2000, 2999, 5000, 70_000])
    async def test_a_code_that_no_server_may_send_is_refused(self, cluster: EmbeddedCluster, code: int) -> None:
        """The connection stays."""
        one = await cluster.connect(cluster.a)
        for node in cluster.nodes:
            with pytest.raises(InvalidParam):
                await node.service.disconnect(one.id, code=code)
        await one.client.expect_nothing_but()


class TestLooking:
    async def test_all_connections_are_listed(self, cluster: EmbeddedCluster) -> None:
        """Of all nodes, by any node; of a channel, its members only."""
        members = [await cluster.connect(node, "lobby") for node in (cluster.a, cluster.b, cluster.b)]
        other = await cluster.connect(cluster.a, "side")
        expected = {member.id for member in members}
        for node in cluster.nodes:
            assert await ids(node.service.get_connections()) == expected | {other.id}
            assert await ids(node.service.get_connections_by_channel("lobby")) == expected
            assert await ids(node.service.get_connections_by_channel("nowhere")) == set()

    async def test_users_are_online_once_however_many_tabs_they_have(self, cluster: EmbeddedCluster) -> None:
        """An anonymous connection is its own user."""
        for node in (cluster.a, cluster.b, cluster.b):
            await cluster.connect(node, "lobby", user="ada")
        nobody = await cluster.connect(cluster.b, "lobby")
        for node in cluster.nodes:
            assert await names(node.service.get_online("lobby")) == {"ada", nobody.id}
            assert await names(node.service.get_online("nowhere")) == set()

    async def test_the_status_counts_the_cluster(self, cluster: EmbeddedCluster) -> None:
        """Nodes, channels, connections and identified users; the version and the node asked."""
        tabs = [await cluster.connect(node, "lobby", user="ada") for node in (cluster.a, cluster.b)]
        await cluster.connect(cluster.b, "side")
        for node in cluster.nodes:
            status = await node.service.status()
            assert (status.node, status.version, status.taps) == (node.service.node_id, __version__, 0)
            assert (status.channels, status.connections, status.users) == (2, 3, 1)
            assert {found.id for found in status.nodes} == {other.service.node_id for other in cluster.nodes}
        for tab in tabs:
            await cluster.a.service.disconnect(tab.id)
        await eventually(lambda: self._counts(cluster, (1, 1, 0)))

    async def _counts(self, cluster: EmbeddedCluster, expected: tuple[int, ...]) -> bool:
        found = await cluster.a.service.status()
        assert (found.channels, found.connections, found.users) == expected
        return True


async def test_an_application_that_ends_sends_its_clients_elsewhere(start_cluster: StartCluster) -> None:
    """1012 with a pause that differs, at once; and nothing is left of them, in Redis neither."""
    cluster, other = await start_cluster(), await start_cluster()
    members = [await cluster.connect(cluster.a, "lobby", user=f"user-{number}") for number in range(20)]
    await cluster.stop()
    reasons = [(await member.client.expect_close(1012)).reason for member in members]
    assert all("retry_after=" in reason for reason in reasons)
    assert len(set(reasons)) > 1
    assert await ids(other.a.service.get_connections()) == set()
    assert await names(other.a.service.get_online("lobby")) == set()
