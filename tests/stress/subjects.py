"""All subjects: importing this makes their scenarios known."""

from tests.stress import (
    access,
    channels,
    cost,
    ends,
    everything,
    frames,
    handlers,
    history,
    injections,
    leaks,
    limits,
    moods,
    nodes,
    operators,
    outages,
    outside,
    refusals,
    slow,
    users,
)

SUBJECTS = (
    *(channels, history, users, access, frames, slow, ends, limits, cost),
    *(handlers, outside, operators, injections, outages, refusals, moods, nodes, leaks, everything),
)
NAMES = tuple(subject.__name__.rpartition(".")[2] for subject in SUBJECTS)
