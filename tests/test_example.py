"""The demo page in a real browser, on two nodes that share a Redis."""

from __future__ import annotations

import json

from playwright.async_api import Page, expect

from tests.harness.browser import Pages
from tests.harness.node import Nodes


async def _enter(pages: Pages, nodes: Nodes, node: int, name: str, room: str) -> Page:
    """Open the page on a node, under a name, in a room; return once it is connected."""
    page = await pages.open(nodes[node].url("/example", ch=room))
    await page.get_by_test_id("name-input").fill(name)
    await page.get_by_test_id("name-input").press("Enter")
    await expect(page.get_by_test_id("state")).to_have_text("open")
    await expect(page.get_by_test_id("room")).to_have_attribute("data-room", room)
    return page


async def _say(page: Page, text: str) -> None:
    await page.get_by_test_id("message-input").fill(text)
    await page.get_by_test_id("message-send").click()


async def test_a_browser_on_one_node_chats_with_a_browser_on_another(nodes, pages):
    """What either says, both show, with the name of who said it; each sees that the other is there."""
    ada = await _enter(pages, nodes, 0, "Ada", "tea")
    grace = await _enter(pages, nodes, 1, "Grace", "tea")
    for page in (ada, grace):
        await expect(page.get_by_test_id("online-user")).to_have_count(2)

    await _say(ada, "Two lumps?")
    await _say(grace, "<b>None</b>, thanks")

    for page in (ada, grace):
        await expect(page.get_by_test_id("message-text")).to_have_text(["Two lumps?", "<b>None</b>, thanks"])
    await expect(grace.get_by_test_id("message-user").first).to_contain_text("Ada")

    await ada.close()
    await expect(grace.get_by_test_id("online-user")).to_have_count(1)


async def test_what_an_operator_publishes_by_hand_shows_in_every_browser(nodes, pages):
    """`redis-cli PUBLISH gateway:channel:NAME` reaches the browsers of both nodes."""
    browsers = [await _enter(pages, nodes, 0, "Ada", "ops"), await _enter(pages, nodes, 1, "Grace", "ops")]
    await nodes.redis.cli("PUBLISH", "gateway:channel:ops", json.dumps({"cmd": "chat", "param": {"text": "hi"}}))
    for page in browsers:
        await expect(page.get_by_test_id("message-text")).to_have_text(["hi"])


async def test_rooms_are_joined_and_left(nodes, pages):
    """A second room is joined beside the first, talked in, and left again."""
    ada = await _enter(pages, nodes, 0, "Ada", "first")
    grace = await _enter(pages, nodes, 1, "Grace", "second")
    await ada.get_by_test_id("room-input").fill("second")
    await ada.get_by_test_id("room-join").click()
    await expect(ada.get_by_test_id("room")).to_have_count(2)
    await expect(grace.get_by_test_id("online-user")).to_have_count(2)
    await _say(ada, "hello second")
    await expect(grace.get_by_test_id("message-text")).to_have_text(["hello second"])
    await ada.locator("[data-testid=room][data-room=second]").get_by_test_id("room-leave").click()
    await expect(ada.get_by_test_id("room")).to_have_count(1)
    await expect(grace.get_by_test_id("online-user")).to_have_count(1)


async def test_the_page_comes_back_by_itself_after_its_node_was_restarted(own_redis, start_node, pages):
    """A restarted node is found again, and what was written meanwhile is delivered."""
    node = await start_node(own_redis, id="restarted")
    pages.allow("ERR_|WebSocket|Failed to load")
    page = await pages.open(node.url("/example", ch="phoenix"))
    await expect(page.get_by_test_id("state")).to_have_text("open")
    await node.stop()
    await expect(page.get_by_test_id("state")).not_to_have_text("open", timeout=15_000)
    await _say(page, "written offline")
    await start_node(own_redis, id="restarted", port=node.port)
    await expect(page.get_by_test_id("state")).to_have_text("open", timeout=40_000)
    await expect(page.get_by_test_id("message-text")).to_have_text(["written offline"], timeout=15_000)
