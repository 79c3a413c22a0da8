"""Those who are no clients: publishers, the server API, taps and operators, all while there is traffic."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from gateway import Publisher, SyncPublisher
from tests.stress.arena import NODES, Arena, in_turn
from tests.stress.node import Node
from tests.stress.peer import Peer
from tests.stress.scenario import scenario


@scenario(quick=True)
async def publishers_of_all_kinds(arena: Arena) -> None:
    """What publishers, threads, the API and clients write at the same time comes to every member, each in order."""
    members, kept = await arena.peers(12, "fair", mixed=True), await arena.peers(6, "kept-fair")
    channels, count = ("fair", "kept-fair"), 60
    client = await arena.peer()

    async def by_publisher(by: str) -> None:
        async with Publisher(arena.redis.url) as publisher:
            for number in range(count):
                for channel in channels:
                    await publisher.write_channel("n", {"by": by, "n": number}, channel)

    def in_thread(publisher: SyncPublisher, by: str) -> None:
        for number in range(count):
            for channel in channels:
                publisher.write_channel("n", {"by": by, "n": number}, channel)

    async def by_api(by: str) -> None:
        for number in range(count):
            for channel in channels:
                body = {"cmd": "n", "param": {"by": by, "n": number}}
                status, _ = await arena.any_node().ask("POST", f"/api/channels/{channel}/messages", body)
                arena.equal("the API's answer", 202, status)

    async def by_client() -> None:
        for channel in channels:
            await client.request("say", {"by": "client", "count": count}, channel)

    shared = SyncPublisher(arena.redis.url)
    by_threads = (asyncio.to_thread(in_thread, shared, f"thread-{n}") for n in range(3))
    try:
        await asyncio.gather(by_publisher("a"), by_publisher("b"), *by_threads, by_api("api"), by_client())
    finally:
        await asyncio.to_thread(shared.close)
    writers = ("a", "b", "thread-0", "thread-1", "thread-2", "api", "client")
    arena.count(messages=len(writers) * len(channels) * count)
    for peers, channel in zip((members, kept), channels, strict=True):
        orders = []
        for peer in peers:
            for by in writers:
                arena.equal(f"{by} at {peer}", list(range(count)), await peer.hears(by, count, channel))
            orders.append([(param["by"], param["n"]) for param in peer.params("n", channel)])
        for peer, order in zip(peers, orders, strict=True):
            arena.equal(f"the order at {peer}", orders[0], order)


@scenario()
async def publishers_that_come_and_go(arena: Arena) -> None:
    """Many short-lived publishers, and threads that share one while it is closed, lose nothing that was done."""
    member = await arena.peer(None, "bus")

    async def once(number: int) -> None:
        async with Publisher(arena.redis.url) as publisher:
            await publisher.write_channel("n", {"by": "once", "n": number}, "bus")
            await publisher.write_connection("n", {"by": "direct", "n": number}, member.id)

    await in_turn(once, range(30))
    done: list[int] = []
    publisher = SyncPublisher(arena.redis.url)

    def write(first: int) -> None:
        for number in range(first, first + 200):
            try:
                publisher.write_channel("n", {"by": "thread", "n": number}, "bus")
            except Exception:  # it was closed meanwhile
                return
            done.append(number)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    await member.hears("thread", 30)
    await asyncio.to_thread(publisher.close)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await (await arena.peer()).request("say", {"by": "end"}, "bus")
    await member.hears("end", 1)
    arena.equal("messages of those who came once", set(range(30)), set(member.numbers("once")))
    arena.equal("direct messages", set(range(30)), set(member.numbers("direct")))
    arena.equal("what was done and did not come", set(), set(done) - set(member.numbers("thread")))
    arena.count(messages=60 + len(done))


@scenario(quick=True)
async def taps_open_and_close_under_load(arena: Arena) -> None:
    """Taps on all nodes, of one channel and of all, see what is written, in order, and delivery does not suffer."""
    members, writer = await arena.peers(8, "tapped"), await arena.peer(arena.nodes[0])
    stop = asyncio.Event()

    async def write() -> int:
        number = 0
        while not stop.is_set():
            await writer.request("say", {"by": "w", "first": number, "count": 5}, "tapped")
            await writer.request("say", {"by": "w", "first": number, "count": 5}, "beside")
            number += 5
        return number

    async def tap(number: int) -> int:
        observer = await arena.peer(arena.nodes[number % NODES], protocol="gateway.v1.json")
        until = f"until-{number}"
        looking = asyncio.create_task(
            observer.request("tap", {"channel": "tapped" if number % 2 else None, "until": until, "enough": 20})
        )
        await observer.wait_for("seen")
        while not looking.done():
            await arena.redis.commands.publish("gateway:channel:tapped", f'{{"cmd":"{until}"}}')
            await asyncio.wait((looking,), timeout=0.3)
        seen = [param["n"] for channel, cmd, param in await looking if channel == "tapped" and cmd == "n"]
        if number % 2:
            others = {channel for channel, _, _ in looking.result()} - {"tapped"}
            arena.equal("other channels at a tap of one", set(), others)
        arena.equal("the order at a tap", sorted(set(seen)), seen)
        return len(seen)

    writing = asyncio.create_task(write())
    seen = [sum(await asyncio.gather(*(tap(turn * 4 + number) for number in range(4)))) for turn in range(3)]
    stop.set()
    count = await writing
    for member in members:
        arena.equal(f"what {member} heard", list(range(count)), await member.hears("w", count, "tapped"))
    arena.count(messages=2 * count, seen=sum(seen))


@scenario()
async def a_tap_that_is_cut_off_is_forgotten(arena: Arena) -> None:
    """Observers whose connection breaks in the middle of a tap leave no tap, no task and no wish behind."""
    writer = await arena.peer()
    for _ in range(10):
        observers = await arena.peers(4)
        for observer in observers:
            await observer.send("tap", {"until": "never"})
            await observer.wait_for("tapping")
        await writer.request("say", {"by": "w", "count": 5}, "tapped")
        for observer in observers:
            observer.abort()
        await writer.request("tell-all", {"cmd": "never"})  # or they would look on for ever, as a handler may
        arena.count(taps=4)


@scenario()
async def lists_are_complete_while_others_come_and_go(arena: Arena) -> None:
    """Pages of the API on every node list each connection, channel and user that stays exactly once, under churn."""
    stay = await arena.peers(60, "listed", user="lister")
    named = [await arena.peer(None, f"list-{number:03}") for number in range(40)]
    stop = asyncio.Event()

    async def churn() -> None:
        while not stop.is_set():
            peer = await arena.peer(None, "listed")
            await peer.close()

    churning = [asyncio.create_task(churn()) for _ in range(4)]
    try:
        for node in arena.nodes:
            found = await pages(node, "/api/connections?limit=7&channel=listed", lambda each: each["id"])
            ours = [id for id in found if id in {peer.id for peer in stay}]
            arena.equal(f"connections that {node} lists", sorted(peer.id for peer in stay), sorted(ours))
            found = await pages(node, "/api/connections?limit=9&user=lister", lambda each: each["id"])
            arena.equal(f"connections of a user at {node}", sorted(peer.id for peer in stay), sorted(found))
            found = await pages(node, "/api/channels?limit=7&prefix=list-", lambda each: each["name"])
            arena.equal(f"channels that {node} lists", [f"list-{number:03}" for number in range(40)], found)
            arena.equal("nodes", 4, len((await node.ask("GET", "/api/nodes"))[1]["items"]))
    finally:
        stop.set()
        await asyncio.gather(*churning)
    arena.count(listed=len(stay) + len(named))


async def pages(node: Node, path: str, name: Callable[[Any], str]) -> list[str]:
    found: list[str] = []
    cursor = ""
    while True:
        status, page = await node.ask("GET", path + (f"&cursor={cursor}" if cursor else ""))
        assert status == 200, page
        found += map(name, page["items"])
        if page["cursor"] is None:
            return found
        cursor = page["cursor"]


@scenario()
async def wrong_requests_to_the_api(arena: Arena) -> None:
    """Whatever is wrong with a request, the API says so with a problem of the right status, and writes nothing."""
    member = await arena.peer(None, "api")
    to = "/api/channels/api/messages"
    asked: list[tuple[str, str, object, int]] = [
        *(("POST", to, {"cmd": cmd}, 400) for cmd in ("", 7, None, "x" * 129)),
        *(("POST", to, [], 400), ("POST", to, "x", 400), ("POST", to, None, 400), ("POST", to, {}, 400)),
        *(
            ("POST", to, body, 400)
            for body in ({"cmd": "x", "more": 1}, {"cmd": "x", "exclude": [1]}, {"cmd": "x", "from": "a b"})
        ),
        *(
            ("POST", f"/api/channels/{name}/messages", {"cmd": "x"}, 400)
            for name in ("%20", "a%00b", "%7B", "%F0%28", "x" * 201)
        ),
        ("POST", to, {"cmd": "x", "param": "y" * 3_000_000}, 413),
        ("POST", "/api/connections/nobody~1/messages", {"cmd": "x"}, 404),
        ("GET", "/api/connections/nobody~1", None, 404),
        ("GET", "/api/channels/no-such-channel", None, 404),
        ("GET", "/api/channels/api/history", None, 404),
        ("GET", "/api/connections?limit=0", None, 400),
        ("GET", "/api/connections?limit=100000", None, 400),
        ("GET", "/api/connections?cursor=nonsense", None, 400),
        ("GET", "/api/connections?no-such=1", None, 400),
        ("GET", "/api/no-such", None, 404),
        ("PATCH", "/api/status", None, 405),
        ("DELETE", "/api/connections/nobody~1", None, 404),
        ("DELETE", f"/api/connections/{member.id}?code=1006", None, 400),
        ("DELETE", f"/api/connections/{member.id}?reason={'x' * 124}", None, 400),
        ("PUT", f"/api/connections/{member.id}/channels/%20", None, 400),
        ("PUT", "/api/connections/nobody~1/channels/api", None, 404),
    ]
    for node in arena.nodes:
        for method, path, body, expected in asked:
            status, answer = await node.ask(method, path, body)
            arena.equal(f"{method} {path} with {str(body)[:50]}", expected, status)
            arena.equal(f"the problem's status, {method} {path}", expected, answer["status"])
        arena.equal("without the key", 401, (await node.ask("GET", "/api/status", key="wrong"))[0])
    await member.settled()
    arena.equal("what was written", [], member.params("x"))
    arena.count(requests=NODES * len(asked))


@scenario()
async def the_api_moves_connections_of_all_nodes(arena: Arena) -> None:
    """Joins, leaves and messages by the API of any node do to connections of all nodes what they say they did."""
    peers = await arena.peers(16, mixed=False)

    async def move(peer: Peer) -> None:
        inside: set[str] = set()
        for turn in range(12):
            channel, node = f"room-{arena.random.randrange(3)}", arena.any_node()
            method = arena.random.choice(("PUT", "DELETE"))
            status, _ = await node.ask(method, f"/api/connections/{peer.id}/channels/{channel}")
            arena.equal("the status", 200, status)
            (inside.add if method == "PUT" else inside.discard)(channel)
            status, shown = await node.ask("GET", f"/api/connections/{peer.id}")
            arena.equal(f"channels of {peer}", (200, sorted(inside)), (status, sorted(shown["channels"])))
            await node.ask("POST", f"/api/connections/{peer.id}/messages", {"cmd": "turn", "param": turn})
        arena.equal("its messages", list(range(12)), await peer.has("turn", 12))
        arena.equal(f"channels of {peer}", inside, set(await peer.request("channels")))
        arena.count(moves=12)

    await asyncio.gather(*map(move, peers))


@scenario()
async def compressed_and_plain_clients(arena: Arena) -> None:
    """With compression on, clients that offer it and those that do not hear the same, at all sizes, both ways."""
    nodes = [await arena.extra(compression=True) for _ in range(2)]
    members = [
        await arena.peer(nodes[n % 2], "packed", compress=15 if n % 3 else 0, protocol=p)
        for n, p in enumerate(("gateway.v1.json", "gateway.v1.msgpack", "") * 4)
    ]
    words = ["lorem", "ipsum", "\x00", "é", "😀", "x" * 50]
    texts = [" ".join(arena.random.choices(words, k=size)) for size in (0, 1, 20, 40, 100, 300, 1000, 2000)]
    for number, text in enumerate(texts):
        writer = members[number]
        await writer.send("say", {"by": "w", "first": number, "also": {"x": text}}, "packed")
        for member in members:
            await member.hears("w", number + 1)
    for member in members:
        arena.equal(f"texts at {member}", texts, [param["x"] for param in member.params("n")])
    for member in members:
        for text in texts if member.protocol else ():
            arena.equal("the echo", text, await member.request("echo", text))
    arena.count(messages=len(texts) * (len(members) + 1))


@scenario()
async def all_json_values_in_both_protocols(arena: Arena) -> None:
    """Every kind of JSON value goes through both protocols, the API and history unchanged."""
    values: list[Any] = [
        *(
            None,
            True,
            False,
            0,
            -1,
            2**53,
            -(2**53),
            2**63 - 1,
            -(2**63),
            1.5,
            -0.0,
            1e308,
            5e-324,
            "",
            "\x00",
            "\ud7ff\uffff",
        ),
        *(
            "😀",
            '"\\/\b\f\n\r\t',
            [],
            {},
            [[[[]]]],
            {"": {"": []}},
            {"$": 1, "cmd": "x"},
            ["x"] * 100,
            {str(n): n for n in range(50)},
        ),
    ]
    members = await arena.peers(8, "kept-values", mixed=True)
    writers = await arena.peers(8, mixed=True)
    for number, value in enumerate(values):
        writer = writers[number % len(writers)]
        await writer.send("say", {"by": "w", "first": number, "also": {"x": value}}, "kept-values")
        await members[0].hears("w", number + 1)
    for member in members:
        await member.hears("w", len(values))
        arena.equal(f"values at {member}", values, [param["x"] for param in member.params("n")])
        if member.protocol:
            page = await member.request("$history", None, "kept-values")
            arena.equal(f"history at {member}", values, [message["param"]["x"] for message in page["messages"]])
            for value in values:
                arena.equal("the echo", value, await member.request("echo", value))
    arena.count(messages=len(values))
