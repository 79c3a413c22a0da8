"""Tokens: who may come in, for how long, and where to."""

from __future__ import annotations

import asyncio
import base64
import json
import time

from tests.stress.arena import Arena
from tests.stress.peer import Peer, token
from tests.stress.scenario import scenario


def unsigned(**claims: object) -> str:
    parts = [{"alg": "none", "typ": "JWT"}, {"sub": "x", "exp": time.time() + 60, **claims}]
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + "."


@scenario()
async def tokens_run_out_and_are_renewed(arena: Arena) -> None:
    """Connections end with 4401 when their token does, unless a fresh one of the same user came in time."""
    short = [await arena.peer(node, "gate", shown=token(f"u-{n}", ttl=3)) for n, node in enumerate(arena.nodes * 4)]
    renewed, ending = short[::2], short[1::2]
    for number, peer in enumerate(short):
        await arena.refused("unauthorized", peer.request("$auth", {"token": token("somebody-else")}))
        await arena.refused("unauthorized", peer.request("$auth", {"token": token(f"u-{number}", ttl=-60)}))
        await arena.refused("unauthorized", peer.request("$auth", {"token": "nonsense"}))
        await arena.refused("invalid-param", peer.request("$auth", {"token": 7}))
        if peer in renewed:
            await peer.request("$auth", {"token": token(f"u-{number}")})
    for peer in ending:
        arena.equal(f"the end of {peer}", 4401, await peer.wait_end())
    await arena.set_becomes("members:gate", {peer.id for peer in renewed})
    for peer in renewed:
        await peer.settled()


@scenario(quick=True)
async def bad_tokens_are_refused(arena: Arena) -> None:
    """Tokens that are expired, forged, unsigned, without a user or none at all are 401 on every node, tried at once."""
    good = token("good")
    head, body, signature = good.split(".")
    bad = [
        *("nonsense", "a.b.c", "..", head, f"{head}.{body}.", f"{head}.{body}.{signature[::-1]}", unsigned()),
        *(
            token("late", ttl=-60),
            token(""),
            token("not a legal id"),
            token("x" * 300),
            token("early", nbf=time.time() + 60),
        ),
        *(f"{head}.{body[:-3]}AAA.{signature}", token("odd", channels="no list"), token("odd", exp="soon")),
    ]
    await asyncio.gather(
        *(arena.refused("401", arena.peer(node, "gate", shown=shown)) for shown in bad for node in arena.nodes)
    )
    for node in arena.nodes:
        await (await arena.peer(node, "gate", shown=good)).settled()
    arena.count(refused=len(bad) * len(arena.nodes))


@scenario()
async def patterns_limit_every_join(arena: Arena) -> None:
    """A token's patterns hold for ?ch=, $join and, once renewed, for what it is in; the server may put it anywhere."""

    async def try_all(peer: Peer) -> None:
        await peer.request("$join", None, "team-1")
        await arena.refused("forbidden", peer.request("$join", None, "other-1"))
        await arena.refused("forbidden", peer.request("$join", None, "ateam-1"))
        await peer.request("put", {"id": peer.id, "channel": "anywhere"})
        await peer.request("$auth", {"token": token("limited", channels=["other-*"])})
        left = await peer.wait_for("$left")
        arena.equal("what the fresh token took", ("team-1", {"reason": "forbidden"}), (left["channel"], left["param"]))
        await peer.request("$join", None, "other-1")
        await arena.refused("forbidden", peer.request("$join", None, "team-2"))
        arena.equal("channels", ["anywhere", "other-1"], await peer.request("channels"))

    for node in arena.nodes:
        shown = token("limited", channels=["team-*"])
        await arena.refused("403", arena.peer(node, "other-1", shown=shown))
        await try_all(await arena.peer(node, shown=shown))
