"""Real Chromium, headless, by playwright."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Error, Page, async_playwright

from .process import program

__all__ = ["Pages", "open_browser"]

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Run Chromium for the length of a `with`; it belongs to the running loop, and takes about a second."""
    path = program("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, headless=True, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


class Pages:
    """Pages of one browser, each with cookies and storage of its own, that note every error.

    An error is an uncaught exception, or anything the console calls an error: a failed request, a violation of the
    content security policy, `console.error`.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._allowed: list[re.Pattern[str]] = []
        # What went wrong in any page, allowed or not.
        self.errors: list[str] = []

    async def open(self, url: str | None = None, **options: Any) -> Page:
        """Open a page, as a person with a browser of their own would; `options` are playwright's `new_context`."""
        context = await self._browser.new_context(**options)
        page = await context.new_page()
        page.on("pageerror", self._note_exception)
        page.on("console", self._note_console)
        if url is not None:
            await page.goto(url)
        return page

    def allow(self, pattern: str) -> None:
        """Let errors pass whose text has this regular expression in it, those noted so far included."""
        self._allowed.append(re.compile(pattern))

    def assert_clean(self) -> None:
        """Fail when a page had an error that is not allowed."""
        wrong = [error for error in self.errors if not any(allowed.search(error) for allowed in self._allowed)]
        assert not wrong, "errors in the browser:\n" + "\n".join(wrong)

    def _note_exception(self, error: Error) -> None:
        self.errors.append(f"uncaught: {error.stack or error.message}")

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"console: {message.text} ({message.location.get('url', '')})")
