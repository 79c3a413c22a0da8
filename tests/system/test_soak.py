"""The soak: it finds exactly what is lost, doubled or growing, and a small one, stopped by Ctrl-C, holds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from tests.soak.command import parse
from tests.soak.ledger import Hearing, Stream, Verdict
from tests.soak.samples import ALIVE, LEAST_SECONDS, RESIDENT, slope_of

ROOT = Path(__file__).parents[2]
ENV = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")])}


def heard(numbers: list[int], *, sent: int, unsure: Collection[int] = (), gap: int = 0) -> tuple[Hearing, Verdict]:
    """Let a client that resumes hear these numbers; before `gap` it is told of one."""
    hearing = Hearing(Stream("kept-0", "client", kept=True, sent=sent, unsure=set(unsure)), resumes=True)
    for number in numbers:
        hearing.heard(number, excused=number == gap)
    hearing.end(excused=False)
    return hearing, hearing.verdict()


def test_what_came_once_and_in_order_is_as_it_should_be():
    """Nothing is wrong with it."""
    hearing, verdict = heard([1, 2, 3], sent=3)
    assert verdict == Verdict(heard=3)
    assert hearing.wrong() == []


def test_what_is_missing_is_lost_told_or_not():
    """Between numbers, and at the end; once for all, however often one asks."""
    hearing, verdict = heard([1, 3, 6], sent=7, gap=6)
    assert verdict == hearing.verdict() == Verdict(heard=3, lost_told=2, lost_untold=2)
    assert len(hearing.wrong()) == 4
    assert hearing.wrong() == []


def test_what_comes_again_is_doubled_and_what_comes_late_is_out_of_order():
    """Each of them once for every time."""
    assert heard([1, 2, 2, 1], sent=2)[1] == Verdict(heard=4, doubled=2)
    assert heard([1, 3, 2, 2], sent=3)[1] == Verdict(heard=4, reordered=1, doubled=1)


def test_what_a_writer_is_unsure_of_may_be_missing_or_late_but_not_double():
    """Nobody knows whether Redis has taken it."""
    assert heard([1, 4, 3], sent=4, unsure={2, 3})[1] == Verdict(heard=3)
    assert heard([1, 2, 2], sent=2, unsure={2})[1] == Verdict(heard=3, doubled=1)


def test_gaps_and_the_end_of_connections_excuse_only_those_who_do_not_resume():
    """What is missing without a word is wrong for everybody."""
    hearing = Hearing(Stream("loose-0", "client", kept=False, sent=9), resumes=False)
    for number, excused in ((1, True), (4, True), (6, False)):
        hearing.heard(number, excused=excused)
    assert hearing.verdict() == Verdict(heard=3, lost_told=2, lost_untold=1)
    assert hearing.wrong() == ["lost, untold: loose-0 client 5"]


@pytest.mark.parametrize("measure", [RESIDENT, ALIVE], ids=["resident", "alive"])
@pytest.mark.parametrize(("share", "is_flat"), [(0.0, True), (0.5, True), (2.0, False)])
def test_memory_that_grows_is_found(measure, share, is_flat):
    """Whatever it did while it warmed up, and though a reply once took a whole unit for good."""
    leak = measure.limit * share
    seconds = range(0, int(LEAST_SECONDS * 2), 5)
    sizes = [60 + min(second, 200) / 10 + (second > 500) + leak / measure.parts * second / 60 for second in seconds]
    slope = slope_of("node-1", list(zip(map(float, seconds), sizes, strict=True)), measure)
    assert slope.is_flat is is_flat
    assert slope.per_minute == pytest.approx(leak, abs=measure.limit / 4)


def test_a_short_life_says_nothing_of_memory():
    """It is shown, and not judged."""
    assert slope_of("node-1", [(0.0, 1.0), (60.0, 100.0)]).per_minute is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--minutes", "0"], "expected a number above 0"),
        (["--faults", "kill,fire"], "got 'fire'"),
        (["--channels", "7"], "an even number of channels"),
        (["--clients", "20"], "expected 175 clients"),
    ],
)
def test_a_wrong_argument_is_named(arguments, words, capsys):
    """As what was expected instead."""
    with pytest.raises(SystemExit, match="2"):
        parse(arguments)
    assert words in capsys.readouterr().err


@pytest.mark.redis
@pytest.mark.slow
async def test_a_small_soak_holds_and_ctrl_c_ends_it_in_good_order(tmp_path):
    """Two faults, then Ctrl-C in the midst of the third: everything is looked at, and reported."""
    size = ["--minutes", "30", "--fault-every", "4", "--clients", "30", "--channels", "6", "--rate", "60"]
    file = tmp_path / "report.json"
    options = (*size, "--seed", "1", "--faults", "pubsub-kill,kill", "--json", str(file))
    command = (sys.executable, "-P", "-m", "tests.soak.command", *options)
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=ENV)
    assert child.stdout is not None
    try:
        lines = [(await child.stdout.readline()).decode() for _ in range(2)]
        child.send_signal(signal.SIGINT)
        text, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.terminate()
            await child.wait()
    assert child.returncode == 0, text.decode()
    assert "everything holds" in text.decode()
    assert {line.split()[1] for line in lines} == {"pubsub-kill:", "kill:"}

    report = json.loads(file.read_text())
    assert len(report["faults"]) >= 2
    assert report["written"] > 200
    assert report["sums"] >= 2
    assert report["sums_delivered"] > 1000
    assert report["resumed"] == {"heard": report["resumed"]["heard"]} | dict.fromkeys(
        ("lost_told", "lost_untold", "doubled", "reordered"), 0
    )
    assert report["others"]["doubled"] == report["others"]["lost_untold"] == 0
