"""What can be asked of the API: each function below a path is one operation, described by its own signature."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel

from gateway.server.api.problems import Refused

F = TypeVar("F", bound=Callable[..., Awaitable[object]])

OPEN = "/api/openapi.json"
"""The one path that needs no key."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A method on a path, and the function that does it."""

    method: str
    path: str
    """With the names of its parts in braces."""
    status: int
    """Of a good answer."""
    errors: tuple[int, ...]
    """Beside those that its input brings about."""
    act: Callable[..., Awaitable[object]]
    names: tuple[str, ...]
    """The parts of the path that are given to the function."""
    body: type[BaseModel] | None
    query: type[BaseModel] | None
    answer: Any
    """The type of a good answer; None where it has no body."""

    @property
    def all_errors(self) -> list[int]:
        """The statuses of the problems it may be answered with."""
        if self.is_open:
            return []
        has_input = self.names or self.body or self.query
        of_input = ((400, has_input), (413, self.body))
        return sorted({401, 503, *self.errors, *(status for status, is_possible in of_input if is_possible)})

    @property
    def is_open(self) -> bool:
        """Whether it needs no key."""
        return self.path == OPEN

    @property
    def summary(self) -> str:
        """What it does, in one sentence."""
        return (inspect.getdoc(self.act) or "").partition("\n")[0]


class Routes:
    """The operations of an API, found by method and path."""

    def __init__(self) -> None:
        self.all: list[Operation] = []
        self._patterns: dict[str, re.Pattern[str]] = {}

    def at(self, method: str, path: str, *, status: int = 200, errors: tuple[int, ...] = ()) -> Callable[[F], F]:
        """Make a function an operation.

        It is called with the service and, by name, with the parts of the path, and with `body` and `query` where
        it has such parameters; their annotations say what is valid, its return annotation what it answers.
        """

        def add(act: F) -> F:
            names = tuple(re.findall(r"{(\w+)}", path))
            hints = get_type_hints(act, include_extras=True)
            answer = None if hints["return"] is type(None) else hints["return"]
            operation = Operation(
                method=method,
                path=path,
                status=status,
                errors=errors,
                act=act,
                names=names,
                body=hints.get("body"),
                query=hints.get("query"),
                answer=answer,
            )
            self.all.append(operation)
            self._patterns[path] = re.compile(re.sub(r"\\{\w+\\}", "([^/]+)", re.escape(path)))
            return act

        return add

    def find(self, method: str, raw_path: str) -> tuple[Operation, dict[str, str]]:
        """Return the operation and the names in the path; raise `Refused` with 404, 405, or 400 for a name."""
        matches = [(path, match) for path, pattern in self._patterns.items() if (match := pattern.fullmatch(raw_path))]
        if not matches:
            raise Refused(404, f"nothing is at this path; {OPEN} describes what is")
        (path, match), *_ = matches
        here = {operation.method: operation for operation in self.all if operation.path == path}
        operation = here.get("GET" if method == "HEAD" else method)
        if operation is None:
            allowed = ", ".join(sorted(here))
            raise Refused(405, f"expected one of {allowed} here, got {method!a}", headers={"Allow": allowed})
        return operation, {
            name: _decoded(name, value) for name, value in zip(operation.names, match.groups(), strict=True)
        }


def _decoded(name: str, value: str) -> str:
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise Refused(400, f"{name}: expected UTF-8, percent-encoded", field=name) from None
