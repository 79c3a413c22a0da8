"""A message, a position in a history, and the rules for the names of channels, users and connections."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple, TypeGuard

from gateway.errors import InvalidChannel, InvalidUser

CMD_LENGTH = 128
"""Characters of a command at most."""
OWN = "$"
"""Begins the commands that only the gateway itself says, and clients say to it."""
CMD_RULE = f"a string of 1 to {CMD_LENGTH} characters"
"""What a command is, in words."""
NAME_BYTES = 200
"""Of a channel or user: a name is part of Redis keys and stands in every envelope."""
NAME_RULE = f"1 to {NAME_BYTES} bytes without white space, control characters or any of {{}}*?[]\\"
"""What the name of a channel and the id of a user are, in words."""
PATTERN_RULE = "channel name, in which * stands for any characters or none"
NAMES_REMEMBERED = 4096
"""Names that are not looked through again, since each message names its channel anew."""

_ILLEGAL = re.compile(r"[\x00-\x1f\x7f-\x9f\s{}*?\[\]\\]")


class Message(NamedTuple):
    """What a client sends or receives. `sender` is the wire's `from`, else None: only the server sets it.

    `channel` is "" where there is none. `param` is any value of JSON. `id` is the client's own mark on a request, None
    on what wants no answer; `offset` is the position in a channel that keeps history, else None.
    """

    channel: str
    cmd: str
    param: Any = None
    sender: str | None = None
    id: str | int | None = None
    offset: int | None = None


class Position(NamedTuple):
    """A place in a channel's history: offsets count the messages of an epoch, without holes.

    `time` is when the message there was written (ms since the epoch), 0 where nobody knows. After Redis has
    lost the newest messages, it tells the message that took an offset from the one that had it.
    """

    epoch: str
    offset: int
    time: int = 0


def check_channel(name: object) -> str:
    """Return a legal channel name as it is; raise `InvalidChannel` for anything else."""
    if problem := _problem(name):
        raise InvalidChannel(f"expected a channel name, got {_shown(name)}: {problem}")
    return str(name)


def check_user(user_id: object) -> str:
    """Return a legal user id as it is; raise `InvalidUser` for anything else."""
    if problem := _problem(user_id):
        raise InvalidUser(f"expected a user id, got {_shown(user_id)}: {problem}")
    return str(user_id)


def is_name(name: object) -> bool:
    """Tell whether this would pass as a channel name or user id."""
    return _problem(name) is None


def is_cmd(cmd: object) -> TypeGuard[str]:
    """Tell whether this may be the `cmd` of a message."""
    return isinstance(cmd, str) and 0 < len(cmd) <= CMD_LENGTH


def is_pattern(pattern: object) -> bool:
    """Tell whether this may stand for channels: a name in which there may be *."""
    return isinstance(pattern, str) and is_name(pattern.replace("*", "-"))


def is_connection_id(id: str) -> bool:
    """Tell whether this may be a connection's id: a node's name, ~, and something of its own."""
    node, _, own = id.rpartition("~")
    return is_name(node) and is_name(own)


def node_of(connection_id: str) -> str:
    """Tell which node holds a connection, from its id alone; "" when this cannot be a connection id."""
    return connection_id.rpartition("~")[0]


def make_id(node_id: str, unique: str) -> str:
    """Make a connection id that names its node, so that finding the node takes no look-up."""
    return f"{node_id}~{unique}"


def fits(pattern: str, name: str) -> bool:
    """Tell whether a name fits a pattern, in which * stands for any characters or none."""
    first, *middle = pattern.split("*")
    if not middle:
        return name == pattern
    last = middle.pop()
    position, end = len(first), len(name) - len(last)
    if position > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in middle:
        if (found := name.find(part, position, end)) < 0:
            return False
        position = found + len(part)
    return True


def _problem(name: object) -> str | None:
    if not isinstance(name, str):
        return "not a string"
    return _remembered(name) if len(name) <= NAME_BYTES else _problem_of(name)


def _problem_of(name: str) -> str | None:
    if not name:
        return "empty"
    if found := _ILLEGAL.search(name):
        return f"{found.group()!r} is not allowed"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "not valid Unicode"
    return f"{size} bytes, at most {NAME_BYTES} are allowed" if size > NAME_BYTES else None


_remembered = lru_cache(NAMES_REMEMBERED)(_problem_of)
"""For names that may be legal: clients may send longer ones, which would be kept whole."""


def _shown(name: object) -> str:
    text = ascii(name)
    return text if len(text) <= 80 else text[:77] + "..."
