"""The demo page in a real browser, on two nodes that share a Redis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from gateway.config import load
from gateway.server.demo.example import RULES, with_rooms_kept
from tests.harness.address import Addressed
from tests.harness.browser import Pages

AXE = Path(__file__).parents[3] / "gateway/client/node_modules/axe-core/axe.min.js"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


async def _enter(pages: Pages, nodes: Sequence[Addressed], node: int, name: str, room: str) -> Page:
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


async def test_people_who_have_not_spoken_are_known_by_their_names(nodes, pages):
    """Those who were there before, those who come later, and under their new name who takes one."""
    ada = await _enter(pages, nodes, 0, "Ada", "silent")
    grace = await _enter(pages, nodes, 1, "Grace", "silent")
    for page, present in ((ada, ["Adayou", "Grace"]), (grace, ["Graceyou", "Ada"])):
        await expect(page.get_by_test_id("online-user").locator(".name, small")).to_have_count(3)
        for text, line in zip(present, await page.get_by_test_id("online-user").all(), strict=True):
            assert text in "".join((await line.inner_text()).split())
    await ada.get_by_test_id("name-input").fill("Countess")
    await ada.get_by_test_id("name-input").press("Enter")
    await expect(grace.get_by_test_id("online")).to_contain_text("Countess")
    await expect(grace.get_by_test_id("online-user")).to_have_count(2)


async def test_whoever_is_typing_is_shown_to_the_others_until_they_have_said_it(nodes, pages):
    """To the others alone."""
    ada = await _enter(pages, nodes, 0, "Ada", "typing")
    grace = await _enter(pages, nodes, 1, "Grace", "typing")
    await expect(ada.get_by_test_id("online")).to_contain_text("Grace")
    await ada.get_by_test_id("message-input").press_sequentially("I think")
    await expect(grace.get_by_test_id("typing")).to_have_text("Ada is typing")
    await expect(ada.get_by_test_id("typing")).to_have_text("")
    await ada.get_by_test_id("message-send").click()
    await expect(grace.get_by_test_id("message-text")).to_have_text(["I think"])
    await expect(grace.get_by_test_id("typing")).to_have_text("")


async def test_a_second_tab_is_a_second_person(nodes, browser):
    """Two tabs of one browser talk to each other; each keeps its name."""
    context = await browser.new_context()
    tabs = []
    for _ in range(2):
        tabs.append(await context.new_page())
        await tabs[-1].goto(nodes[0].url("/example", ch="tabs"))
        await expect(tabs[-1].get_by_test_id("state")).to_have_text("open")
    await expect(tabs[0].get_by_test_id("online-user")).to_have_count(2)
    names = [await tab.get_by_test_id("name-input").input_value() for tab in tabs]
    await tabs[1].reload()
    await expect(tabs[1].get_by_test_id("name-input")).to_have_value(names[1])
    await _say(tabs[1], "me, too")
    await expect(tabs[0].get_by_test_id("message-user")).to_have_text([names[1]])
    await expect(tabs[0].get_by_test_id("name-input")).to_have_value(names[0])


async def test_what_was_said_before_is_there_on_joining(start_nodes, pages):
    """Where the room keeps a history; who was typing does not stand in it."""
    nodes = await start_nodes(1, channels=[{"match": "loose*"}, {"match": "*", "history": 10}])
    loose = await _enter(pages, nodes, 0, "Ada", "loose")
    await loose.get_by_test_id("state").click()
    await expect(loose.locator("#promise")).to_have_text("Break it, and watch it come back.")
    ada = await _enter(pages, nodes, 0, "Ada", "kept")
    await ada.get_by_test_id("message-input").press_sequentially("one")
    await ada.get_by_test_id("message-send").click()
    await expect(ada.get_by_test_id("message-text")).to_have_text(["one"])
    grace = await _enter(pages, nodes, 0, "Grace", "kept")
    await expect(grace.get_by_test_id("message-text")).to_have_text(["one"])
    await _say(grace, "two")
    # As many as the room keeps: what is only of the moment would have pushed them out.
    for _ in range(12):
        await ada.get_by_test_id("message-input").press("x")
    await grace.reload()
    await expect(grace.get_by_test_id("message-text")).to_have_text(["one", "two"])


async def test_the_connection_can_be_looked_at_and_broken(nodes, pages):
    """Its panel names the node, and counts how often it was made."""
    ada = await _enter(pages, nodes, 1, "Ada", "panel")
    await ada.get_by_test_id("state").click()
    panel = ada.get_by_label("The connection", exact=True)
    await expect(panel).to_contain_text(nodes[1].id)
    before = await ada.evaluate("document.getElementById('stats').textContent.match(/([0-9]+) times|once/)[1] ?? 1")
    await panel.get_by_role("button", name="Reconnect").click()
    await expect(panel).to_contain_text(f"{int(before) + 1} times")
    await _say(ada, "here again")
    await expect(ada.get_by_test_id("message-text")).to_have_text(["here again"])


async def test_hello_and_typing_are_for_members_of_the_demo_page_only(nodes, connect):
    """`/connect` keeps to the letter; on the page's own socket only members may."""
    plain = await connect(nodes[0], "letter", protocols=["gateway.v1.json"])
    page = await connect(nodes[1], "letter", path="/example/socket", name="Ada", protocols=["gateway.v1.json"])
    for cmd in ("hello", "typing"):
        assert (await plain.request(cmd, None, "letter"))["param"]["code"] == "unknown-command"
        assert (await page.request(cmd, None, "elsewhere"))["param"]["code"] == "forbidden"
    user = (await page.expect("$welcome"))["param"]["user"]
    assert (await page.request("hello", None, "letter"))["param"]["people"][user] == "Ada"
    await page.request("typing", None, "letter")
    for cmd in ("hello", "typing"):
        assert (await plain.expect(cmd))["param"] == {"user": user, "name": "Ada"}
    assert "typing" not in [message["cmd"] for message in page.received]


async def test_a_room_is_there_again_after_a_reload(start_node, connect, pages):
    """Of a node that nobody has configured; clients of its channels see nothing of that."""
    node = await start_node()
    plain = await connect(node, "again", protocols=["gateway.v1.json"])
    ada = await pages.open(node.url("/example", ch="again"))
    for text in ("one", "two"):
        await _say(ada, text)
        await expect(ada.get_by_test_id("message-text").last).to_have_text(text)
    await ada.reload()
    await expect(ada.get_by_test_id("message-text")).to_have_text(["one", "two"])
    await expect(ada.locator(".message.own")).to_have_count(2)
    await ada.get_by_test_id("state").click()
    await expect(ada.locator("#promise")).to_contain_text("with everything that was said meanwhile")

    for text in ("one", "two"):
        chat = await plain.expect("chat")
        assert (chat["channel"], chat["param"]["text"], "offset" in chat) == ("again", text, False)
    assert (await plain.request("$history", None, "again"))["param"]["code"] == "forbidden"
    assert [message["channel"] for message in plain.received if message["cmd"] == "chat"] == ["again", "again"]


async def test_what_was_said_meanwhile_is_there_after_an_outage(own_redis, start_node, pages):
    """In order, once, and without a word of what may be missing."""
    mine = await start_node(own_redis, id="mine")
    theirs = await start_node(own_redis, id="theirs")
    pages.allow("ERR_|WebSocket|Failed to load")
    ada = await pages.open(mine.url("/example", ch="meanwhile"))
    grace = await pages.open(theirs.url("/example", ch="meanwhile"))
    await _say(ada, "before")
    await expect(grace.get_by_test_id("message-text")).to_have_text(["before"])
    await mine.stop()
    await _say(grace, "meanwhile")
    await expect(grace.get_by_test_id("message-text")).to_have_text(["before", "meanwhile"])
    await start_node(own_redis, id="mine", port=mine.port)
    await expect(ada.get_by_test_id("message-text")).to_have_text(["before", "meanwhile"], timeout=40_000)
    await _say(grace, "after")
    await expect(ada.get_by_test_id("message-text")).to_have_text(["before", "meanwhile", "after"])
    await expect(ada.locator(".notice")).to_have_count(0)


@pytest.mark.parametrize(
    ("fields", "is_kept"),
    [
        ({}, True),
        ({"redis_url": "redis://localhost/0", "prefix": "other"}, True),
        ({"channels": [{"match": "*", "history": 10}]}, False),
        ({"handler": "tests.handlers.answering:Answering"}, False),
    ],
)
def test_only_the_demo_without_rules_has_rules_of_its_own(fields, is_kept):
    """Whoever has a handler or rules has those alone."""
    settings = load(**fields)
    assert (with_rooms_kept(settings).channels == RULES) is is_kept
    assert with_rooms_kept(settings).rule("lobby") == settings.rule("lobby")
    assert is_kept or with_rooms_kept(settings) is settings


async def test_who_comes_back_from_a_crashed_node_is_one_person(own_redis, start_nodes, start_haproxy, pages):
    """To those who were there, to those who come later, and to themselves, while the crash is not yet noticed."""
    nodes = await start_nodes(3, own_redis)
    balancer = await start_haproxy(nodes[:2])
    pages.allow("ERR_|WebSocket|Failed to load")
    grace = await pages.open(nodes[2].url("/example", ch="crash"))
    ada = await _enter(pages, [balancer], 0, "Ada", "crash")
    await expect(grace.get_by_test_id("online")).to_contain_text("Ada")
    members = (await own_redis.cli("SMEMBERS", "gateway:members:crash")).split()
    (holder,) = [node for node in nodes[:2] if any(member.startswith(node.id) for member in members)]
    # Told by the page itself: its state may be open again before anybody looks. Who gives his name before the first
    # connection is open has needed no second one.
    await ada.get_by_test_id("state").click()
    once = "once" in await ada.locator("#stats").inner_text()
    await holder.kill()
    await expect(ada.locator("#stats")).to_contain_text("2 times" if once else "3 times", timeout=20_000)
    await expect(grace.get_by_test_id("online-user")).to_have_count(2)
    linus = await pages.open(nodes[2].url("/example", ch="crash"))
    for page in (ada, grace, linus):
        await expect(page.get_by_test_id("online-user")).to_have_count(3)
        await expect(page.locator("#online-count")).to_have_text("3")


@pytest.mark.parametrize(("size", "theme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
async def test_the_page_is_accessible_filled_and_with_its_drawers_open(nodes, pages, size, theme):
    """By axe's rules, down to the minor ones; a drawer holds the focus, and gives it back."""
    assert AXE.exists(), "axe-core is missing: run npm ci in gateway/client, or scripts/test, which does"
    room = f"axe-{theme}"
    grace = await _enter(pages, nodes, 1, "Grace", room)
    page = await pages.open(
        *[nodes[0].url("/example", ch=room)], viewport=size, color_scheme=theme, reduced_motion="reduce"
    )
    for speaker, text in ((page, "Is anybody here?"), (grace, "See https://example.org/")):
        await _say(speaker, text)
        await expect(page.get_by_test_id("message-text").last).to_have_text(text)
    await _accessible(page)
    await page.get_by_test_id("state").click()
    await _accessible(page)
    await page.keyboard.press("Escape")
    if size is DESKTOP:
        return
    for drawer, name in (("rooms-side", "Rooms"), ("people-side", "Who is here: 2")):
        opener = page.get_by_role("button", name=name, exact=True)
        await opener.click()
        dialog = page.locator(f"#{drawer}")
        await expect(dialog).to_have_attribute("role", "dialog")
        await expect(opener).to_have_attribute("aria-expanded", "true")
        await _accessible(page)
        for key in ("Tab", "Shift+Tab", "Shift+Tab"):
            await page.keyboard.press(key)
            assert await page.evaluate(f"document.activeElement.closest('#{drawer}, body').id !== 'messages'")
            assert await page.evaluate("!document.querySelector('main').contains(document.activeElement)")
        await page.keyboard.press("Escape")
        await expect(opener).to_be_focused()
        await expect(opener).to_have_attribute("aria-expanded", "false")
        await expect(dialog).to_be_hidden()


async def _accessible(page: Page) -> None:
    await page.evaluate(f"(0, eval)({json.dumps(AXE.read_text())})")
    options = {"resultTypes": ["violations"], "rules": {"label-content-name-mismatch": {"enabled": True}}}
    found = await page.evaluate("(options) => axe.run(document, options)", options)
    assert [(fault["id"], [node["html"][:150] for node in fault["nodes"]]) for fault in found["violations"]] == []
