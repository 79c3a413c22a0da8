"""Every page and every action of the admin pages, in a real browser, on two nodes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.harness.admin import ADMIN, PASSWORD, Operator, open_window
from tests.harness.client import Client, Clients
from tests.harness.node import Node, Nodes
from tests.harness.redis import RedisServer
from tests.harness.wait import eventually

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

AXE = Path(__file__).parents[3] / "gateway/client/node_modules/axe-core/axe.min.js"
LIVE = 8_000
"""Milliseconds within which a page shows what has changed: it looks every two seconds."""

Connect = Callable[..., Awaitable[Client]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes() -> AsyncIterator[Nodes]:
    """Two nodes with a password, on which everybody is who their address says."""
    redis = RedisServer()
    rules = [{"match": "kept-*", "history": 20}]
    nodes = Nodes(2, redis, handler="named:Named", admin_password=PASSWORD, channels=rules)
    try:
        await redis.start()
        await nodes.start()
        yield nodes
    finally:
        nodes.close()
        redis.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    from tests.harness.browser import open_browser

    async with open_browser() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def operator(chromium: Browser, nodes: Nodes) -> AsyncIterator[Operator]:
    """An operator who is logged in on the first node; an error in the window fails the test."""
    operator, pages = await open_window(chromium, nodes[0])
    pages.allow(r"status of 404 .*/nodes/%22")  # a node of a hostile name is none
    yield operator
    pages.assert_clean()
    await operator.page.context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def connect() -> AsyncIterator[Connect]:
    """Connects clients that are members of their channels when it returns."""
    clients = Clients()

    async def connected(node, *channels, **query) -> Client:
        return await clients(node.ws_url(*channels, **query), protocols=["gateway.v1.json"])

    yield connected
    await clients.close()


async def _welcomed(client: Client) -> str:
    """Return a client's connection id, once its joins are stored."""
    welcome = await client.expect("$welcome")
    return str(welcome["param"]["connection"])


async def _compose(page: Page, cmd: str, param: object) -> None:
    await page.get_by_test_id("cmd").fill(cmd)
    await page.get_by_test_id("param").fill(json.dumps(param))
    await page.get_by_test_id("send").click()


async def test_the_overview_shows_the_whole_cluster_and_stays_up_to_date(operator, nodes, connect) -> None:
    """Totals, a card per node, charts and events change without a reload."""
    page = operator.page
    await expect(page.get_by_test_id("health")).to_have_text("All 2 nodes are ready")
    await expect(page.get_by_test_id("node")).to_have_count(2)
    for node in nodes:
        await expect(page.get_by_test_id("node").filter(has_text=node.id)).to_contain_text("Ready")
    await expect(page.get_by_test_id("event").filter(has_text="started")).to_have_count(2)
    before = int(await page.get_by_test_id("total-connections").inner_text())
    for node in nodes:
        await _welcomed(await connect(node, "overview", user="ada"))
    await expect(page.get_by_test_id("total-connections")).to_have_text(str(before + 2), timeout=LIVE)
    await nodes.redis.cli("PUBLISH", "gateway:channel:overview", "{rubbish")
    rejected = page.locator("[data-testid=event][data-kind=rejected]").first
    await expect(rejected).to_contain_text("rubbish", timeout=LIVE)
    points = page.get_by_test_id("chart-connections")
    await expect(points).not_to_have_attribute("data-points", "0", timeout=LIVE)
    await expect(points.locator("canvas")).to_be_visible()


async def test_a_page_nobody_looks_at_gets_nothing(operator) -> None:
    """A hidden page tells the node to rest, and is up to date again when it shows."""
    page, asked = operator.page, [""]

    def note(frame: str | bytes) -> None:
        asked.extend(cmd for cmd in ("watch", "rest") if f'"{cmd}"' in str(frame))

    page.on("websocket", lambda socket: socket.on("framesent", note))
    await operator.open("")
    await eventually(lambda: asked[-1] == "watch")
    await page.evaluate(
        "Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    await expect(page.locator("#live")).to_have_attribute("data-state", "paused")
    await eventually(lambda: asked[-1] == "rest")
    await page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    await eventually(lambda: asked[-1] == "watch")
    await expect(page.locator("#live")).to_have_attribute("data-state", "open")


async def test_nothing_moves_when_a_page_has_drawn_itself(operator, nodes, connect) -> None:
    """What is drawn first is complete: nothing shifts afterwards."""
    await _welcomed(await connect(nodes[1], "still", user="still"))
    for path in ("", "/connections", "/channels", "/channels/still", "/users/still", f"/nodes/{nodes[0].id}"):
        page = await operator.open(path)
        shifts = await page.evaluate(
            "new Promise((resolve) => { new PerformanceObserver((list) => resolve("
            "list.getEntries().reduce((sum, entry) => sum + (entry.hadRecentInput ? 0 : entry.value), 0)"
            ")).observe({ type: 'layout-shift', buffered: true }); requestAnimationFrame(() => "
            "requestAnimationFrame(() => resolve(0))) })"
        )
        assert shifts < 0.02, path


async def test_connections_are_searched_sorted_and_paged_by_the_nodes(operator, nodes, connect) -> None:
    """Search by name, channel and node; the order turns; the second page begins behind the first."""
    clients = [await connect(nodes[i % 2], "listed", user=f"listed-{i:02}", name=f"Person {i:02}") for i in range(60)]
    for client in clients:
        await _welcomed(client)
    page = await operator.open("/connections?channel=listed&sort=user&order=up")
    rows = page.get_by_test_id("row")
    await expect(rows).to_have_count(50)
    await expect(page.get_by_test_id("total")).to_have_text("60 connections · page 1")
    await expect(rows.first).to_contain_text("listed-00")
    await page.get_by_test_id("next").click()
    await expect(rows.first).to_contain_text("listed-50")
    await expect(rows).to_have_count(10)
    await page.go_back()
    await expect(rows.first).to_contain_text("listed-00")
    await page.get_by_role("button", name="User").click()
    await expect(rows.first).to_contain_text("listed-59")
    await page.get_by_test_id("search").fill("person 07")
    await expect(rows).to_have_count(1)
    await expect(rows.first).to_contain_text("Person 07")
    await page.get_by_test_id("search").fill("nobody of this name")
    await expect(page.get_by_test_id("nothing")).to_contain_text("Nothing fits the search")
    await page.get_by_test_id("search").fill("")
    await page.get_by_test_id("filter-node").fill(nodes[1].id)
    await expect(page.get_by_test_id("total")).to_contain_text("30 connections")


async def test_an_operator_acts_on_a_connection_of_another_node(operator, nodes, connect) -> None:
    """Send, join, leave, and both ways to disconnect; each is noted in the audit, which the other node shows, too."""
    client = await connect(nodes[1], "acted", user="grace", name="Grace")
    id = await _welcomed(client)
    page = await operator.open(f"/connections/{id}")
    await expect(page.get_by_test_id("facts")).to_contain_text("grace")
    await expect(page.get_by_test_id("channel")).to_have_text(["acted"])

    await page.get_by_test_id("param").fill("{not json")
    await expect(page.get_by_test_id("json-check")).to_contain_text("Not JSON")
    await _compose(page, "notice", {"text": "for you"})
    await operator.told("Sent")
    assert (await client.expect("notice"))["param"] == {"text": "for you"}

    await page.get_by_test_id("join-name").fill("brought")
    await page.get_by_test_id("join").click()
    await expect(page.get_by_test_id("channel")).to_have_text(["acted", "brought"])
    await page.get_by_role("button", name="Leave acted").click()
    await expect(page.get_by_test_id("channel")).to_have_text(["brought"])

    await page.get_by_test_id("disconnect").click()
    await page.get_by_test_id("confirm").click()
    await expect(page.get_by_test_id("missing")).to_be_visible()
    await client.expect_close(4410)

    other = await connect(nodes[1], user="grace")
    page = await operator.open(f"/connections/{await _welcomed(other)}")
    await page.get_by_test_id("reconnect").click()
    await operator.told("Disconnected")
    await other.expect_close(1012)

    page = await operator.open("/audit", node=nodes[1])
    rows = page.get_by_test_id("row")
    for action in ("send", "join", "leave", "disconnect"):
        await expect(rows.filter(has_text=action).filter(has_text=id).first).to_be_visible()
    assert "action='join'" in operator.node.output


async def test_channels_are_listed_and_shown_with_who_would_receive(operator, nodes, connect) -> None:
    """By prefix and size; a channel's members by node, online users, history, and how much is written to it."""
    members = [await connect(nodes[i % 2], "kept-tea", user=f"tea-{i}") for i in range(3)]
    for member in members:
        await _welcomed(member)
    page = await operator.open("/channels")
    await page.get_by_test_id("search").fill("kept-")
    await expect(page.get_by_test_id("row")).to_have_count(1)
    await expect(page.get_by_test_id("row")).to_contain_text("20 messages")
    await page.get_by_role("link", name="kept-tea").click()
    await expect(page.get_by_test_id("members")).to_have_text("3")
    await expect(page.get_by_test_id("through")).to_contain_text("3 connections through 2 nodes")
    await expect(page.get_by_test_id("online-user")).to_have_text(["tea-0", "tea-1", "tea-2"])
    await _compose(page, "kettle", {"boils": True})
    await operator.told("Sent to kept-tea")
    for member in members:
        assert (await member.expect("kettle"))["param"] == {"boils": True}
    await expect(page.get_by_test_id("message").first).to_contain_text("kettle", timeout=LIVE)

    async def shows_a_rate() -> bool:
        await nodes.redis.publish("gateway:channel:kept-tea", "tick")
        return await page.get_by_test_id("rate").inner_text() != "0"

    await eventually(shows_a_rate, 20)


async def test_a_user_is_written_to_and_disconnected_on_all_nodes(operator, nodes, connect) -> None:
    """The users list finds them; one message reaches, and one press ends, every connection."""
    tabs = [await connect(node, user="many-tabs", name="Tabs") for node in nodes]
    for tab in tabs:
        await _welcomed(tab)
    page = await operator.open("/users")
    await page.get_by_test_id("search").fill("many")
    await page.get_by_role("link", name="many-tabs").click()
    await expect(page.get_by_test_id("row")).to_have_count(2)
    await _compose(page, "notice", "all of you")
    for tab in tabs:
        assert (await tab.expect("notice"))["param"] == "all of you"
    await page.get_by_test_id("disconnect").click()
    await page.get_by_test_id("confirm").click()
    await operator.told("2 connections ended")
    for tab in tabs:
        await tab.expect_close(4410)
    await expect(page.get_by_test_id("nothing")).to_contain_text("not connected", timeout=LIVE)


async def test_the_tap_shows_both_directions_of_all_nodes(operator, nodes, connect) -> None:
    """What clients send and what they are sent; filtered by command, paused, and kept as NDJSON."""
    client = await connect(nodes[1], "tapped", user="talker")
    id = await _welcomed(client)
    page = await operator.open("/tap?channel=tapped&cmd=chat")

    async def is_seen() -> bool:
        await client.send("ping", channel="tapped")
        await client.send("chat", {"text": "over here"}, channel="tapped")
        return await page.get_by_test_id("traffic").count() >= 2

    await eventually(is_seen, 20)
    received = page.locator("[data-testid=traffic][data-direction=in]").first
    await expect(received).to_contain_text(id)
    sent = page.locator("[data-testid=traffic][data-direction=out]").first
    await sent.locator("summary").click()
    await expect(sent.locator("pre")).to_contain_text('"text": "over here"')
    assert await page.get_by_test_id("traffic").filter(has_text="ping").count() == 0
    async with page.expect_download() as download:
        await page.get_by_test_id("export").click()
    lines = Path(await (await download.value).path()).read_text().splitlines()
    assert {json.loads(line)["cmd"] for line in lines} == {"chat"}
    await page.get_by_test_id("pause").click()
    await page.get_by_test_id("clear").click()
    await expect(page.get_by_test_id("nothing")).to_contain_text("Paused")


async def test_the_tap_counts_what_it_does_not_show(operator, nodes, connect) -> None:
    """A burst is shown in part, and shown and not shown are all there was."""
    page = await operator.open("/tap?channel=flood&direction=out")

    async def is_on() -> bool:
        await nodes.redis.publish("gateway:channel:flood", "first")
        return await page.get_by_test_id("traffic").count() > 0

    await _welcomed(await connect(nodes[0], "flood"))
    await eventually(is_on, 20)
    client = await connect(nodes[1], "flood", user="flooder")
    await _welcomed(client)
    for i in range(150):
        await client.send("chat", {"text": str(i)}, channel="flood")
    for _ in range(150):
        await client.expect("chat")

    async def all_counted() -> bool:
        texts = [await page.get_by_test_id(name).inner_text() for name in ("counts", "missed")]
        shown, missed = (int(text.split()[0].replace(",", "")) if text else 0 for text in texts)
        return missed > 0 and shown + missed >= 151

    await eventually(all_counted, 20)


async def test_a_broadcast_tells_whom_it_reaches_before_it_is_sent(operator, nodes, connect) -> None:
    """The count is right for a channel, a user, a connection and everyone; the snippets say the same."""
    clients = [await connect(node, "wide", user="reached") for node in nodes]
    ids = [await _welcomed(client) for client in clients]
    page = await operator.open("/broadcast")
    reach = page.get_by_test_id("reach")
    for kind, name, count in (("channel", "wide", 2), ("user", "reached", 2), ("connection", ids[1], 1)):
        await page.get_by_test_id(f"kind-{kind}").check(force=True)
        await page.get_by_test_id("name").fill(name)
        await expect(reach).to_have_attribute("data-count", str(count))
        topic = "direct" if kind == "connection" else f"{kind}:{name}"
        await expect(page.locator("[data-snippet=redis] pre")).to_contain_text(f"redis-cli PUBLISH 'gateway:{topic}'")
    await page.get_by_test_id("kind-all").check(force=True)
    await expect(reach).not_to_have_attribute("data-count", "1")
    await page.get_by_test_id("kind-channel").check(force=True)
    await page.get_by_test_id("name").fill("wide")
    await page.get_by_test_id("cmd").fill("news")
    await page.get_by_test_id("param").fill('{"it": "isn\'t", "ok": true}')
    command = await page.locator("[data-snippet=redis] pre").inner_text()
    assert (
        command == """redis-cli PUBLISH 'gateway:channel:wide' '{"cmd":"news","param":{"it":"isn'\\''t","ok":true}}'"""
    )
    assert '{"it": "isn\'t", "ok": True}, "wide")' in await page.locator("[data-snippet=python] pre").inner_text()
    assert "/api/channels/wide/messages" in await page.locator("[data-snippet=curl] pre").inner_text()
    await expect(reach).to_have_attribute("data-count", "2")
    await page.get_by_test_id("send").click()
    for client in clients:
        assert (await client.expect("news"))["param"] == {"it": "isn't", "ok": True}
    await page.get_by_test_id("kind-all").check(force=True)
    await page.get_by_test_id("send").click()
    await page.get_by_test_id("confirm").click()
    for client in clients:
        await client.expect("news")


HOSTILE = '"><img/src=x/onerror=window.hacked=1></script><script>window.hacked=1</script>{{7*7}}'
LEGAL = '"><img/src=x/onerror=window.hacked=1></script><script>window.hacked=1</script>'
"""As much of it as a channel name or user id may have in it."""


async def test_nothing_a_client_controls_runs_on_any_page(operator, nodes, connect) -> None:
    """Names, channels, user ids, commands, params and user agents are text wherever they show."""
    name = "<script>window.hacked=1</script><b onmouseover=hacked=1>"
    client = await connect(nodes[1], LEGAL, "kept-" + LEGAL, user=LEGAL, name=name)
    id = await _welcomed(client)
    await nodes.redis.publish(f"gateway:channel:{LEGAL}", HOSTILE[:100], {HOSTILE: HOSTILE})
    quoted = quote(LEGAL, safe="")
    paths = (
        *("/connections", f"/connections/{id}", "/channels", f"/channels/{quoted}", f"/channels/kept-{quoted}"),
        *("/users", f"/users/{quoted}", f"/nodes/{quoted}", f"/connections?text={quoted}", f"/tap?channel={quoted}"),
        f"/broadcast?kind=channel&name={quoted}",
    )
    page = await operator.open("")
    for path in paths:
        await page.goto(operator.node.url(ADMIN) + path)
        await expect(page.locator("#live")).to_have_attribute("data-state", "open")
        if path.startswith(("/tap", "/channels/kept")):
            await _hostile_traffic(page, nodes, client, is_tap=path.startswith("/tap"))
        assert LEGAL in await page.locator("main").inner_text() or path.startswith(("/tap", "/conn", "/broad")), path
        assert await page.evaluate("window.hacked") is None, path
        assert await page.locator("main img").count() == 0
    page = await operator.open(f"/connections/{id}")
    await _compose(page, HOSTILE[:100], {"x": HOSTILE})
    await operator.told("Sent")
    page = await operator.open("/audit")
    await expect(page.get_by_test_id("row").first).to_contain_text(HOSTILE[:40])
    assert await page.evaluate("window.hacked") is None


async def _hostile_traffic(page: Page, nodes: Nodes, client: Client, *, is_tap: bool) -> None:
    """Have hostile messages shown, by the tap or in the history."""

    async def is_shown() -> bool:
        await client.send("chat", {"text": HOSTILE}, channel=LEGAL if is_tap else "kept-" + LEGAL)
        return await page.get_by_test_id("traffic" if is_tap else "message").count() > 0

    await eventually(is_shown, 20)


async def test_the_theme_is_kept_and_the_menu_works_on_a_phone(operator) -> None:
    """Dark and light by a button, remembered; on a narrow screen the menu opens and Escape closes it."""
    page = operator.page
    await page.get_by_test_id("theme").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.set_viewport_size({"width": 390, "height": 800})
    nav = page.get_by_role("navigation", name="Pages")
    await expect(nav).not_to_be_visible()
    await page.get_by_role("button", name="Menu").click()
    await expect(nav).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(nav).not_to_be_visible()
    for path in ("", "/connections", "/channels", "/users", "/tap", "/broadcast", "/audit"):
        await operator.open(path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390, path


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_serious(operator, nodes, connect, theme) -> None:
    """No page has a serious or critical fault of accessibility, with rows in its tables."""
    assert AXE.exists(), "axe-core is missing: run npm ci in gateway/client, or scripts/test, which does"
    id = await _welcomed(await connect(nodes[1], "kept-axe", user="axe", name="Axe"))
    page = operator.page
    await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    paths = ("", "/connections", "/channels", "/users", "/tap", "/broadcast", "/audit", f"/nodes/{nodes[1].id}")
    for path in (*paths, f"/connections/{id}", "/channels/kept-axe", "/users/axe"):
        await operator.open(path)
        await page.evaluate(f"(0, eval)({json.dumps(AXE.read_text())})")
        found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        grave = [
            (fault["id"], [node["html"][:150] for node in fault["nodes"]])
            for fault in found["violations"]
            if fault["impact"] in ("serious", "critical")
        ]
        assert not grave, f"{path}: {grave}"


async def test_a_node_is_shown_drained_and_remembered(operator, nodes) -> None:
    """Its page has all it tells; draining it from another node's page is SIGTERM, and it leaves in good order."""
    third = Node(nodes.redis, id="to-drain", admin_password=PASSWORD, drain_seconds=2)
    try:
        await third.start()
        page = await operator.open("/nodes/to-drain")
        await expect(page.get_by_test_id("health")).to_have_text("Ready")
        await expect(page.get_by_test_id("figure-memory")).to_contain_text("MB", timeout=LIVE)
        await page.get_by_test_id("drain").click()
        await page.get_by_test_id("confirm").click()
        await operator.told("to-drain is draining")
        third.process.end_wanted = True
        assert await third.process.wait() == 0
        await expect(page.get_by_test_id("missing")).to_be_visible(timeout=LIVE)
        kinds = page.get_by_test_id("event")
        await expect(kinds.filter(has_text="stopped")).to_have_count(1)
        await expect(kinds.filter(has_text="draining")).to_have_count(1)
    finally:
        third.close()
    page = await operator.open("")
    await expect(page.get_by_test_id("node")).to_have_count(2, timeout=LIVE)


async def test_a_node_that_was_killed_is_shown_as_lost(operator, nodes) -> None:
    """First because it is silent, then because the others have cleaned up after it."""
    third = Node(nodes.redis, id="to-kill", admin_password=PASSWORD)
    try:
        await third.start()
        card = operator.page.get_by_test_id("node").filter(has_text="to-kill")
        await expect(card).to_contain_text("Ready", timeout=LIVE)
        await third.kill()
        await expect(card).to_contain_text("Lost", timeout=20_000)
        await expect(operator.page.get_by_test_id("health")).to_have_text("1 node lost")
        lost = operator.page.locator("[data-testid=event][data-kind=lost]")
        await expect(lost).to_contain_text("to-kill", timeout=30_000)
        await expect(card).to_contain_text("gone for")
    finally:
        third.close()


async def test_a_page_comes_back_by_itself_when_its_node_does(operator, nodes) -> None:
    """The socket is replaced, and the page goes on where it was."""
    page = operator.page
    await page.context.set_offline(True)
    await expect(page.locator("#live")).not_to_have_attribute("data-state", "open")
    await page.context.set_offline(False)
    await expect(page.locator("#live")).to_have_attribute("data-state", "open", timeout=30_000)
    await expect(page.get_by_test_id("node").first).to_be_visible()
