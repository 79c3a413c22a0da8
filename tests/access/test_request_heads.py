"""What is read of a request's head before a parser has it."""

from __future__ import annotations

import pytest

from gateway.access.request_heads import HEAD_BYTES, BadHead, Head, announces_body, with_one_upgrade

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
@pytest.mark.parametrize("before", [b"", b"\r\n", b"\r\n\r\n", b"\n\r\r\n\r\n"], ids=ascii)
def test_a_head_is_found_however_it_is_cut(size: int, before: bytes) -> None:
    """Empty lines before it are dropped, and what comes behind it is kept."""
    head, data, found = Head(), before + REQUEST + b"rest", b""
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        if found:
            head.came += piece
        else:
            found = head.feed(piece)
    assert (found, bytes(head.came)) == (REQUEST, b"rest")


def test_empty_lines_are_nothing_that_was_said() -> None:
    """However many."""
    head = Head()
    assert head.feed(b"\r\n" * 1000) == b""
    assert not head.came


@pytest.mark.parametrize("data", [b"\x16\x03", b"\r\n\x00", b" GET"], ids=ascii)
def test_what_begins_no_request_is_bad(data: bytes) -> None:
    """At its first byte."""
    with pytest.raises(BadHead) as found:
        Head().feed(data)
    assert found.value.status == 400


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_head_has_a_largest_size(end: bytes) -> None:
    """With its end or without."""
    whole = REQUEST[:-4] + b"\r\nX: ".ljust(HEAD_BYTES - len(REQUEST), b"x") + b"\r\n\r\n"
    assert len(whole) == HEAD_BYTES
    assert Head().feed(whole) == whole
    with pytest.raises(BadHead) as found:
        Head().feed(whole[:-4] + b"xxxxx" + end)
    assert found.value.status == 431


def lines(*headers: str) -> bytes:
    return "\r\n".join(["GET / HTTP/1.1", "Host: x", *headers, "", ""]).encode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["Upgrade: websocket", "A: b"], ["Upgrade: websocket", "A: b"]),
        (["Upgrade: h2c, websocket", "A: b"], ["Upgrade: websocket", "A: b"]),
        (["upgrade:WebSocket,h2c"], ["Upgrade: websocket"]),
        (["Upgrade: h2c", "A: b", "Upgrade: WebSocket", "C: d"], ["Upgrade: websocket", "A: b", "C: d"]),
        (["Upgrade: websocket", "Upgrade: websocket"], ["Upgrade: websocket"]),
        (["Upgrade: h2c"], ["Upgrade: h2c"]),
        (["Upgrade: websocket/13, h2c"], ["Upgrade: websocket/13, h2c"]),
        (["X-Upgrade: h2c, websocket"], ["X-Upgrade: h2c, websocket"]),
        (["X: Upgrade: h2c, websocket"], ["X: Upgrade: h2c, websocket"]),
        (["Upgrade: h2c, websocket", " folded"], ["Upgrade: h2c, websocket", " folded"]),
    ],
    ids=str,
)
def test_a_list_with_the_websocket_in_it_names_the_websocket(before: list[str], after: list[str]) -> None:
    """And nothing else of a head is changed."""
    assert with_one_upgrade(lines(*before)) == lines(*after)


@pytest.mark.parametrize("header", ["Content-Length: 0", "transfer-encoding: chunked", "Expect: 100-continue"])
def test_what_comes_behind_a_head_is_announced(header: str) -> None:
    assert announces_body(lines("A: b", header))
    assert not announces_body(lines(f"X-{header}"))
