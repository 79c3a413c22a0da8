"""permessage-deflate (RFC 7692), always without context takeover.

So a connection keeps nothing between two messages, and a message is compressed once for all its receivers.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

NAME = "permessage-deflate"
WINDOW = 15
"""Bits of the window that is used where a client does not ask for a smaller one: the largest, and the default of
RFC 7692 section 7.1.2.1."""
WORTHWHILE = 256
"""Bytes from which a message is compressed: two thirds of a chat message of 256 bytes are left, a quarter of 4 KiB."""
_LEVEL, _MEMORY = 3, 5
"""64 KiB of chat take 1 ms (level 6: 4 ms for 13 % less), 256 bytes 10 microseconds: as long as one `send()`."""
_TAIL = b"\x00\x00\xff\xff"
"""What ends every compressed message and is not sent (RFC 7692 section 7.2.1)."""
_FINAL = b"\x03\x00"
"""An empty last block: behind a whole message it ends the stream, behind half a one it does not."""
_AFTER_FINAL = (b"", _TAIL + _FINAL, b"\0" + _TAIL + _FINAL)
"""What may be left of it where a client ended the stream itself (RFC 7692 section 7.2.3.5)."""
_FLAGS = {"server_no_context_takeover", "client_no_context_takeover"}
_WINDOWS = {"server_max_window_bits", "client_max_window_bits"}
_PARAMETER = re.compile(r'\s*([!#$%&\'*+.^_`|~\w-]+)\s*(?:=\s*(?:"([^"]*)"|([^\s"]+))\s*)?', re.ASCII)


def chosen_window(offers: Iterable[str]) -> int:
    """Return the window to compress with for the first of a client's offers that can be honoured, 0 if none can."""
    return next((window for offer in ",".join(offers).split(",") if (window := _window_of(offer))), 0)


def agreement(window: int) -> str:
    """Word what was agreed on, as the value of `Sec-WebSocket-Extensions`."""
    limit = f"; server_max_window_bits={window}" if window != WINDOW else ""
    return f"{NAME}; server_no_context_takeover; client_no_context_takeover{limit}"


def _window_of(offer: str) -> int:
    """Return the window one offer asks for; 0 for another extension, and for what RFC 7692 does not know."""
    name, *rest = offer.split(";")
    found = [_PARAMETER.fullmatch(parameter) for parameter in rest]
    given = {match[1]: match[2] or match[3] for match in found if match}
    if name.strip() != NAME or len(given) < len(rest) or not all(map(_is_legal, given.items())):
        return 0
    window = int(given.get("server_max_window_bits", WINDOW))
    return window if window > 8 else 0  # zlib compresses with no smaller one


def _is_legal(parameter: tuple[str, str | None]) -> bool:
    name, value = parameter
    if name in _FLAGS:
        return value is None
    if value is None:
        return name == "client_max_window_bits"
    return name in _WINDOWS and value in {"8", "9", "10", "11", "12", "13", "14", "15"}


def deflate(message: bytes, window: int) -> bytes:
    """Compress a message."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -window, _MEMORY)
    return compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)[: -len(_TAIL)]


def inflate(message: bytes, most: int) -> bytes:
    """Decompress a client's message, up to one byte more than `most`, so that it can be seen to be too long.

    `most` of 0 is no limit. Raises `ValueError` for what is not compressed, or not whole.
    """
    decompressor = zlib.decompressobj(-WINDOW)
    try:
        found = decompressor.decompress(message + _TAIL + _FINAL, most + 1 if most else 0)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not 0 < most < len(found) and not (decompressor.eof and decompressor.unused_data in _AFTER_FINAL):
        raise ValueError("expected a whole message")
    return found
