"""Trouble for nodes behind a balancer, while real browsers follow a numbered stream that must stay whole."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Page

from gateway.backplane import Backplane
from tests.harness.browser import Pages
from tests.harness.feed import KEPT
from tests.harness.haproxy import Haproxy
from tests.harness.node import Node, Nodes
from tests.harness.stream import Stream, assert_whole
from tests.harness.wait import eventually

# A channel of `feed.RULES` that keeps more messages than are written here.
CHANNEL = "kept"

# Seconds, on a machine that has much else to do.
PATIENCE = 80.0

_FOLLOW = """
async (channel) => {
    const { Client } = await import("/static/gateway.mjs");
    const client = new Client("/connect");
    const seen = { numbers: [], gaps: [], states: [], pause: 0 };
    let last = performance.now();
    client.on("state", ({ state }) => seen.states.push(state));
    client.channel(channel).on("$gap", (gap) => seen.gaps.push(gap));
    client.channel(channel).on("n", (number) => {
        seen.pause = Math.max(seen.pause, performance.now() - last);
        last = performance.now();
        seen.numbers.push(number);
    });
    Object.assign(window, { client, seen });
    await client.channel(channel).join();
}
"""


@dataclass
class Report:
    """What happened, and what the browsers made of it."""

    written: int = 0
    done: Counter[str] = field(default_factory=Counter)
    """How often each kind of trouble was made."""
    connects: list[int] = field(default_factory=list)
    """Of each browser."""
    duplicates: list[int] = field(default_factory=list)
    longest_pause: float = 0
    """Seconds for which a browser heard nothing."""

    def __str__(self) -> str:
        trouble = ", ".join(f"{count} {kind}" for kind, count in sorted(self.done.items()))
        return (
            f"{self.written} messages to {len(self.connects)} browsers, complete and in order; {trouble}; "
            f"connections {self.connects}, duplicates kept back {self.duplicates}, "
            f"longest pause {self.longest_pause:.1f} s"
        )


class Chaos:
    """Restarts and kills nodes and cuts browsers off, in an order that the seed decides; one node is left alone."""

    def __init__(self, nodes: Nodes, balancer: Haproxy, backplane: Backplane, *, seed: int) -> None:
        self.report = Report()
        self._nodes = nodes
        self._balancer = balancer
        self._random = random.Random(seed)
        self._stream = Stream(
            lambda number: backplane.append(CHANNEL, Stream.envelope(CHANNEL, number), KEPT), pause=0.02
        )

    async def run(self, pages: Pages, *, browsers: int, seconds: float) -> Report:
        """Let browsers follow the stream through so many seconds of trouble; fail unless it stays whole."""
        # What a browser's console says of a connection that was refused or lost.
        pages.allow("WebSocket connection|ERR_|Failed to load")
        followers = [await self._follower(pages) for _ in range(browsers)]
        async with self._stream.flowing():
            await self._trouble(followers, asyncio.get_running_loop().time() + seconds)
            await self._all_up()
        for follower in followers:
            await self._check(follower)
        self.report.written = self._stream.sent
        return self.report

    async def _follower(self, pages: Pages) -> Page:
        page = await pages.open(self._balancer.url("/healthz"))
        await page.evaluate(_FOLLOW, CHANNEL)
        return page

    async def _trouble(self, followers: Sequence[Page], end: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < end:
            kind = self._random.choice(("stopped", "killed", "killed", "both killed", "cut off"))
            self.report.done[kind] += 1
            if kind == "cut off":
                await self._cut_off(self._random.choice(followers))
            else:
                await self._fell(kind, followers)

    async def _fell(self, kind: str, followers: Sequence[Page]) -> None:
        """End one node or two, let the browsers find the rest, and start them again."""
        fallen = self._random.sample(list(self._nodes), 2 if kind == "both killed" else 1)
        await asyncio.gather(*(node.stop() if kind == "stopped" else node.kill() for node in fallen))
        if self._random.random() < 0.7:
            await asyncio.gather(*(self._follows(page) for page in followers))
        await asyncio.gather(*(self._restart(node) for node in fallen))

    async def _cut_off(self, page: Page) -> None:
        """Take the network away from one browser, and give it back."""
        await page.context.set_offline(True)
        before = self._stream.sent
        await eventually(lambda: self._stream.sent >= before + 20, PATIENCE, what="messages it misses")
        await page.context.set_offline(False)
        await self._follows(page)

    async def _restart(self, node: Node) -> None:
        await node.start(PATIENCE)
        await self._balancer.state(node, "UP", PATIENCE)

    async def _all_up(self) -> None:
        for node in self._nodes:
            await self._balancer.state(node, "UP", PATIENCE)

    async def _follows(self, page: Page) -> None:
        """Wait until a browser has what is written from now on."""
        number = self._stream.sent + 1

        async def reached() -> bool:
            return bool(await page.evaluate("(number) => seen.numbers.at(-1) >= number", number))

        await eventually(reached, PATIENCE, what=f"a browser hears {number}")

    async def _check(self, page: Page) -> None:
        async def has_all() -> bool:
            return bool(await page.evaluate("(number) => seen.numbers.at(-1) === number", self._stream.sent))

        await eventually(has_all, PATIENCE, what=f"a browser hears {self._stream.sent}, the last one")
        seen: dict[str, Any] = await page.evaluate("({ ...seen, stats: client.stats() })")
        assert seen["gaps"] == []
        assert_whole(seen["numbers"], self._stream.sent)
        self.report.connects.append(seen["stats"]["connects"])
        self.report.duplicates.append(seen["stats"]["duplicates"])
        self.report.longest_pause = max(self.report.longest_pause, seen["pause"] / 1000)
