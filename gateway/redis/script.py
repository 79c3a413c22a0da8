"""Lua scripts, which Redis carries out in one step: loaded from the package, and called by their hash."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib import resources
from typing import ClassVar

from gateway.redis.link import Command


class Script:
    """A Lua script from one file or several of a package's `lua/`, joined; those before the last hold functions for it.

    Redis must have been given the `text` (SCRIPT LOAD) before it is called, and forgets it when it is restarted.
    `writes` is for a script that writes something whenever it is carried out.
    """

    names: ClassVar[dict[str, str]] = {}
    """The name of each, by its hash: for messages about what was refused."""
    texts: ClassVar[dict[str, str]] = {}
    """The text of each, by its hash."""
    writing: ClassVar[set[str]] = set()
    """Those that always write, as `What.verb` names them."""

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
