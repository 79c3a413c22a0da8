"""What a node says of its own health, and what goes before what."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from gateway.backplane import Backplane
from gateway.config import Settings
from gateway.node.health import Health
from gateway.node.service import NodeService
from gateway.node.startup import Startup


class Ailing:
    """A part of a node, or its backplane, that is as well as it is told to be."""

    def __init__(self) -> None:
        self.trouble: list[str] = []
        self.deaf = False


class Patient:
    """The health of a node with a backplane and one further part."""

    def __init__(self) -> None:
        self.backplane, self.part = Ailing(), Ailing()
        self.startup = Startup(Settings())
        self.health = Health(self.startup, cast(Backplane, self.backplane), asyncio.Event())
        self.health.parts.append(self.part)


@pytest.fixture
def node() -> Patient:
    return Patient()


async def test_a_node_is_starting_until_it_is_up_or_has_crashed(node: Patient) -> None:
    """What the others are told has no such state: who starts has no lease yet."""
    told = [node.health.readiness.status, node.health.condition().status]
    assert not node.health.readiness.serves
    node.health.crashed.set()
    told.append(node.health.readiness.status)
    assert told == ["starting", "ok", "crashed"]


async def test_trouble_is_told_in_order_and_degrades(node: Patient) -> None:
    """Clients are still sent here: they are as well here as anywhere."""
    node.startup.is_over = True
    node.part.trouble, node.backplane.trouble = ["sets are wrong"], ["Redis is away", "it was slow"]
    assert node.health.readiness == ("degraded", ["Redis is away", "it was slow", "sets are wrong"])
    assert node.health.readiness.serves


async def test_the_worst_is_told(node: Patient) -> None:
    """Who ends does not matter as deaf, and who has crashed does not matter as anything else; neither gets clients."""
    node.startup.is_over = True
    told = [node.health.readiness.status]
    node.backplane.deaf = True
    told.append(node.health.readiness.status)
    node.health.draining = True
    told.append(node.health.readiness.status)
    node.health.crashed.set()
    told.append(node.health.readiness.status)
    assert told == ["ok", "deaf", "draining", "crashed"]
    assert not node.health.readiness.serves


async def test_who_runs_again_is_starting_again() -> None:
    """That it was up before says nothing of now."""
    service, told = NodeService(Settings(redis_url="memory://")), []
    for _ in range(2):
        running = service.running()
        entering = asyncio.create_task(running.__aenter__())
        await asyncio.sleep(0)  # it waits for its parts, which have not begun
        told.append(service.readiness.status)
        await entering
        told.append(service.readiness.status)
        await running.__aexit__(None, None, None)
        told.append(service.readiness.status)
    assert told == ["starting", "ok", "draining"] * 2
