"""WebSocket frames (RFC 6455 section 5) as plain data: what a client's bytes mean, and how a server's are written."""

from __future__ import annotations

from gateway.errors import INVALID_UTF8, PROTOCOL_ERROR, TOO_BIG, Close, GatewayError
from gateway.protocol.deflate import WORTHWHILE, deflate, inflate

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
FIN, DEFLATED = 0x80, 0x40
"""Flags beside the opcode: the last frame of a message, and the first one of a compressed message (RFC 7692)."""
REASON_BYTES = 123
"""Of the reason in a close frame: a control frame has at most 125 bytes (RFC 6455 section 5.5), two for the code."""
RESERVED = 0x70
"""The flags that must not be set where no extension gives them a meaning (RFC 6455 section 5.2)."""
_OPCODE, _MASKED, _SIZE = 0x0F, 0x80, 0x7F
_OPCODES = frozenset((0x0, TEXT, BINARY, CLOSE, PING, PONG))


class Violation(GatewayError):
    """The client broke the protocol; its connection ends with this."""

    def __init__(self, close: Close) -> None:
        super().__init__(close.reason)
        self.close = close


def next_frame(
    data: bytes | bytearray, start: int, limit: int, reserved: int = RESERVED
) -> tuple[int, bytes, int] | None:
    """Cut the frame at `start`: its first byte (flags and opcode), its payload unmasked, where the next begins.

    None while the frame is incomplete. Raises `Violation` as soon as the header shows one: nothing of a
    frame above `limit` bytes is waited for.
    """
    available = len(data) - start
    if available < 2:
        return None
    first, size, head = data[start], data[start + 1] & _SIZE, start + 2
    _check(first, data[start + 1], reserved)
    if size > 125:
        width = 2 if size == 126 else 8
        if available < 2 + width:
            return None
        head += width
        size = int.from_bytes(data[start + 2 : head], "big")
        _check_size(size, width)
        if 0 < limit < size:
            raise Violation(TOO_BIG)
    elif 0 < limit < size and first & _OPCODE < CLOSE:
        raise Violation(TOO_BIG)
    end = head + 4 + size
    if len(data) < end:
        return None
    return first, _unmasked(data[head + 4 : end], data[head : head + 4]), end


def _check(first: int, second: int, reserved: int) -> None:
    # Frames of a client are masked (RFC 6455 section 5.1), control frames are short and whole (5.5), and only the first
    # frame of a message says whether it is compressed (RFC 7692 section 6.1).
    opcode = first & _OPCODE
    if first & reserved or opcode not in _OPCODES or not second & _MASKED:
        raise Violation(PROTOCOL_ERROR)
    if first & DEFLATED and not 0 < opcode < CLOSE:
        raise Violation(PROTOCOL_ERROR)
    if opcode >= CLOSE and (second & _SIZE > 125 or not first & FIN):
        raise Violation(PROTOCOL_ERROR)


def _check_size(size: int, width: int) -> None:
    """Refuse a length that is not written in the fewest bytes, or has 64 bits (RFC 6455 section 5.2)."""
    if size < (126 if width == 2 else 1 << 16) or size >> 63:
        raise Violation(PROTOCOL_ERROR)


def _unmasked(body: bytes | bytearray, mask: bytes | bytearray) -> bytes:
    """XOR as two large integers: the fastest there is without C."""
    size = len(body)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(body, "little") ^ key).to_bytes(size, "little")


def check_text(payload: bytes) -> None:
    """Raise `Violation` unless this is UTF-8 (RFC 6455 section 8.1)."""
    if payload.isascii():
        return
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise Violation(INVALID_UTF8) from None


def inflated(payload: bytes, limit: int) -> bytes:
    """Decompress a message, no further than needed to see that it is above `limit` bytes; may raise `Violation`."""
    try:
        message = inflate(payload, limit)
    except ValueError:
        raise Violation(PROTOCOL_ERROR) from None
    if 0 < limit < len(message):
        raise Violation(TOO_BIG)
    return message


def close_of(payload: bytes) -> Close:
    """Read a client's close frame. An empty one is 1005; raises `Violation` for what may not be sent.

    1004 to 1006 and 1015 must not stand in a frame, and up to 2999 none that is not defined (RFC 6455 section 7.4).
    """
    if not payload:
        return Close(1005, by_client=True)
    code = int.from_bytes(payload[:2], "big")
    legal = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    if len(payload) == 1 or not legal:
        raise Violation(PROTOCOL_ERROR)
    check_text(payload[2:])
    return Close(code, payload[2:].decode(), by_client=True)


def close_payload(close: Close) -> bytes:
    """Write the payload of a close frame; a reason too long for a control frame is cut."""
    if close.code == 1005:
        return b""
    reason = close.reason.encode()[:REASON_BYTES].decode(errors="ignore").encode()
    return close.code.to_bytes(2, "big") + reason


def frame_message(opcode: int, payload: bytes, window: int) -> bytes:
    """Frame a whole message, compressed where there is a window for it and it gets shorter."""
    if window and len(payload) >= WORTHWHILE:
        compressed = deflate(payload, window)
        if len(compressed) < len(payload):
            return frame(DEFLATED | opcode, compressed)
    return frame(opcode, payload)


def frame(opcode: int, payload: bytes) -> bytes:
    """Put a server's frame header before a payload (RFC 6455 section 5.2: one frame, not masked)."""
    size = len(payload)
    if size < 126:
        return bytes((FIN | opcode, size)) + payload
    if size < 1 << 16:
        return bytes((FIN | opcode, 126, size >> 8, size & 255)) + payload
    return bytes((FIN | opcode, 127)) + size.to_bytes(8, "big") + payload
