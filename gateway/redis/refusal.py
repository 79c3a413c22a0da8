"""Names what Redis refused, and why: error codes in plain words, and commands without what they carry."""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.redis.link import Command, RedisRefused
from gateway.redis.script import Script

MEANINGS = {
    "READONLY": "this Redis is a read-only replica",
    "OOM": "Redis is out of memory (maxmemory)",
    "WRONGPASS": "Redis refused the password",
    "NOAUTH": "Redis wants a password",
    "NOPERM": "the access rules (ACL) of Redis forbid it",
    "BUSY": "Redis is busy with a script",
    "LOADING": "Redis is loading its data",
    "MISCONF": "Redis cannot write to its disk and takes no writes",
    "CLUSTERDOWN": "the cluster does not serve all slots",
    "MASTERDOWN": "the replica has lost its master",
    "NOREPLICAS": "Redis has too few replicas to take writes",
    "TRYAGAIN": "a slot of the cluster is on its way to another master",
    "MOVED": "a slot of the cluster has moved",
    "ASK": "a slot of the cluster is on its way to another master",
    "UNKNOWN": "this Redis does not know the command, or it was renamed",
    "MAXCLIENTS": "Redis has as many clients as it may (maxclients)",
    "NOCLUSTER": "this is no Redis Cluster: its URL is redis://HOST:PORT",
    "WRONGTYPE": "something else was put under that key by hand",
}

# Which of these sets an error code is in decides whether what it refused is sent again, and what is taken for its end.
OF_WRITES = frozenset({"OOM", "MISCONF", "READONLY", "NOREPLICAS"})
"""Codes of a server that takes no writes at all, whatever they are."""
OF_SERVER = OF_WRITES | {"LOADING", "BUSY", "CLUSTERDOWN", "MASTERDOWN", "NOAUTH", "MAXCLIENTS"}
"""Codes that tell of the server's state, and not of the command: one trouble, however many commands meet it."""
PASSING = OF_SERVER - {"NOAUTH", "MAXCLIENTS"} | {"TRYAGAIN", "MOVED", "ASK"}
"""Codes that pass by themselves: the command was not carried out, and may be sent again."""

REASONS = tuple(
    word.lower()
    for word in (
        "OOM",
        "MISCONF",
        "READONLY",
        "NOREPLICAS",
        "NOPERM",
        "NOAUTH",
        "WRONGPASS",
        "LOADING",
        "BUSY",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "MOVED",
        "UNKNOWN",
        "MAXCLIENTS",
        "NOCLUSTER",
        "WRONGTYPE",
        "OTHER",
    )
)
"""All labels under which refusals are counted: few and fixed, since each is a series in the metrics."""

_LINE = re.compile(r"@user_script: ?(\d+)")
_NAMED = re.compile(r" \(([A-Z]+)\)$")
_CALL = re.compile(r"redis\.p?call\((?:'(\w+)'|ARGV\[(\d+)\]|(\w+))")
_ARGUMENTS = re.compile(r"^local (.+) = unpack\(ARGV\)$", re.MULTILINE)
"""Where a script gives its arguments names."""
_KEYLESS = frozenset({"PING", "ROLE", "INFO", "AUTH", "SELECT", "SCRIPT", "CLIENT", "CLUSTER", "SENTINEL", "ASKING"})
_SCRIPTED = ("EVALSHA", "EVAL")
_PUBLISHING = ("PUBLISH", "SPUBLISH")
_WRITING = frozenset({"SET", "HSET", "SADD", "XADD", "ZADD"})


class What(NamedTuple):
    """A command by its kind: what it does, and to which kinds of keys or topics, without the names in them."""

    verb: str
    places: str

    def __str__(self) -> str:
        return f"{self.verb} on {self.places}" if self.places else self.verb

    @property
    def writes(self) -> bool:
        """Whether it always writes when it is carried out, so that a server which takes it takes writes.

        Most scripts do not: they may have had nothing to do.
        """
        return self.verb in _WRITING or self.verb in Script.writing


def what_of(command: Command, prefix: str) -> What:
    """Name a command by its kind. It may hold messages or passwords: none is told."""
    words = [_text(part) for part in command[:2]]
    verb = words[0].upper() if words else "a command"
    if verb in _SCRIPTED:
        # The only script sent as text is the renewal from the other thread: its server may not have been given any.
        name = Script.names.get(words[1], "RENEW" if verb == "EVAL" else "?")
        keys = command[3 : 3 + int(command[2])]
        topics = [command[at + 1] for at, part in enumerate(command[:-1]) if _text(part) in _PUBLISHING]
        return What(f"{verb} (script {name})", _kinds((*keys, *topics), prefix))
    if verb in _KEYLESS:
        subcommand = verb in ("CLIENT", "CLUSTER", "SCRIPT", "SENTINEL") and len(words) > 1
        return What(" ".join(words).upper() if subcommand else verb, "")
    places = command[1:] if verb.endswith("SUBSCRIBE") or verb == "EXISTS" else command[1:2]
    return What(verb, _kinds(places, prefix))


def refused_in_script(error: RedisRefused) -> str:
    """Name the command within a script that was refused; "" where the error is not a script's, or cannot be traced.

    Redis names the line of the script, on which two commands may stand. A script that catches an error and returns it
    puts the name behind it, in parentheses.
    """
    command, line = error.command, _LINE.search(error.message)
    if not command or _text(command[0]).upper() not in _SCRIPTED:
        return ""
    if line is None:
        named = _NAMED.search(error.message)
        return named[1] if named else ""
    text = Script.texts.get(str(command[1]), "")
    given = [_text(part) for part in command[3 + int(command[2]) :]]
    listed = _ARGUMENTS.search(text)
    by_name = dict(zip(listed[1].split(", "), given, strict=False)) if listed else {}
    calls = _CALL.findall("".join(text.splitlines()[int(line[1]) - 1 : int(line[1])]))
    names = (verb or (given[int(number) - 1] if number else by_name.get(name, "")) for verb, number, name in calls)
    return " or ".join(dict.fromkeys(filter(None, names)))


def reason_of(error: RedisRefused) -> str:
    """Return the label, one of `REASONS`, under which a refusal is counted."""
    return error.word.lower() if error.word.lower() in REASONS else "other"


def is_password_refused(error: RedisRefused) -> bool:
    """Tell whether only another user name or password would help."""
    return error.word in ("WRONGPASS", "NOAUTH") or error.message.startswith("ERR AUTH")


def _kinds(places: Command, prefix: str) -> str:
    return ", ".join(dict.fromkeys(_kind(_text(place), prefix) for place in places if place))


def _kind(place: str, prefix: str) -> str:
    """Replace the name in a key or topic by `*`: clients choose names, and the log and the counts must stay bounded."""
    kind, colon, _ = place.removeprefix(f"{prefix}:").partition(":")
    return f"{prefix}:{kind}:*" if colon else place


def _text(part: object) -> str:
    """Read the beginning of an argument: it may be a whole message."""
    return part[:200].decode(errors="replace") if isinstance(part, bytes) else str(part)[:200]
