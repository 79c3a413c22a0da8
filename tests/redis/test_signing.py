"""What commands a node is signed where the cluster has a secret; messages by hand pass as they always did."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.application.publisher import Publisher
from gateway.errors import InvalidEnvelope, Unavailable
from gateway.redis.signing import FRESH, Signing
from tests.harness import properties  # noqa: F401
from tests.harness.client import Clients
from tests.harness.embedded import Embedded, EmbeddedCluster, observing
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

SECRET = "a secret of the whole cluster"
TOPIC = b"gateway:node:a"


class TestSignature:
    """Plain data: what is taken, and what is not."""

    def test_what_is_signed_is_taken_once(self) -> None:
        """By whoever has the secret, from the topic that it was meant for."""
        ours, theirs = Signing(SECRET), Signing(SECRET)
        signed = ours.sign(TOPIC, b"drain")
        assert theirs.open(TOPIC, signed) == b"drain"
        with pytest.raises(InvalidEnvelope, match="once"):
            theirs.open(TOPIC, signed)

    @pytest.mark.parametrize(
        "refused",
        [
            lambda: (b"gateway:node:b", Signing(SECRET).sign(TOPIC, b"drain")),
            lambda: (TOPIC, Signing(SECRET + "x").sign(TOPIC, b"drain")),
            lambda: (TOPIC, b"drain"),
            lambda: (TOPIC, b""),
            lambda: (TOPIC, b"\xff" * 99),
            lambda: (TOPIC, msgpack.packb({"ask": "drain", "number": 1, "from": "x"})),
            lambda: (TOPIC, msgpack.packb({"signed": b"drain", "at": -1, "nonce": b"", "mac": b""})),
            lambda: (TOPIC, msgpack.packb({"signed": b"drain", "at": 2**63, "nonce": b"12345678", "mac": b""})),
        ],
    )
    def test_anything_else_is_not(self, refused: Any) -> None:
        """For another node, with another secret, without any, and rubbish."""
        with pytest.raises(InvalidEnvelope):
            Signing(SECRET).open(*refused())

    def test_an_old_one_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It was good for a minute; and what was seen is forgotten once it would be refused by its age."""
        ours, theirs, now = Signing(SECRET), Signing(SECRET), time.time()
        signed = ours.sign(TOPIC, b"drain")
        theirs.open(TOPIC, ours.sign(TOPIC, b"x"))
        monkeypatch.setattr(time, "time", lambda: now + 3 * FRESH)
        with pytest.raises(InvalidEnvelope, match="clocks"):
            theirs.open(TOPIC, signed)
        monkeypatch.setattr(time, "time_ns", lambda: int((now + 3 * FRESH) * 1e9))
        theirs.open(TOPIC, ours.sign(TOPIC, b"y"))
        assert len(theirs._seen) == 1

    def test_without_a_secret_everything_is_taken(self) -> None:
        """What is signed, too: nodes get the secret one after the other."""
        assert Signing().open(TOPIC, Signing(SECRET).sign(TOPIC, b"drain")) == b"drain"
        assert Signing().open(TOPIC, Signing().sign(TOPIC, b"drain")) == b"drain"

    @given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0), st.integers(0, 255))
    def test_a_signed_text_that_was_changed_is_not(self, topic: bytes, said: bytes, place: int, byte: int) -> None:
        """Whichever byte of it."""
        signed = bytearray(Signing(SECRET).sign(topic, said))
        before = bytes(signed)
        signed[place % len(signed)] = byte
        if bytes(signed) != before:
            with pytest.raises(InvalidEnvelope):
                Signing(SECRET).open(topic, bytes(signed))


@pytest.fixture
async def cluster(redis_url: str, connect: Clients) -> AsyncIterator[EmbeddedCluster]:
    """Two nodes that share a secret."""
    cluster = EmbeddedCluster(redis_url, connect, cluster_secret=SECRET)
    await cluster.start()
    yield cluster
    await cluster.stop()


def commands(node: Embedded, id: str) -> dict[str, list[bytes]]:
    """Return what commands a node, as anybody may publish it, by the topic."""
    asked: list[dict[str, Any]] = [
        {"ask": "drain"},
        {"ask": "disconnect", "connection": id, "code": 4410, "reason": ""},
        {"ask": "join", "connection": id, "channel": "forged"},
        {"ask": "leave", "connection": id, "channel": "lobby"},
        {"ask": "write", "connection": id, "payload": b'{"cmd":"forged"}'},
    ]
    questions = [each | {"number": number, "from": "somebody"} for number, each in enumerate(asked)]
    signed = [Signing("another secret").sign(f"gateway:node:{node.service.node_id}".encode(), b"x")]
    return {
        f"node:{node.service.node_id}": [*(msgpack.packb(each) for each in questions), *signed],
        "nodes": [msgpack.packb({"tap": "somebody", "filters": [[""] * 7]})],
        f"beat:{node.service.node_id}": [b"1", b"9" * 5000, b"x 99"],
    }


async def test_unsigned_commands_are_dropped_and_messages_by_hand_arrive(
    cluster: EmbeddedCluster, redis: RedisServer, connect: Clients
) -> None:
    """A node is not drained, its clients are not moved; what is rejected is counted, and nodes obey each other."""
    member = await cluster.connect(cluster.a, "lobby", user="ada")
    rejected = {node: node.service.counters.rejected for node in cluster.nodes}
    count = 0
    for topic, said in commands(cluster.a, member.id).items():
        for data in said:
            await redis.command("PUBLISH", f"gateway:{topic}", data)
            count += 1
    await eventually(lambda: cluster.a.service.counters.rejected == rejected[cluster.a] + count)
    assert cluster.a.service.readiness.status == "ok"
    by_hand = {"channel:lobby": {}, "user:ada": {}, "all": {}, "direct": {"connection": member.id}}
    for topic, fields in by_hand.items():
        await redis.publish(f"gateway:{topic}", "hello", topic, **fields)
        await member.client.expect("hello", param=topic)
    assert await cluster.b.service.join(member.id, "side") is True
    await cluster.b.service.write_connection("hello", 1, member.id)
    await member.client.expect("hello", param=1)
    async with observing(cluster.b.service, lambda cmd: cluster.a.service.write_channel(cmd, None, "lobby")):
        pass
    assert "forged" not in {message["cmd"] for message in member.client.received}
    await cluster.b.service.disconnect(member.id)
    await member.client.expect_close(4410)


async def test_a_publisher_asks_nodes_with_the_secret(cluster: EmbeddedCluster, redis_url: str) -> None:
    """Channels and users it reaches without; to write to one connection its node has to be asked."""
    member = await cluster.connect(cluster.a, "lobby", user="ada")
    async with Publisher(redis_url, cluster_secret=SECRET) as publisher:
        await publisher.write_connection("hello", 1, member.id)
        await member.client.expect("hello", param=1)
    async with Publisher(redis_url, publish_timeout=1) as stranger:
        await stranger.write_channel("hello", 2, "lobby")
        await member.client.expect("hello", param=2)
        with pytest.raises(Unavailable, match="cluster_secret"):
            await stranger.write_connection("hello", 3, member.id)


async def test_entries_of_the_books_that_no_node_has_signed_are_not_shown(
    cluster: EmbeddedCluster, redis: RedisServer
) -> None:
    """Whoever may write to Redis can add to the audit, but not in the name of a node."""
    operations = cluster.a.service.operations
    operations.audit("ada", "send", "lobby")
    forged = json.dumps({"at": 1, "node": "x", "who": "eve", "action": "send", "target": "x", "details": {}})
    await redis.command("XADD", "gateway:audit", "*", "entry", forged)
    await redis.command("XADD", "gateway:audit", "*", "entry", forged, "signature", "0" * 64)

    async def shown() -> bool:
        return [entry["who"] for entry in await operations.read("audit")] == ["ada"]

    await eventually(shown)


async def test_a_forged_beat_does_not_end_deafness(redis: RedisServer, redis_url: str) -> None:
    """What a deaf node is sent in its own name is none of its beats, whatever number it has."""
    node = Embedded(redis_url)
    await node.start()
    try:
        echo = node.service.node.backplane._shard.echo  # type: ignore[attr-defined]
        await eventually(lambda: echo._heard_number > 0)
        heard, rejected = echo._heard_number, node.service.counters.rejected
        for data in (b"999999999999", b"x", b"", b"-1", echo._word + b" 999999", echo._word + b" -1", echo._word):
            await redis.command("PUBLISH", echo.topic, data)
        await eventually(lambda: node.service.counters.rejected >= rejected + 6)
        assert echo._heard_number <= echo._number
        assert heard <= echo._heard_number
    finally:
        await node.stop()


OTHERS: list[Any] = [None, 5, -1, 2**63, 1.5, "", "x", "x~1", "x" * 9999, [], [5], [[]], [None], {}, b"\xff"]
QUERIES: list[Any] = [
    *({}, {"limit": "x"}, {"text": 5}, {"sort": []}, {"after": 5}, {"after": [1, 2]}, {"x": 1}, {1: 2}, None),
    *({"kind": "channels", "limit": 5, "prefix": prefix} for prefix in OTHERS),
    *({"kind": "channels", "limit": 5, "after": after} for after in (1, [1, "x"], ["x", "y"], ["x"])),
]


def questions() -> Iterator[dict[str, Any]]:
    """Make questions that no node asks."""
    for verb in ("connections", "names"):
        yield from ({"ask": verb, "query": query, "most": most} for query in QUERIES for most in (1, -1, "x"))
    for verb in ("series", "rates", "members", "detail", "join", "leave", "write", "disconnect", "", "x" * 9999):
        for name in ("since", "channels", "channel", "connection"):
            yield from ({"ask": verb, name: value} for value in OTHERS)


async def test_a_bad_question_is_rejected_and_leaves_no_traceback(
    cluster: EmbeddedCluster, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the arguments are: the node, and whoever asks it properly, do not notice."""
    member = await cluster.connect(cluster.a, "lobby")
    topic = f"gateway:node:{cluster.a.service.node_id}".encode()
    signer, before = Signing(SECRET), cluster.a.service.counters.rejected
    said = [{"number": number, "from": "somebody", **question} for number, question in enumerate(questions())]
    for answer in (5, [5], [[1, ["x"]]], {"rows": 1}, None, float("nan")):
        said += [{"answer": number, "result": answer} for number in range(1, 4)]
    async with redis.client() as client, client.pipeline(transaction=False) as pipeline:
        for fields in said:
            pipeline.publish(topic.decode(), signer.sign(topic, msgpack.packb(fields)))
        await pipeline.execute()
    assert await cluster.b.service.join(member.id, "side") is True
    await eventually(lambda: cluster.a.service.counters.rejected > before + 20)
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
