"""Every limit on what a client may do: at it, below it and above it, and switched off by 0.

Of heads and handshakes: access/test_listener.py. Of the outbox: test_websocket.py. Of what waits for Redis:
backplane/test_contract.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp import WSServerHandshakeError

from gateway.config import Settings
from gateway.connections.limits import ABUSE_WINDOW, Pace, Refusals, pace_of
from gateway.errors import ABUSE, TOO_FAST
from tests.harness.client import Client, Clients
from tests.harness.node import Node, Nodes, lasting
from tests.harness.wait import eventually
from tests.harness.wire import CONTINUATION, PING, PONG, TEXT, Wire, Wires, frame

V1 = ["gateway.v1.json"]
MESSAGE_BYTES, CHANNELS, PRESENCE = 1000, 3, 3
BURST, REFUSED = 20, 10

StartNode = Callable[..., Awaitable[Node]]


class TestPace:
    @staticmethod
    def taken(pace: Pace, times: list[float]) -> list[bool]:
        """Tell which of the messages that come at these times are in time."""
        full_at, found = 0.0, []
        for now in times:
            taken = pace.take(full_at, now)
            found.append(taken is not None)
            full_at = full_at if taken is None else taken
        return found

    @pytest.mark.parametrize(("rate", "burst"), [(100, 200), (0.5, 1), (3, 7), (1000, 1)])
    def test_a_burst_passes_whole_and_no_more(self, rate: float, burst: int) -> None:
        """At once, whenever the client was quiet before."""
        for start in (0.0, 1e6):
            assert self.taken(Pace(rate, burst), [start] * (burst + 2)) == [True] * burst + [False] * 2

    def test_who_keeps_to_the_rate_is_never_refused(self) -> None:
        """Not even with a burst of one; a little faster is refused as often as that is."""
        times = [number / 8 for number in range(1000)]
        assert all(self.taken(Pace(8, 1), times))
        assert self.taken(Pace(4, 1), times).count(True) == 500

    def test_after_a_burst_there_is_one_at_a_time(self) -> None:
        """A token comes back every 1/rate seconds; what was refused costs none."""
        pace = Pace(4, 3)
        assert self.taken(pace, [0, 0, 0, 0, 0.25, 0.25, 0.5, 0.5]) == [True] * 3 + [False, True, False, True, False]

    def test_the_wait_it_names_is_long_enough_and_no_longer(self) -> None:
        """So that a client that waits so long is served."""
        pace, full_at = Pace(4, 1), 10.25
        wait = pace.wait(full_at, 10.0)
        assert pace.take(full_at, 10.0) is None
        assert pace.take(full_at, 10.0 + wait - 0.01) is None
        assert pace.take(full_at, 10.0 + wait) is not None

    @pytest.mark.parametrize(("rate", "burst"), [(0, 200), (100, 0), (0, 0)])
    def test_zero_is_no_limit(self, rate: float, burst: int) -> None:
        assert pace_of(rate, burst) is None


class TestRefusals:
    @staticmethod
    def after(slow: int, fast: int, *, limit: int = 10) -> object:
        refusals = Refusals(0.0)
        for number in range(slow + fast):
            refusals.add(1.0, fast=number < fast)
        return refusals.verdict(limit)

    @pytest.mark.parametrize(("slow", "fast"), [(0, 0), (10, 0), (0, 10), (5, 5)])
    def test_up_to_the_limit_nothing_happens(self, slow: int, fast: int) -> None:
        assert self.after(slow, fast) is None

    @pytest.mark.parametrize(
        ("slow", "fast", "close"), [(11, 0, ABUSE), (6, 5, ABUSE), (5, 6, TOO_FAST), (0, 11, TOO_FAST)]
    )
    def test_beyond_it_the_connection_ends_for_what_most_of_them_were(self, slow, fast, close) -> None:
        assert self.after(slow, fast) is close

    def test_what_is_a_minute_old_is_forgotten(self) -> None:
        """The count begins anew."""
        refusals = Refusals(0.0)
        for now in (1.0, 2.0, ABUSE_WINDOW + 1, ABUSE_WINDOW + 2):
            refusals.add(now, fast=False)
        assert refusals.verdict(2) is None
        refusals.add(ABUSE_WINDOW + 3, fast=False)
        assert refusals.verdict(2) is ABUSE

    def test_zero_is_no_limit(self) -> None:
        assert self.after(1000, 1000, limit=0) is None


@pytest.fixture(scope="module")
def _strict() -> Iterator[Nodes]:
    """One that refills a token in a hundred seconds: no test is that slow."""
    with lasting(Nodes(1, message_rate=0.01, message_burst=BURST, abuse_limit=REFUSED)) as nodes:
        yield nodes


@pytest.fixture
def strict(_strict: Nodes) -> Node:
    """A node that takes a burst of messages and then, for as long as a test can wait, none; the module's own."""
    _strict[0].process.assert_running()
    return _strict[0]


class TestMessageRate:
    @staticmethod
    async def use_up(client: Client) -> None:
        """Send a burst, all of which is answered."""
        for number in range(BURST):
            answer = await client.request("ping" if number % 2 else "$ping")
            assert answer["cmd"] == "$reply"

    async def test_a_burst_is_answered_and_the_next_message_is_not(self, strict: Node, connect: Clients) -> None:
        """`rate-limited` with the request's id and the seconds after which it would be taken."""
        client = await connect(strict, protocols=V1)
        await self.use_up(client)
        answer = await client.request("ping")
        assert (answer["cmd"], answer["param"]["code"]) == ("$error", "rate-limited")
        assert 0 < answer["param"]["retry_after"] <= 100.1

    async def test_the_gateway_s_own_commands_count(self, strict: Node, connect: Clients) -> None:
        """Probes, joins, everything."""
        client = await connect(strict, protocols=V1)
        await self.use_up(client)
        for cmd in ("$ping", "$join", "$presence", "nonsense"):
            answer = await client.request(cmd, channel="lobby")
            assert answer["param"]["code"] == "rate-limited"

    async def test_what_is_no_message_is_refused_too(self, strict: Node, wire: Wires) -> None:
        """With its id if it can be read."""
        client = await wire(strict)
        for _ in range(BURST):
            await client.send('{"cmd": "ping"}')
            assert (await said(client))["cmd"] == "pong"
        for sent, id in (("nonsense", None), ('{"cmd": 1, "id": 7}', 7), ('{"cmd": "ping", "id": "x"}', "x")):
            await client.send(sent)
            answer = await said(client)
            assert (answer["param"]["code"], answer.get("id")) == ("rate-limited", id)

    async def test_each_connection_has_its_own(self, strict: Node, connect: Clients) -> None:
        """Who is too fast does not slow down others."""
        fast, other = await connect(strict, protocols=V1), await connect(strict, protocols=V1)
        await self.use_up(fast)
        assert (await fast.request("ping"))["cmd"] == "$error"
        assert (await other.request("ping"))["cmd"] == "$reply"

    async def test_who_goes_on_is_closed_with_4429(self, strict: Node, connect: Clients) -> None:
        """As many refusals as `abuse_limit` are answered, the one after that is the last."""
        client = await connect(strict, protocols=V1)
        await self.use_up(client)
        for _ in range(REFUSED):
            assert (await client.request("ping"))["param"]["code"] == "rate-limited"
        await client.send("ping", id="last")
        assert (await client.expect("$error", id="last"))["param"]["code"] == "rate-limited"
        await client.expect_close(4429)

    async def test_who_was_mostly_wrong_is_closed_with_1008(self, strict: Node, connect: Clients) -> None:
        """What a connection ends with says what it did."""
        client = await connect(strict, protocols=V1)
        for _ in range(REFUSED):
            assert (await client.request("nonsense"))["param"]["code"] == "unknown-command"
        for _ in range(BURST - REFUSED):
            await client.request("ping")
        await client.send("ping")
        await client.expect_close(1008)

    async def test_who_waits_is_served_again(self, start_node: StartNode, connect: Clients) -> None:
        """A refusal is no punishment."""
        client = await connect(await start_node(message_rate=2, message_burst=1, abuse_limit=0), protocols=V1)
        assert (await client.request("ping"))["cmd"] == "$reply"
        assert (await client.request("ping"))["param"]["retry_after"] <= 0.502

        async def served() -> bool:
            return (await client.request("ping"))["cmd"] == "$reply"

        await eventually(served)

    @pytest.mark.parametrize("off", [{"message_rate": 0}, {"message_burst": 0}], ids=str)
    async def test_zero_is_no_limit(self, start_node: StartNode, wire: Wires, off: dict[str, Any]) -> None:
        """Neither of messages nor of other frames, nor of bytes unless that is set."""
        assert (Settings(**off).byte_rate, Settings(byte_rate=5, **off).byte_rate) == (0, 5)
        client = await wire(await start_node(**off))
        await client.write(frame(b"", PONG) * 1000 + frame('{"cmd":"ping"}') * 1000)
        for _ in range(1000):
            assert (await said(client))["cmd"] == "pong"


FRAMES = {
    "pings": frame(b"x", PING),
    "pongs": frame(b"x", PONG),
    "empty fragments": frame(b"", CONTINUATION, fin=False),
    "small fragments": frame(b"x" * 127, CONTINUATION, fin=False),
}


class TestFramesWithoutMessages:
    """Pings, pongs and small parts of messages cost the node as much as messages do, so they count as such."""

    @pytest.mark.parametrize("kind", FRAMES)
    async def test_a_burst_and_the_refusals_are_borne(self, strict: Node, wire: Wires, kind: str) -> None:
        """As many as a client may send and as many more as it may be refused; the next one ends it with 4429."""
        client = await wire(strict)
        frames = [frame(b'{"cmd":', fin=False)] + [FRAMES[kind]] * (BURST + REFUSED)
        await client.write(b"".join(frames[: BURST + REFUSED - 1]) + frame(b"alive?", PING))
        while (answer := await client.read_frame()).payload != b"alive?":
            pass
        assert answer.opcode == PONG
        await client.write(FRAMES[kind])
        assert (await client.read_close()).close_code == 4429

    async def test_large_parts_do_not_count(self, strict: Node, wire: Wires) -> None:
        """They are bounded by the size of a message, which counts once."""
        client = await wire(strict)
        text = json.dumps({"cmd": "ping", "param": "x" * 128 * 100}).encode()
        parts = [text[start : start + 128] for start in range(0, len(text), 128)]
        assert len(parts) > BURST + REFUSED
        await client.write(frame(parts[0], TEXT, fin=False))
        await client.write(b"".join(frame(part, CONTINUATION, fin=False) for part in parts[1:-1]))
        await client.write(frame(parts[-1], CONTINUATION))
        assert (await said(client))["cmd"] == "pong"


async def said(client: Wire) -> dict[str, Any]:
    """Return the next message to a client, past pings and pongs."""
    while (found := await client.read_frame()).opcode in (PING, PONG):
        pass
    answer: dict[str, Any] = found.json
    return answer


@pytest.fixture(scope="module")
def _small() -> Iterator[Nodes]:
    with lasting(
        Nodes(
            *(1, "memory://"),
            max_message_bytes=MESSAGE_BYTES,
            max_channels_per_connection=CHANNELS,
            presence_max=PRESENCE,
        )
    ) as nodes:
        yield nodes


@pytest.fixture
def small(_small: Nodes) -> Node:
    """A node with small limits; it lives as long as the module."""
    _small[0].process.assert_running()
    return _small[0]


def sized(size: int) -> bytes:
    """Make a message of so many bytes."""
    empty = len(json.dumps({"cmd": "ping", "param": ""}))
    return json.dumps({"cmd": "ping", "param": "x" * (size - empty)}).encode()


class TestMessageBytes:
    @pytest.mark.parametrize("size", [MESSAGE_BYTES - 1, MESSAGE_BYTES])
    @pytest.mark.parametrize("parts", [1, 2])
    async def test_up_to_the_limit_a_message_is_taken(self, small: Node, wire: Wires, size: int, parts: int) -> None:
        client = await wire(small)
        await client.write(fragmented(sized(size), parts))
        assert (await said(client))["cmd"] == "pong"

    @pytest.mark.parametrize("parts", [1, 2])
    async def test_beyond_it_the_connection_ends_with_1009(self, small: Node, wire: Wires, parts: int) -> None:
        client = await wire(small)
        await client.write(fragmented(sized(MESSAGE_BYTES + 1), parts))
        assert (await client.read_close()).close_code == 1009

    async def test_zero_is_no_limit(self, start_node: StartNode, wire: Wires) -> None:
        client = await wire(await start_node(max_message_bytes=0))
        await client.write(frame(sized(3_000_000)))
        assert (await said(client))["cmd"] == "pong"


def fragmented(message: bytes, parts: int) -> bytes:
    if parts == 1:
        return frame(message)
    return frame(message[:500], fin=False) + frame(message[500:], CONTINUATION)


class TestConnections:
    async def test_a_full_node_refuses_until_somebody_leaves(self, start_node: StartNode, connect: Clients) -> None:
        """503 with `Retry-After`; those it holds are not harmed."""
        node = await start_node(max_connections=3)
        clients = [await connect(node, protocols=V1) for _ in range(3)]
        for _ in range(2):
            with pytest.raises(WSServerHandshakeError) as refused:
                await connect(node)
            assert refused.value.headers is not None
            assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "1")
        await clients[0].close()

        async def admitted() -> bool:
            try:
                await connect(node)
            except WSServerHandshakeError:
                return False
            return True

        await eventually(admitted)
        for client in clients[1:]:
            assert (await client.request("ping"))["cmd"] == "$reply"

    async def test_many_at_once_do_not_get_past_it(self, start_node: StartNode, connect: Clients) -> None:
        """Exactly as many as there are places."""
        node = await start_node(max_connections=5)
        outcomes = await asyncio.gather(*(connect(node) for _ in range(40)), return_exceptions=True)
        assert sum(isinstance(outcome, Client) for outcome in outcomes) == 5
        assert {outcome.status for outcome in outcomes if isinstance(outcome, WSServerHandshakeError)} == {503}


class TestChannels:
    NAMES = tuple(f"channel-{number}" for number in range(CHANNELS + 1))

    async def test_up_to_the_limit_a_connection_may_ask_for_channels(self, small: Node, connect: Clients) -> None:
        for count in (CHANNELS - 1, CHANNELS):
            client = await connect(small, *self.NAMES[:count], protocols=V1)
            assert len((await client.expect("$welcome"))["param"]["channels"]) == count

    async def test_beyond_it_the_handshake_is_a_400(self, small: Node, connect: Clients) -> None:
        with pytest.raises(WSServerHandshakeError) as refused:
            await connect(small, *self.NAMES)
        assert refused.value.status == 400

    @pytest.mark.parametrize("way", ["$join", "join-room"])
    async def test_later_joins_count_and_leaving_makes_room(self, small: Node, connect: Clients, way: str) -> None:
        """`too-many-channels`; joining again where one is already is no further channel."""
        client = await connect(small, *self.NAMES[:-2], protocols=V1)

        async def join(channel: str) -> str:
            answer = await client.request(way, {"room": channel}, channel=channel)
            return "" if answer["cmd"] == "$reply" else answer["param"]["code"]

        at, above = self.NAMES[-2:]
        assert [await join(at), await join(above), await join(at)] == ["", "too-many-channels", ""]
        assert (await client.request("$leave", channel=at))["cmd"] == "$reply"
        assert [await join(above), await join(at)] == ["", "too-many-channels"]

    async def test_zero_is_no_limit(self, start_node: StartNode, connect: Clients) -> None:
        node = await start_node(max_channels_per_connection=0)
        client = await connect(node, *(f"c{number}" for number in range(200)), protocols=V1)
        assert len((await client.expect("$welcome"))["param"]["channels"]) == 200


class TestPresence:
    async def test_above_the_limit_users_are_counted_and_not_named(self, small: Node, connect: Clients) -> None:
        """`$presence` names up to `presence_max` users."""
        clients = []
        for count in range(1, PRESENCE + 2):
            clients.append(await connect(small, "crowd", protocols=V1))
            await clients[-1].expect("$welcome")
            answer = (await clients[0].request("$presence", channel="crowd"))["param"]
            assert answer["count"] == count
            assert ("users" in answer) == (count <= PRESENCE)
