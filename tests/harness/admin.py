"""The admin pages of nodes under test, as an operator's browser uses them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urldefrag

from aiohttp import ClientResponse, ClientSession
from playwright.async_api import Browser, Page, expect

from .browser import Pages
from .node import Node
from .wait import eventually

__all__ = ["ADMIN", "PASSWORD", "Operator", "csrf_of", "link_of", "log_in", "log_in_by_link", "open_window"]

ADMIN = "/admin/websocket"
PASSWORD = "correct horse battery staple"


def csrf_of(html: str) -> str:
    """Return the token of a page's form, or of the page itself."""
    found = re.search(r'name="csrf" value="(\w+)"', html) or re.search(r'data-csrf="(\w+)"', html)
    assert found is not None, html[:500]
    return found[1]


async def log_in(session: ClientSession, node: Node, password: str = PASSWORD, **options: Any) -> ClientResponse:
    """Give a password as the form does; the session keeps the cookie."""
    async with session.get(node.url(f"{ADMIN}/login")) as page:
        csrf = csrf_of(await page.text())
    form = {"csrf": csrf, "password": password}
    return await session.post(node.url(f"{ADMIN}/login"), data=form, allow_redirects=False, **options)


async def link_of(node: Node, *, other_than: str = "") -> str:
    """Return the newest log-in link that a node without a password has written to its log."""

    def links() -> list[str]:
        return [link for link in re.findall(r"log in once by (\S+)", node.output) if link != other_than]

    await eventually(links, what="a log-in link")
    return links()[-1]


async def log_in_by_link(session: ClientSession, node: Node, link: str = "", **options: Any) -> ClientResponse:
    """Open a log-in link, the newest if none is given, and press the button."""
    page, token = urldefrag(link or await link_of(node))
    async with session.get(page) as login:
        form = {"csrf": csrf_of(await login.text()), "token": token}
    return await session.post(page, data=form, allow_redirects=False, **options)


class Operator:
    """An operator with one browser window, logged in on whatever node it opens."""

    def __init__(self, page: Page, node: Node) -> None:
        self.page = page
        self.node = node

    @classmethod
    async def enter(cls, pages: Pages, node: Node) -> Operator:
        """Log in through the form."""
        page = await pages.open(node.url(ADMIN))
        await page.get_by_test_id("password").fill(PASSWORD)
        await page.get_by_test_id("log-in").click()
        await expect(page.locator("#live")).to_have_attribute("data-state", "open")
        return cls(page, node)

    async def open(self, path: str, *, node: Node | None = None) -> Page:
        """Go to a page, on another node if told so; return once it is live."""
        await self.page.goto((node or self.node).url(ADMIN + path))
        await expect(self.page.locator("#live")).to_have_attribute("data-state", "open")
        return self.page

    async def told(self, text: str) -> None:
        """Wait until the page tells that something is done."""
        await expect(self.page.get_by_test_id("toast").filter(has_text=text).first).to_be_visible()


async def open_window(browser: Browser, node: Node) -> tuple[Operator, Pages]:
    """Have a new operator, and what notes the errors of the window."""
    pages = Pages(browser)
    return await Operator.enter(pages, node), pages
