"""The head of an HTTP request before a parser sees it: how much of it may come, and the one thing we read in it.

A head may have 32 KiB, in one line or in many: a proxy's cookies and a token with many claims are that long. The same
is asked of every head that comes alone, whether it is a connection's first or a later one.
"""

from __future__ import annotations

import re
from typing import Any

HEAD_BYTES = 32 * 1024
"""Of the request line and all headers of a request."""
LIMITS: dict[str, Any] = {"max_line_size": HEAD_BYTES, "max_field_size": HEAD_BYTES}
"""For aiohttp's parser, which by itself takes no line above 8,190 bytes: the whole head is what is bounded here."""
BAD, TOO_LATE, TOO_LARGE, FULL = 400, 408, 431, 503
REASONS = {
    BAD: "Bad Request",
    TOO_LATE: "Request Timeout",
    TOO_LARGE: "Request Header Fields Too Large",
    FULL: "Service Unavailable",
}
"""Of the statuses that are answered before any server has a request."""
_END = b"\r\n\r\n"
_UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*([^\r\n]*)(?=\r\n[^ \t])", re.IGNORECASE)
_BODY = re.compile(rb"\r\n(?:content-length|transfer-encoding|expect):", re.IGNORECASE)


class BadHead(Exception):
    """What comes is no head that anybody will be given."""

    def __init__(self, status: int) -> None:
        super().__init__(REASONS[status])
        self.status = status


class Head:
    """Collects one head out of what comes."""

    __slots__ = ("came",)

    def __init__(self) -> None:
        self.came = bytearray()
        """What came of it; once it was returned, what came behind it."""

    def feed(self, data: bytes) -> bytes:
        """Take what came; return the head once it is whole, and before that nothing. Raises `BadHead`.

        Empty lines before a request are dropped (RFC 9112 section 2.2): as a head they would be whole at once, and
        who has sent them would have as long for his request as a server gives him, which is more than a minute.
        """
        searched = max(0, len(self.came) - len(_END) + 1)
        self.came += data
        if searched == 0:
            del self.came[: len(self.came) - len(self.came.lstrip(b"\r\n"))]
        if not self.came:
            return b""
        if not bytes(self.came[:1]).isalpha():
            raise BadHead(BAD)
        end = self.came.find(_END, searched) + len(_END)
        if end >= len(_END) and end <= HEAD_BYTES:
            head = bytes(self.came[:end])
            del self.came[:end]
            return head
        if len(self.came) > HEAD_BYTES:
            raise BadHead(TOO_LARGE)
        return b""


def with_one_upgrade(head: bytes) -> bytes:
    """Name the WebSocket alone where `Upgrade` lists several protocols, in one line or in many (RFC 9110 section 5.3).

    aiohttp's parser knows no list there: it would take the frames behind such a head for another request.
    """
    found = [*_UPGRADE.finditer(head)]
    if not found or (len(found) == 1 and found[0][1].strip().lower() == b"websocket"):
        return head
    if b"websocket" not in [name.strip().lower() for line in found for name in line[1].split(b",")]:
        return head
    first = found[0].start()
    return head[:first] + b"\r\nUpgrade: websocket" + _UPGRADE.sub(b"", head[first:])


def announces_body(head: bytes) -> bool:
    """Tell whether something belongs to a request that comes behind its head."""
    return _BODY.search(head) is not None
