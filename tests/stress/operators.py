"""Operators: pages that follow a cluster under load, and actions from any node on connections of all."""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from typing import Any

from aiohttp import ClientSession, CookieJar, DummyCookieJar

from tests.stress.arena import NODES, Arena
from tests.stress.checks import eventually
from tests.stress.node import ADMIN_PASSWORD, Node
from tests.stress.peer import JSON, Peer
from tests.stress.scenario import scenario

ADMIN = "/admin/websocket"
COOKIE = "gateway_admin"
VIEWS = ("overview", "connections", "channels", "users", "audit", "connection", "channel", "node", "user")


class Operator:
    """Somebody at the admin pages of a node."""

    def __init__(self, node: Node, cookie: str, csrf: str) -> None:
        self.node = node
        self.headers = {"Cookie": f"{COOKIE}={cookie}", "X-CSRF-Token": csrf}

    @classmethod
    async def enter(cls, node: Node) -> Operator:
        """Log in, and open the first page, which gives the token that actions ask for."""
        async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
            async with session.get(cls.url(node, "/login")) as login:
                form = {"csrf": _found(r'name="csrf" value="(\w+)"', await login.text()), "password": ADMIN_PASSWORD}
            async with session.post(cls.url(node, "/login"), data=form) as page:
                csrf = _found(r'data-csrf="(\w+)"', await page.text())
            (cookie,) = (cookie.value for cookie in session.cookie_jar if cookie.key == COOKIE)
        return cls(node, cookie, csrf)

    @staticmethod
    def url(node: Node, path: str) -> str:
        return f"http://127.0.0.1:{node.port}{ADMIN}{path}"

    async def act(self, action: str, **fields: Any) -> tuple[int, Any]:
        """Do something; return the status and what came of it."""
        url = self.url(self.node, f"/actions/{action}")
        async with (
            ClientSession(cookie_jar=DummyCookieJar(), headers=self.headers) as session,
            session.post(url, json=fields) as answer,
        ):
            text = await answer.text()
            return answer.status, json.loads(text) if "json" in answer.content_type else text

    async def see(self, path: str) -> tuple[int, str]:
        """Open a page; return the status and what is on it."""
        async with (
            ClientSession(cookie_jar=DummyCookieJar(), headers=self.headers) as session,
            session.get(self.url(self.node, path), allow_redirects=False) as page,
        ):
            return page.status, await page.text()


def _found(pattern: str, page: str) -> str:
    found = re.search(pattern, page)
    assert found is not None, f"expected {pattern} in {page[:300]}"
    return found[1]


@scenario()
async def operators_act_from_every_node(arena: Arena) -> None:
    """Messages, joins, leaves and ends that operators ask of any node come to connections of all, and are noted."""
    operators = [await Operator.enter(node) for node in arena.nodes]
    peers, tabs = await arena.peers(12), await arena.peers(12, user="suspect")

    async def work(peer: Peer) -> None:
        operator = operators[arena.random.randrange(NODES)]
        arena.equal("a join", (200, True), await created(operator.act("join", id=peer.id, channel=f"cell-{peer.id}")))
        sent = await operator.act("send", kind="channel", name=f"cell-{peer.id}", cmd="n", param={"by": "op", "n": 1})
        arena.equal("a message to a channel", (200, {}), sent)
        sent = await operator.act("send", kind="connection", name=peer.id, cmd="n", param={"by": "op", "n": 2})
        arena.equal("a message to a connection", (200, {}), sent)
        arena.equal("what came", [1, 2], sorted(await peer.hears("op", 2)))
        status, _ = await operator.act("leave", id=peer.id, channel=f"cell-{peer.id}")
        arena.equal("a leave", 200, status)
        arena.equal("channels", [], await peer.request("channels"))
        status, _ = await operator.act("disconnect", id=peer.id, reconnect=True)
        arena.equal("an end", (200, 1012), (status, await peer.wait_end()))
        arena.count(actions=5)

    await asyncio.gather(*map(work, peers))
    arena.equal("the end of a user", (200, {"ended": 12}), await operators[0].act("disconnect-user", user="suspect"))
    for tab in tabs:
        arena.equal(f"the end of {tab}", 4410, await tab.wait_end())
    await eventually("the audit tells of it", partial(audited, operators[arena.random.randrange(NODES)], "suspect"))
    forged = Operator(arena.nodes[0], "x" * 30, "0" * 40)
    arena.equal("what is forged", 401, (await forged.act("send", kind="all", cmd="x"))[0])


async def audited(operator: Operator, word: str) -> bool:
    status, page = await operator.see("/audit")
    return status == 200 and word in page


async def created(action: Any) -> tuple[int, bool]:
    status, result = await action
    return status, result.get("created")


@scenario()
async def an_operator_drains_a_node(arena: Arena) -> None:
    """A node that an operator drains from another node's page ends with 0, and its clients are told to come back."""
    node = await arena.extra()
    peers = [await arena.peer(node, "ward", user=f"patient-{number}") for number in range(10)]
    operator = await Operator.enter(arena.nodes[0])
    arena.equal("the answer", (200, {}), await operator.act("drain", node=node.id))
    for peer in peers:
        arena.equal(f"the end of {peer}", 1012, await peer.wait_end())
    arena.equal("the exit code", 0, await node.ended())
    await arena.set_becomes("members:ward", ())
    await arena.set_becomes("nodes", {each.id for each in arena.nodes})


@scenario()
async def pages_follow_a_busy_cluster(arena: Arena) -> None:
    """Pages on all nodes that look, watch, tap and break off under traffic are answered, and leave nothing behind."""
    members, stop = await arena.peers(8, "busy", user="busy"), asyncio.Event()

    async def write() -> int:
        number = 0
        while not stop.is_set():
            await members[0].request("say", {"by": "w", "first": number, "count": 5}, "busy")
            number += 5
        return number

    operators = [await Operator.enter(node) for node in arena.nodes]

    async def operate(number: int) -> None:
        operator = operators[number % NODES]
        page = await arena.peer(operator.node, path=f"{ADMIN}/socket", protocol=JSON, headers=operator.headers)
        for _ in range(12):
            match arena.random.randrange(6):
                case 0:
                    await page.request("rest")
                case 1:
                    await page.request("tap", {"channel": arena.random.choice(("busy", ""))})
                case 2:
                    await arena.refused("invalid-param", page.request("look", {"view": "nonsense"}))
                case 3:
                    await arena.refused("unknown-command", page.request("nonsense"))
                case _:
                    view = arena.random.choice(VIEWS)
                    name = {"node": page.node.id, "connection": members[1].id}.get(view, "busy")
                    shown = {"view": view, "query": {"name": name}}
                    picture = await page.request(arena.random.choice(("look", "watch")), shown)
                    arena.true(f"a picture of {view}", isinstance(picture, dict))
            arena.count(looks=1)
        page.abort() if number % 2 else await page.close()

    writing = asyncio.create_task(write())
    await asyncio.gather(*map(operate, range(32)))
    stop.set()
    count = await writing
    for member in members:
        arena.equal(f"what {member} heard", list(range(count)), await member.hears("w", count))
    arena.count(messages=count)
