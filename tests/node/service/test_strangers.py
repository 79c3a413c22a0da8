"""What anybody with access to Redis can publish to the nodes' own topics, or in the nodes' own format.

Messages by hand are in test_injection.py.
"""

from __future__ import annotations

import msgpack
import pytest

from gateway.protocol.envelope import Envelope, pack
from tests.harness.embedded import EmbeddedCluster, observing
from tests.harness.redis import RedisServer
from tests.node.service.test_tap import writers


@pytest.fixture
def backplane_url(redis_url: str) -> str:
    """Only Redis can be written to by hand."""
    return redis_url


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff" * 50,
        b"not json",
        b"{}",
        msgpack.packb([b"no json"]),
        msgpack.packb([b"{}"]),
        msgpack.packb([b"[]"]),
        msgpack.packb([b'{"cmd": 1}']),
        msgpack.packb([b'{"cmd": "x", "channel": 1}']),
        msgpack.packb({"node": "n", "injected": b"{}", "payload": b"no json"}),
        msgpack.packb({"node": "n", "injected": b"{}", "payload": b"{}"}),
        msgpack.packb({"tap": None}),
        msgpack.packb({"ask": "join", "number": 1, "from": "nowhere", "connection": "x", "channel": "*"}),
        msgpack.packb({"ask": "write", "number": 1, "from": "a b", "connection": 1, "payload": "text"}),
        msgpack.packb({"answer": 1, "result": None}),
        msgpack.packb({"answer": 1, "error": ["Nonsense", "x"]}),
        msgpack.packb({1: 2}),
        msgpack.packb(None),
    ],
    ids=lambda payload: ascii(payload[:30]),
)
async def test_garbage_on_the_nodes_own_topics_harms_nobody(
    cluster: EmbeddedCluster, redis: RedisServer, payload: bytes
) -> None:
    """Nodes go on to deliver, to answer each other, and to show their traffic."""
    member = await cluster.connect(cluster.a, "lobby")
    async with observing(cluster.a.service, *writers(cluster)) as observer:
        for topic in ("tap", "nodes", "beat", *(f"node:{node.service.node_id}" for node in cluster.nodes)):
            await redis.command("PUBLISH", f"gateway:{topic}", payload)
        await cluster.b.service.write_channel("last", None, "lobby")
        await observer.sees("last")
    await member.client.expect("last")
    assert await cluster.b.service.join(member.id, "side") is True


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no json",
        b"\xff\xff",
        b"{}",
        b"[]",
        b'{"cmd": 1}',
        b"[" * 5000 + b"]" * 5000,
        b'{"param": 1' + b"0" * 400 + b"}",
    ],
    ids=lambda payload: ascii(payload[:20]),
)
async def test_an_envelope_of_a_stranger_harms_no_node(
    cluster: EmbeddedCluster, redis: RedisServer, payload: bytes
) -> None:
    """Whatever it carries, to clients of every protocol: what comes behind it arrives."""
    members = [
        await cluster.connect(node, "lobby", protocols=["gateway.v1.msgpack"]) for node in (cluster.a, cluster.b)
    ]
    for envelope in (Envelope(payload), Envelope(payload, ("nowhere~1",)), Envelope(payload, (), members[0].id)):
        for topic in ("channel:lobby", "all", "direct"):
            await redis.command("PUBLISH", f"gateway:{topic}", pack(envelope))
    await cluster.b.service.write_channel("last", None, "lobby")
    for member in members:
        await member.client.expect("last")
