"""Tokens that expire, in both clients, against a real node."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import jwt
import pytest

from gateway.client import connect
from tests.harness.browser import Pages
from tests.harness.node import Node
from tests.harness.wait import eventually

SECRET = "a secret of the tests, long enough to be none"
LIFE = 3.0

StartNode = Callable[..., Awaitable[Node]]

_CONNECT = """
async ([first, fresh, patient, end]) => {
    const { Client } = await import("/static/gateway.mjs");
    let asked = 0;
    const source = () => ((patient ? Date.now() < end : asked++ === 0) ? first : fresh);
    window.client = new Client("/connect", { token: source, firstDelay: 10 });
    await new Promise((resolve) => client.on("open", resolve));
}
"""


def _token(seconds: float) -> str:
    return jwt.encode({"sub": "ada", "exp": time.time() + seconds}, SECRET, algorithm="HS256")


async def _past(moment: float) -> None:
    await eventually(lambda: time.time() > moment, LIFE + 5, what="the token's end")


@pytest.mark.parametrize("patient", [False, True], ids=["renewed", "after-4401"])
async def test_a_service_outlives_its_token(start_node: StartNode, patient: bool) -> None:
    """A fresh one is shown in time, without reconnecting; where there is none in time, after 4401."""
    node = await start_node(jwt_secret=SECRET)
    end = time.time() + LIFE
    first, fresh = _token(LIFE), _token(600)
    given: list[str] = []

    def source() -> str:
        given.append(fresh if given and (not patient or time.time() > end) else first)
        return given[-1]

    async with connect(node.ws_url(), token=source, channels=["lobby"], first_delay=0.01) as client:
        await _past(end + 1)
        if patient:
            await eventually(lambda: client.stats().connects == 2, 20, what="the connection with a fresh token")
        await client.request("chat", {"text": "still here"}, channel="lobby")
        assert client.stats().connects == (2 if patient else 1)
        assert client.welcome is not None
        assert client.welcome.user == "ada"


@pytest.mark.browser
@pytest.mark.parametrize("patient", [False, True], ids=["renewed", "after-4401"])
async def test_a_page_outlives_its_token(start_node: StartNode, pages: Pages, patient: bool) -> None:
    """The same in Chromium."""
    node = await start_node(jwt_secret=SECRET)
    pages.allow("favicon")
    page = await pages.open(node.url("/healthz"))
    end = time.time() + LIFE
    await page.evaluate(_CONNECT, [_token(LIFE), _token(600), patient, end * 1000])
    await _past(end + 1)

    async def connects() -> int:
        return int(await page.evaluate("client.stats().connects"))

    async def is_back() -> bool:
        return await connects() == 2

    if patient:
        await eventually(is_back, 20, what="the connection with a fresh token")
    await page.evaluate("client.request('ping', null, { timeout: 8000 })")
    assert await connects() == (2 if patient else 1)
    assert await page.evaluate("client.welcome.user") == "ada"
