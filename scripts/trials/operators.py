"""Operators: pages that follow a cluster under load, and actions from any node on connections of all."""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from typing import Any

from aiohttp import ClientSession, DummyCookieJar

from trials.arena import NODES, Arena
from trials.node import Node
from trials.peer import JSON, Peer
from trials.scenario import eventually, scenario

ADMIN = "/admin/websocket"
COOKIE = "gateway_admin"
VIEWS = ("overview", "connections", "channels", "users", "audit", "connection", "channel", "node", "user")


class Operator:
    """Somebody at the admin pages of a node."""

    def __init__(self, node: Node, cookie: str, csrf: str) -> None:
        self.node = node
        self._headers = {"Cookie": f"{COOKIE}={cookie}", "X-CSRF-Token": csrf}

    @classmethod
    async def enter(cls, node: Node) -> Operator:
        """Open the first page, which gives the token that actions ask for."""
        async with ClientSession(cookie_jar=DummyCookieJar()) as session, session.get(cls.url(node, "")) as page:
            found = re.search(r'data-csrf="(\w+)"', await page.text())
            assert found is not None, f"expected a page of {node}, got {page.status}"
            return cls(node, page.cookies[COOKIE].value, found[1])

    @staticmethod
    def url(node: Node, path: str) -> str:
        return f"http://127.0.0.1:{node.port}{ADMIN}{path}"

    async def act(self, action: str, **fields: Any) -> tuple[int, Any]:
        """Do something; return the status and what came of it."""
        url = self.url(self.node, f"/actions/{action}")
        async with (
            ClientSession(cookie_jar=DummyCookieJar(), headers=self._headers) as session,
            session.post(url, json=fields) as answer,
        ):
            text = await answer.text()
            return answer.status, json.loads(text) if answer.status != 403 else text


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
    await eventually("the audit tells of it", partial(audited, arena.any_node(), "suspect"))
    forged = Operator(arena.nodes[0], "x" * 30, "0" * 40)
    arena.equal("what is forged", 403, (await forged.act("send", kind="all", cmd="x"))[0])


async def audited(node: Node, word: str) -> bool:
    status, page = await node.ask("GET", f"{ADMIN}/audit")
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

    async def operate(number: int) -> None:
        page = await arena.peer(arena.nodes[number % NODES], path=f"{ADMIN}/socket", protocol=JSON)
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
