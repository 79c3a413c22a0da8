"""Asks nodes whose lease in Redis has run out whether they are gone, or live and cannot renew it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from gateway.backplane.questions import Questions

WITHIN = 1.0
"""Seconds that such a node has to answer: most likely it is gone, and a page or a command waits for that."""
UNREGISTERED, LOST = "unregistered", "lost"


class Condition(NamedTuple):
    """How a node without a lease is."""

    state: str
    """`unregistered` when it answers, else `lost`."""
    trouble: list[str]


async def conditions_of(questions: Questions, nodes: Iterable[str]) -> dict[str, Condition]:
    """Ask nodes themselves, over the backplane, which needs no write to Redis."""
    asked = sorted(nodes)
    heard = await questions.ask_all(asked, "state", within=WITHIN) if asked else None
    return {node: _condition(heard.answers.get(node)) for node in asked} if heard else {}


def _condition(answer: object) -> Condition:
    match answer:
        case {"trouble": [*lines]}:
            return Condition(UNREGISTERED, ["it holds no lease in Redis", *map(str, lines)])
    return Condition(LOST, ["its lease has run out, and it does not answer"])
