"""Bytes that no client should send: each ends its own connection at most, with the code it deserves."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress

from tests.stress.arena import Arena, in_turn
from tests.stress.checks import DEADLINE, eventually
from tests.stress.node import Node
from tests.stress.scenario import scenario
from tests.stress.wire import BINARY, CLOSE, CONTINUATION, ENDED, PING, PONG, TEXT, Wire, frame, say

MALFORMED: dict[str, tuple[bytes, int]] = {
    "reserved bit": (frame("{}", rsv=4), 1002),
    "all reserved bits": (frame("{}", rsv=7), 1002),
    "not masked": (frame("{}", mask=None), 1002),
    "unknown opcode": (frame("{}", 0x3), 1002),
    "unknown control opcode": (frame("", 0xB), 1002),
    "continuation of nothing": (frame("{}", CONTINUATION), 1002),
    "text within a message": (frame("{", fin=False) + frame("}"), 1002),
    "binary within a message": (frame("{", fin=False) + frame("}", BINARY), 1002),
    "fragmented ping": (frame("x", PING, fin=False), 1002),
    "long ping": (frame("x" * 126, PING), 1002),
    "long close": (frame(b"\x03\xe8" + b"x" * 124, CLOSE), 1002),
    "close of one byte": (frame(b"\x03", CLOSE), 1002),
    "close with 999": (frame(struct.pack(">H", 999), CLOSE), 1002),
    "close with 1005": (frame(struct.pack(">H", 1005), CLOSE), 1002),
    "close with 5000": (frame(struct.pack(">H", 5000), CLOSE), 1002),
    "close with broken UTF-8": (frame(b"\x03\xe8\xff", CLOSE), 1007),
    "length that needs no 16 bits": (bytes([0x81, 0xFE, 0, 2]) + b"\0\0\0\0{}", 1002),
    "length that needs no 64 bits": (bytes([0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0, 2]) + b"\0\0\0\0{}", 1002),
    "negative length": (bytes([0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]) + b"\0\0\0\0", 1002),
    "too large": (frame("", length=70_000), 1009),
    "enormous": (frame("", length=1 << 60), 1009),
    "too large in parts": (b"".join(frame("x" * 30_000, TEXT if i == 0 else 0, fin=False) for i in range(3)), 1009),
    "broken UTF-8": (frame(b'{"cmd":"\xff"}'), 1007),
    "half a character": (frame(b'{"cmd":"\xe2\x82'), 1007),
    "a surrogate": (frame(b'{"cmd":"\xed\xa0\x80"}'), 1007),
    "overlong": (frame(b'{"cmd":"\xc0\xaf"}'), 1007),
}
BAD_MESSAGES = [
    *("", "{", "nonsense", "[]", "7", "null", '"x"', "{}", '{"cmd":null}', '{"cmd":""}', '{"cmd":7}', '{"cmd":["x"]}'),
    *('{"cmd":"x","channel":7}', '{"cmd":"x","channel":["a"]}', '{"cmd":"x","id":1.5}', '{"cmd":"x","id":{}}'),
    *('{"cmd":"x","id":true}', '{"cmd":"' + "x" * 129 + '"}', '{"cmd":"x"}}', "[" * 2000),
]


@scenario(quick=True)
async def malformed_frames_end_their_own_connection(arena: Arena) -> None:
    """Each broken frame ends its connection with the right code, however it is cut; members beside it miss nothing."""
    members = await arena.peers(8, "calm")
    writer = await arena.peer()
    writing = asyncio.create_task(writer.request("say", {"by": "w", "count": 200}, "calm"))

    async def break_it(number: int) -> None:
        name, (data, code) = list(MALFORMED.items())[number // 3]
        wire = await arena.wire(None, "calm", protocol=("", "gateway.v1.json")[number % 2])
        if number % 3 == 0:
            await wire.write(data)
        else:
            cut = arena.random.randrange(1, len(data))
            await wire.write(say("no-such-command") + data[:cut])
            await wire.write(data[cut:])
        arena.equal(f"close code after {name}", code, await wire.read_code())

    await in_turn(break_it, range(3 * len(MALFORMED)))
    await writing
    arena.count(messages=200)
    for member in members:
        arena.equal(f"what {member} heard", list(range(200)), await member.hears("w", 200))


@scenario()
async def bad_messages_are_answered(arena: Arena) -> None:
    """What is no message is answered with bad-message, in every protocol, and ends nothing."""
    for protocol in ("gateway.v1.json", ""):
        wire = await arena.wire(None, "talk", protocol=protocol)
        for text in BAD_MESSAGES:
            await wire.write(frame(text))
            answer = await wire.read_message()
            while answer["cmd"] == "online-update":
                answer = await wire.read_message()
            arena.equal(f"the answer to {text[:40]!r}", "$error", answer["cmd"])
            arena.equal(f"the code for {text[:40]!r}", "bad-message", answer["param"]["code"])
        await wire.write(frame(b'{"cmd":"echo"}', BINARY))
        arena.equal("the code for a binary frame", "bad-message", (await wire.read_message())["param"]["code"])
        wire.close()
        arena.count(messages=len(BAD_MESSAGES) + 1)


@scenario()
async def random_bytes_after_the_upgrade(arena: Arena) -> None:
    """Random bytes, broken and cut frames end in a close or nothing at all; the nodes go on as if nothing was."""
    members = await arena.peers(4, "calm")

    async def throw(number: int) -> None:
        wire = await arena.wire(None, *(("calm",) if number % 2 else ()))
        for _ in range(arena.random.randrange(1, 6)):
            data = bytearray(
                frame(arena.random.randbytes(arena.random.randrange(200)), arena.random.choice((1, 2, 9, 0)))
            )
            for _ in range(arena.random.randrange(4)):
                data[arena.random.randrange(len(data))] = arena.random.randrange(256)
            try:
                await wire.write(arena.random.randbytes(60) if number % 5 == 0 else bytes(data))
            except ConnectionError:
                break
        wire.reset() if number % 3 else wire.close()

    await in_turn(throw, range(300))
    writer = await arena.peer()
    await writer.request("say", {"by": "w", "count": 20}, "calm")
    for member in members:
        arena.equal(f"what {member} heard", list(range(20)), await member.hears("w", 20))


@scenario(quick=True)
async def broken_handshakes_cost_nothing(arena: Arena) -> None:
    """Half a request, nonsense, wrong versions and endless headers are refused or cut off, and leave nothing."""
    node = await arena.extra(handshake_timeout=1)
    files = (await inspected(arena, node))["files"]

    async def knock(number: int) -> None:
        wire = arena.keep(await Wire.open(node.url("hall")))
        head = wire.upgrade()
        kinds: list[tuple[bytes, tuple[int, ...]]] = [
            (head[: arena.random.randrange(1, len(head) - 1)], (408,)),
            (b"", (0,)),
            (arena.random.randbytes(40) + b"\r\n\r\n", (400, 0)),
            (b"\x16\x03\x01\x02\x00", (400,)),
            (head.replace(b"Version: 13", b"Version: 12"), (400, 426)),
            (head.replace(b"Upgrade: websocket\r\n", b""), (400, 426)),
            (head.replace(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: x"), (400,)),
            (head.replace(b"ch=hall", b"ch=%7B%7D"), (400,)),
            (head.replace(b"ch=hall", b"ch=%00"), (400,)),
            (b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 40_000, (431, 400, 0)),
            (head.replace(b"GET", b"POST"), (405, 400)),
            (wire.upgrade(headers={"Origin": "https://elsewhere.example"}), (403,)),
        ]
        data, expected = kinds[number % len(kinds)]
        with suppress(ConnectionError):
            await wire.write(data)
        status = await wire.status()
        arena.true(f"{expected} for {data[:60]!r}, got {status}", status in expected)
        wire.close()

    await in_turn(knock, range(96))
    await eventually("the files of the node", lambda: settled(arena, node, files))


async def inspected(arena: Arena, node: Node) -> dict[str, int]:
    peer = await arena.peer(node)
    found: dict[str, int] = await peer.request("inspect")
    await peer.close()
    return found


async def settled(arena: Arena, node: Node, files: int) -> bool:
    found = await inspected(arena, node)
    return found["files"] <= files + 1 and found["Listener"] == 0


@scenario()
async def messages_in_all_sorts_of_pieces(arena: Arena) -> None:
    """Messages cut into fragments and segments, with pings between them, are read like whole ones."""
    for _ in range(4):
        wire = await arena.wire(protocol="gateway.v1.json")
        for number in range(20):
            text = f'{{"cmd":"echo","id":{number},"param":"{"é€😀" * arena.random.randrange(400)}"}}'
            data, parts = text.encode(), list[bytes]()
            while data:
                cut = arena.random.randrange(1, max(2, len(data) // 2))
                part, data = data[:cut], data[cut:]
                parts.append(frame(part, TEXT if not parts else CONTINUATION, fin=not data))
                if arena.random.random() < 0.2:
                    parts.append(frame("p", arena.random.choice((PING, PONG))))
            stream = b"".join(parts)
            while stream:
                cut = arena.random.randrange(1, 3000)
                await wire.write(stream[:cut])
                stream = stream[cut:]
            answer = await wire.read_message()
            arena.equal("the id of the answer", number, answer["id"])
            arena.true("the same text back", f'"{answer["param"]}"' in text)
        arena.count(messages=20)


@scenario()
async def connections_break_in_the_middle_of_everything(arena: Arena) -> None:
    """Connections that are reset in a handshake, in a frame, or while they are written to leave no trace."""
    writer = await arena.peer(user="writer")
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            await writer.request("say", {"by": "w", "count": 20, "also": {"x": "y" * 2000}}, "breaking")

    async def break_off(number: int) -> None:
        wire = arena.keep(await Wire.open(arena.any_node().url("breaking", "kept-breaking")))
        head = wire.upgrade(protocols=["gateway.v1.json"] if number % 2 else [])
        await wire.write(head if number % 4 else head[: arena.random.randrange(1, len(head))])
        if number % 4 > 1 and await wire.status() == 101:
            data = say("$join", None, channel="kept-other", id=1) + say("say", {"count": 3}, channel="breaking")
            await wire.write(data[: arena.random.randrange(len(data))])
            if number % 8 > 3:
                await wire.read(200, deadline=DEADLINE)
        if number % 3 == 1:
            wire.finish()
        else:
            wire.reset() if number % 3 else wire.close()

    writing = asyncio.create_task(write())
    await in_turn(break_off, range(200))
    stop.set()
    await writing
    for channel in ("breaking", "kept-breaking", "kept-other"):
        await arena.set_becomes(f"members:{channel}", ())
        at = await writer.request("say", {"by": "w", "count": 5}, channel)
        for node in arena.nodes:
            late = await arena.peer(node)
            answer = await late.request("$join", None, channel)
            arena.equal(f"where {late} begins in {channel}", at.get("offset"), answer["offset"])
            arena.equal(f"what {late} heard", [], late.params("n"))


@scenario()
async def who_sends_nonsense_for_long_is_ended(arena: Arena) -> None:
    """Past abuse_limit refused messages a connection is closed with 1008, past as many too fast with 4429."""
    node = await arena.extra(abuse_limit=20, message_rate=50, message_burst=30)
    wire = await arena.wire(node)
    for _ in range(25):
        await wire.write(frame("nonsense"))
    arena.equal("the end of nonsense", 1008, await wire.read_code())
    fast = await arena.wire(node)
    await fast.write(b"".join(say("echo", number) for number in range(500)))
    arena.equal("the end of haste", 4429, await fast.read_code())
    pings = await arena.wire(node)
    try:
        await pings.write(b"".join(frame("", PING) for _ in range(2000)))
        code = await pings.read_code()
    except ConnectionError:
        code = ENDED
    arena.true(f"an end of too many pings, got {code}", code in (4429, ENDED))
