"""Turns pydantic's list of errors into the one field and sentence of an `invalid-param`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.errors import InvalidParam

LONGEST_FIELD = 100
LONGEST_MESSAGE = 300
"""Characters: the keys in a field's path are the client's own words, and may be as long as its message."""
MOST_EXAMINED = 100
"""Errors that are looked at one by one: a single message can be wrong in any number of places."""

Path = tuple[str | int, ...]
_NOWHERE = object()


class _Problem(NamedTuple):
    """One error: where, and if that is in a branch of a union, which branch of which union."""

    path: Path
    union: Path
    branch: str | int | None
    text: str


def refusal(error: ValidationError, value: object) -> InvalidParam:
    """Say what was wrong with a value: the `field`, and a sentence that does not repeat the value."""
    if error.error_count() > MOST_EXAMINED:
        return InvalidParam(f"param is wrong in {error.error_count()} places", field="param")
    path, texts = _most_telling(
        [_problem(each, value) for each in error.errors(include_url=False, include_input=False)]
    )
    field = _short(".".join(map(str, path)) or "param", LONGEST_FIELD)
    text, *others = texts
    alternatives = (" or" + other.removeprefix(" should be") for other in others)
    return InvalidParam(_short("".join((field, text, *alternatives)), LONGEST_MESSAGE), field=field)


def _most_telling(problems: list[_Problem]) -> tuple[Path, Iterable[str]]:
    """Choose the first problem; in a union that of the branch that fits best, or all where they fit alike."""
    first = problems[0]
    if first.branch is None:
        return first.path, [first.text]
    branches: dict[str | int, list[_Problem]] = {}
    for problem in problems:
        if problem.branch is not None and problem.union == first.union:
            branches.setdefault(problem.branch, []).append(problem)
    best = min(branches.values(), key=_misfit)
    rivals = [branch for branch in branches.values() if _misfit(branch) == _misfit(best)]
    alike = [rival[0].text for rival in rivals if rival[0].path == best[0].path]
    return best[0].path, dict.fromkeys(alike)


def _misfit(branch: list[_Problem]) -> tuple[int, int]:
    return len(branch), -len(branch[0].path)


def _problem(error: ErrorDetails, value: object) -> _Problem:
    """Tell the place in the value from the names of union branches, which pydantic puts among it."""
    path: Path = ()
    union: Path = ()
    branch = None
    for index, part in enumerate(error["loc"]):
        below = _part(value, part)
        if below is not _NOWHERE:
            path, value = (*path, part), below
        elif error["type"] == "missing" and index == len(error["loc"]) - 1:
            path = (*path, part)
        elif branch is None:
            union, branch = path, part
    return _Problem(path, union, branch, _text(error))


def _part(value: object, part: str | int) -> object:
    if isinstance(value, dict):
        return value.get(part, _NOWHERE)
    if isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
        return value[part]
    return _NOWHERE


def _text(error: ErrorDetails) -> str:
    """Say what was expected, as the end of a sentence that begins with the field."""
    message = error["msg"]
    if error["type"] == "missing":
        return " is required"
    if error["type"] == "extra_forbidden":
        return " is not expected"
    if error["type"] == "union_tag_not_found":
        return f" needs {error['ctx']['discriminator']}, which tells what it is"
    if error["type"] == "union_tag_invalid":
        return f" should have as {error['ctx']['discriminator']} one of {error['ctx']['expected_tags']}"
    if message.startswith("Input should "):
        return message.removeprefix("Input")
    return ": " + message.removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
