"""A Lua script: what Redis must decide and do in one step."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib import resources
from typing import ClassVar

from gateway.redis.link import Command


class Script:
    """A Lua script of a package, from one file or several; called by its hash, once Redis was given the text.

    One that `writes` has written something whenever it was carried out.
    """

    names: ClassVar[dict[str, str]] = {}
    """What each is called, by its hash."""
    texts: ClassVar[dict[str, str]] = {}
    """What each consists of, by its hash."""
    writing: ClassVar[set[str]] = set()
    """How those are told that write."""

    def __init__(self, package: str, *names: str, writes: bool = False) -> None:
        files = resources.files(package)
        self.text = "\n".join(files.joinpath(f"lua/{name}.lua").read_text() for name in names)
        self.hash = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self.names[self.hash], self.texts[self.hash] = names[-1], self.text
        if writes:
            self.writing.add(f"EVALSHA (script {names[-1]})")

    def __call__(self, keys: Sequence[str], *arguments: str | bytes | int) -> Command:
        """Make the command that runs it."""
        return ("EVALSHA", self.hash, len(keys), *keys, *arguments)
