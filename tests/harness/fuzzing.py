"""Makes what no client in its right mind would send, and a little of what one would: the same for the same seed."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from typing import Any

import msgpack

from tests.harness.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, upgrade

COMMANDS = (
    *("ping", "chat", "leave-room", "unknown", "$ping", "$join", "$leave", "$presence", "$history", "$auth"),
    *("$reply", "$error", "$welcome", "", "\x1b[2J", "x" * 200, "__class__", "🙈"),
)
NAMES = (
    *("", "fuzz", "a b", "{fuzz}", "*", "../../etc/passwd", "x" * 201, "\0", "\u2028", "é" * 100, "gateway:all"),
    *("lobby\r\nSET x y", "%s%n", "\x1b]0;title\x07"),
)
STRINGS = (*NAMES, "\ud800".encode("utf-8", "replace").decode(), "\\u0000", "9" * 400, "'; DROP", "<script>")
NUMBERS = (0, -1, 2**31, 2**63, -(2**63), 2**64, 10**40, 1.5, -0.0, 1e308)
BROKEN_JSON = (
    *("", " ", "{", "}", "[]", "null", "NaN", "1e999", '{"cmd":', '{"cmd":"chat"', "\ufeff{}", '{"a":1,}', "[[[[[[[["),
    *('{"cmd":"chat","cmd":"ping"}', '{"cmd":"\\ud800"}', '{"cmd":"chat","param":{"text":"\\u0000"}}', "{'cmd':1}"),
    '{"cmd":"chat","param":' + "[" * 500 + "]" * 500 + "}",
)
NOT_UTF8 = (b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"{\x80}")
PROTOCOLS = ("", "gateway.v1.json", "gateway.v1.msgpack")
OFFERS = ("", "permessage-deflate; client_max_window_bits", "permessage-deflate; server_max_window_bits=9")
TARGETS = (
    *("/connect", "/connect?ch=fuzz", "/connect?ch=%00", "/connect?ch=" + "x" * 300, "/connect?ch=a&ch=a", "/example"),
    *("/connect?name=%ff%fe", "/connect?token=a.b.c", "/healthz", "/metrics", "/api/messages", "/api/%2e%2e/x", "/"),
    *("/admin/websocket", "/static/../gateway.js", "*", "//", "http://[::1", "/%", "/connect?" + "a=b&" * 500),
)
HEADERS = (
    *("Upgrade: websocket", "Connection: Upgrade", "Connection: close", "Sec-WebSocket-Version: 13", "Host: other"),
    *("Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: x", "Sec-WebSocket-Protocol: gateway.token.x", "Host:"),
    *("Sec-WebSocket-Extensions: permessage-deflate; =;", "Origin: http://evil", "Origin: null", "Origin: http://[::"),
    *("Content-Length: 5", "Content-Length: -1", "Content-Length: 5, 6", "Transfer-Encoding: chunked", "Expect: x"),
    *("Authorization: Bearer \x80", "Cookie: gateway_token=;;=", "X-Forwarded-For: ,,,", "X: " + "y" * 5000, ": z"),
    *("Upgrade: h2c, websocket", "Connection: keep-alive", "Cookie: " + "c" * 9000, "X: " + "z" * 40_000),
    *("no colon", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", " folded", "X-Nul: \0", "Accept-Encoding: gzip"),
)


class Fuzzer:
    """Throws dice; counts what it made."""

    def __init__(self, seed: object) -> None:
        self._dice = random.Random(f"{seed}")
        self.frames = 0
        self.heads = 0

    def flips(self, chance: float) -> bool:
        """Come out true as often as `chance` says."""
        return self._dice.random() < chance

    # ---- HTTP

    def head(self) -> bytes:
        """Make a request as it should not be."""
        self.heads += 1
        dice = self._dice
        lines = upgrade("ws://127.0.0.1" + dice.choice(TARGETS)).split(b"\r\n")[:-2]
        for _ in range(dice.randrange(4)):
            lines.insert(dice.randint(0, len(lines)), dice.choice(HEADERS).encode("latin-1"))
        if self.flips(0.3):
            del lines[dice.randrange(len(lines))]
        if self.flips(0.2):
            lines[0] = lines[0].replace(
                b"GET", dice.choice([b"POST", b"PUT", b"DELETE", b"get", b"\x16\x03", b"", b"G\0T"])
            )
        if self.flips(0.2):
            lines[0] = lines[0].replace(b"HTTP/1.1", dice.choice([b"HTTP/1.0", b"HTTP/9", b"", b"HTTP/1.1.1", b"\xff"]))
        if self.flips(0.1):
            lines.insert(0, b"")
        data = dice.choice([b"\r\n"] * 9 + [b"\n", b"\r"]).join([*lines, b"", b""])
        return self._mutated(data) if self.flips(0.5) else data

    def connection(self, url: str, *, most: int) -> bytes:
        """Make all that one client sends: a good handshake, up to so many frames, and what probably ends it."""
        protocol, offer = self._dice.choice(PROTOCOLS), self._dice.choice(OFFERS)
        found = [upgrade(url, protocols=[protocol], headers={"Sec-WebSocket-Extensions": offer})]
        for _ in range(self._dice.randint(0, most)):
            found.append(self._bearable(protocol, may_compress=bool(offer)))
        for _ in range(2):
            found.append(self._unbearable())
        return b"".join(found)

    # ---- frames that a connection survives

    def _bearable(self, protocol: str, *, may_compress: bool) -> bytes:
        """Make a frame, or a message in several, that breaks no rule of RFC 6455, whatever it says."""
        dice = self._dice
        if self.flips(0.15):
            return self._frame(dice.randbytes(dice.choice((0, 1, 60, 125))), dice.choice((PING, PONG)))
        is_binary = protocol == PROTOCOLS[2]
        if self.flips(0.05):
            is_binary = not is_binary
        payload = self._packed() if is_binary else self._text()
        opcode, rsv = BINARY if is_binary else TEXT, 0
        if may_compress and self.flips(0.3):
            payload, rsv = self._deflated(payload), 4
        if self.flips(0.85):
            return self._frame(payload, opcode, rsv=rsv)
        return self._fragments(payload, opcode, rsv)

    def _fragments(self, payload: bytes, opcode: int, rsv: int) -> bytes:
        cuts = sorted(self._dice.randint(0, len(payload)) for _ in range(self._dice.randint(1, 4)))
        found, start = b"", 0
        for cut in cuts:
            found += self._frame(payload[start:cut], opcode, fin=False, rsv=rsv)
            found += self._frame(b"between", PING) if self.flips(0.2) else b""
            opcode, rsv, start = CONTINUATION, 0, cut
        return found + self._frame(payload[start:], opcode)

    def _text(self) -> bytes:
        roll = self._dice.random()
        if roll < 0.15:
            return self._dice.choice(BROKEN_JSON).encode()
        if roll < 0.25:
            return "".join(chr(self._dice.randrange(0xD800)) for _ in range(self._dice.randrange(40))).encode()
        data = json.dumps(self._message()).encode()
        return self._mutated(data).decode(errors="replace").encode() if roll < 0.45 else data

    def _packed(self) -> bytes:
        roll = self._dice.random()
        if roll < 0.2:
            return self._dice.randbytes(self._dice.randrange(60))
        data: bytes = msgpack.packb(self._message(), default=str)
        return self._mutated(data) if roll < 0.5 else data

    def _message(self) -> Any:
        dice = self._dice
        if self.flips(0.1):
            return self._value(3)
        message: dict[str, Any] = {"cmd": dice.choice(COMMANDS)}
        if self.flips(0.5):
            message["channel"] = dice.choice(NAMES)
        if self.flips(0.8):
            names = dice.sample(["text", "room", "since", "token", "limit", "epoch", "__proto__"], 2)
            message["param"] = {name: self._value(2) for name in names}
        if self.flips(0.5):
            message["id"] = dice.choice([1, "", "x" * 300, -(2**53), None, 1.5, [], True])
        if self.flips(0.1):
            message[dice.choice(["cmd", "channel", "from", "offset"])] = self._value(1)
        return message

    def _value(self, depth: int) -> Any:
        roll = self._dice.random()
        if roll < 0.4 or not depth:
            return self._dice.choice(STRINGS)
        if roll < 0.6:
            return self._dice.choice((*NUMBERS[:4], None, True)) if self.flips(0.7) else str(self._dice.choice(NUMBERS))
        if roll < 0.8:
            return [self._value(depth - 1) for _ in range(self._dice.randrange(4))]
        return {self._dice.choice(STRINGS): self._value(depth - 1) for _ in range(self._dice.randrange(4))}

    # ---- frames that end a connection, mostly

    def _unbearable(self) -> bytes:
        """Make a frame that breaks a rule, or bytes that may be one or none."""
        broken: tuple[Callable[[], bytes], ...] = (
            lambda: self._mutated(self._bearable("", may_compress=False)),
            lambda: self._mutated(self._frame(self._text()))[: self._dice.randint(1, 20)],
            lambda: self._counted(self._dice.randbytes(self._dice.randrange(1, 200))),
            lambda: self._frame(b"x", length=self._dice.choice((126, 65535, 65536, 2**31, 2**62, 2**63, 2**64 - 1))),
            lambda: self._frame(b"\x81\xfe\x00\x05hello", self._dice.randrange(16), rsv=self._dice.randrange(8)),
            lambda: self._frame(self._text(), mask=None),
            lambda: self._frame(self._dice.choice(NOT_UTF8)),
            lambda: self._frame(b"x", fin=False) + self._frame(self._dice.choice(NOT_UTF8), CONTINUATION),
            lambda: self._frame(self._dice.randbytes(40), rsv=4),
            lambda: self._frame(self._deflated(b"\0" * 100_000), rsv=4),
            lambda: self._frame(self._dice.randbytes(126), self._dice.choice((PING, PONG, CLOSE))),
            lambda: self._frame(b"", self._dice.choice((PING, CLOSE, CONTINUATION)), fin=self.flips(0.5)),
            lambda: self._frame(self._dice.randrange(2**16).to_bytes(2, "big") + self._dice.choice(NOT_UTF8), CLOSE),
            lambda: self._frame(self._dice.randrange(5100).to_bytes(2, "big") + b"bye", CLOSE),
            lambda: self._frame(b"x" * 70_000),
        )
        return self._dice.choice(broken)()

    # ---- bytes

    def _frame(self, payload: bytes, opcode: int = TEXT, **how: Any) -> bytes:
        how.setdefault("mask", self._dice.randbytes(4))
        return self._counted(frame(payload, opcode, **how))

    def _counted(self, data: bytes) -> bytes:
        self.frames += 1
        return data

    def _deflated(self, payload: bytes) -> bytes:
        compressor = zlib.compressobj(1, wbits=-9, memLevel=1)
        return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def _mutated(self, data: bytes) -> bytes:
        """Change, drop, double or insert some bytes."""
        dice, changed = self._dice, bytearray(data)
        for _ in range(dice.choice((1, 1, 2, 5))):
            place = dice.randint(0, len(changed))
            match dice.randrange(4):
                case 0:
                    changed[place : place + 1] = dice.randbytes(1)
                case 1:
                    del changed[place : place + dice.choice((1, 2, 10))]
                case 2:
                    changed[place:place] = changed[place : place + dice.choice((1, 4, 30))]
                case 3:
                    changed[place:place] = dice.randbytes(dice.choice((1, 2, 8)))
        return bytes(changed)
