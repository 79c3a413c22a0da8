"""`scripts/stress`: a quick run of it goes well, and what fails is said so that it can be repeated."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENV = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")])}
COMMAND = ("-P", "-m", "tests.stress.command")
LONGEST = 400
"""Seconds: several times what a quick run takes while other tests run."""
WRONG = """
import sys
from tests.stress import command, traces
from tests.stress.scenario import scenario

@scenario()
async def always_wrong(arena):
    '''Five messages come.'''
    peer = await arena.peer(None, "lobby")
    await peer.request("say", {"by": "w", "count": 4}, "lobby")
    arena.equal("what came", list(range(5)), await peer.hears("w", 4))

@scenario()
async def always_dirty(arena):
    '''Redis is left as it was.'''
    await arena.redis.commands.set("gateway:dirt", 1)

traces.DEADLINE = 3  # nobody comes to clean
sys.exit(command.main())
"""


async def stress(*command: str) -> tuple[int | None, str]:
    """Run it; return the exit code and what it printed. The processes it starts end with it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENV
    )
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        raise
    return process.returncode, said.decode()


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.timeout(LONGEST)
async def test_a_quick_run_goes_well() -> None:
    """Every run of the tests tries another seed, which a failure names."""
    seed = os.environ.get("STRESS_SEED") or str(random.randrange(1_000_000))
    code, said = await stress(*COMMAND, "--quick", "--seed", seed)
    assert code == 0, said
    assert said.splitlines()[-1].endswith(f"seed {seed}"), said


@pytest.mark.redis
async def test_a_scenario_that_fails_says_how_to_repeat_it() -> None:
    """Its name, what it promised, what was expected and what came, the command; the next has nodes of its own."""
    code, said = await stress("-P", "-c", WRONG, "--only", "always-*", "--seed", "7")
    assert code == 1, said
    for line in (
        "FAILED 1/2  __main__/always-wrong, seed 7",
        "    promised: Five messages come.",
        "    what came: 5 expected, 4 came: 1 missing ([4])",
        "    again: scripts/stress --only always-wrong --seed 7",
        "FAILED 2/2  __main__/always-dirty, seed 7",
        "FAILED: 2 of 2 scenarios, always-wrong, always-dirty",
    ):
        assert line in said.splitlines(), said
    assert "traces are left: keys: 1 too many ['gateway:dirt']" in said, said


async def test_the_scenarios_are_listed() -> None:
    """At least fifty, each with a promise of its own."""
    code, said = await stress(*COMMAND, "--list")
    assert code == 0, said
    promises = [line for line in said.splitlines() if line.startswith("      ")]
    assert len(set(promises)) >= 50, said
    assert said.startswith(f"{len(promises)} scenarios\n"), said
