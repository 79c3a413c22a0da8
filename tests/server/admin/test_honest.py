"""Pages that say how old they are, and of whom nothing is heard, in a real browser, while real nodes hang."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from playwright.async_api import Page, expect

from tests.harness.admin import PASSWORD, Operator
from tests.harness.browser import Pages
from tests.harness.node import Node, Nodes
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

pytestmark = [pytest.mark.browser, pytest.mark.redis]

SOON = 15_000
"""Milliseconds: a node is called lost after 6.5 seconds without a word, a picture old after eight."""


@pytest.fixture
async def three(redis: RedisServer, start_nodes: Callable[..., Awaitable[Nodes]]) -> AsyncIterator[Nodes]:
    """Nodes of which some are frozen, and go on when the test is over."""
    nodes = await start_nodes(3, redis, admin_password=PASSWORD)
    yield nodes
    for node in nodes:
        node.thaw()


async def background(page: Page) -> str:
    colour: str = await page.get_by_test_id("health").evaluate("box => getComputedStyle(box).backgroundColor")
    return colour


async def test_a_node_that_hangs_is_shown_as_silent_and_the_others_go_on(three: Nodes, pages: Pages) -> None:
    """The overview takes back that all are ready, tells since when it heard nothing, and is as quick as before."""
    operator = await Operator.enter(pages, three[0])
    page = operator.page
    health, live, pictures = page.get_by_test_id("health"), page.locator("#live"), [0]
    await expect(health).to_have_text("All 3 nodes are ready")
    cards = page.get_by_test_id("node")
    three[2].freeze()
    await expect(health).to_have_text(re.compile("1 node (silent|lost)"), timeout=SOON)
    await expect(health).to_have_attribute("data-tone", "bad")
    await expect(health).to_have_text("1 node lost", timeout=SOON)
    silent = cards.filter(has_text=three[2].id)
    await expect(silent).to_contain_text("silent for")
    await expect(cards.filter(has_text=three[1].id)).to_contain_text("Ready")

    def note(frame: str | bytes) -> None:
        pictures[0] += '"view"' in str(frame)

    page.on("websocket", lambda socket: socket.on("framereceived", note))
    await operator.open("")
    # All of them within the patience of one picture that waits for the silent each time, and then 20 times as long.
    await eventually(lambda: pictures[0] >= 3, 20, what="pictures")
    await expect(live).to_have_attribute("data-state", "open")
    three[2].thaw()
    await expect(health).to_have_text("All 3 nodes are ready", timeout=SOON)


async def test_a_page_whose_node_hangs_tells_its_age(three: Nodes, pages: Pages) -> None:
    """Nothing on it is green then, its socket being open; once the node goes on all is as it was."""
    operator = await Operator.enter(pages, three[0])
    page = operator.page
    live, age = page.locator("#live"), page.get_by_test_id("age")
    await expect(live).to_have_text("Live")
    await expect(age).to_be_hidden()
    green = await background(page)
    three[0].freeze()
    await expect(live).to_have_attribute("data-state", "old", timeout=SOON)
    await expect(live).to_have_text("Not live")
    await expect(age).to_have_text(re.compile(r"as of \d+ s ago"), timeout=SOON)
    assert await background(page) != green
    three[0].thaw()
    await expect(live).to_have_text("Live", timeout=SOON)
    await expect(age).to_be_hidden()
    await expect(page.get_by_test_id("health")).to_have_text("All 3 nodes are ready", timeout=SOON)
    assert await background(page) == green


async def stays_live(operator: Operator, path: str, word: str) -> None:
    """Open a page, and see it say nothing but Live until so much came that without it the page were old."""
    page, words = operator.page, [""]
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: words.append(str(frame))))
    await operator.open(path)
    states = "window.states = []; setInterval(() => states.push(document.querySelector('#live').dataset.state), 100)"
    await page.evaluate(states)
    words.clear()
    await eventually(lambda: sum(word in each for each in words) >= 3, 40, what=f"{word} on {path}")
    assert set(await page.evaluate("states")) == {"open"}, path


async def test_a_page_where_nothing_changes_stays_live(
    redis: RedisServer, start_node: Callable[..., Awaitable[Node]], pages: Pages
) -> None:
    """The node says that it has looked; where the page is sent nothing by itself it answers that it is there."""
    node = await start_node(redis, admin_password=PASSWORD)
    ways = [("/audit", '"cmd":"same"'), ("/tap", '"$reply"')]
    operators = [await Operator.enter(pages, node) for _ in ways]
    await asyncio.gather(*(stays_live(operator, *way) for operator, way in zip(operators, ways, strict=True)))
