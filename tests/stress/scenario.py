"""A scenario: a short coroutine whose name says what is tried, and whose docstring says what must come of it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.stress.arena import Arena

Run = Callable[[Arena], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """One of them."""

    name: str
    subject: str
    promise: str
    run: Run
    quick: bool
    # What the logs of the nodes may complain of meanwhile.
    complaints: tuple[str, ...]

    async def play(self, arena: Arena, seed: int) -> None:
        """Play it and its epilogue. Raises `Wrong`, or whatever it stumbles over."""
        await arena.play(self.run, seed=f"{seed} {self.name}", complaints=self.complaints)


SCENARIOS: dict[str, Scenario] = {}


def scenario(*, quick: bool = False, complaints: tuple[str, ...] = ()) -> Callable[[Run], Run]:
    """Make a coroutine function a scenario, under its own name with dashes."""

    def register(run: Run) -> Run:
        name = getattr(run, "__name__", "").replace("_", "-")
        subject = run.__module__.rpartition(".")[2]
        assert name not in SCENARIOS, f"two scenarios are called {name}"
        promise = (inspect.getdoc(run) or "").replace("\n", " ")
        SCENARIOS[name] = Scenario(name, subject, promise, run, quick, complaints)
        return run

    return register
