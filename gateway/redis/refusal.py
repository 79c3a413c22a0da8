"""What Redis refuses, and why: the reasons it has, and the names of commands, keys and topics."""

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

OF_WRITES = frozenset({"OOM", "MISCONF", "READONLY", "NOREPLICAS"})
"""Reasons of a server that takes no writes, whichever they are."""
OF_SERVER = OF_WRITES | {"LOADING", "BUSY", "CLUSTERDOWN", "MASTERDOWN", "NOAUTH", "MAXCLIENTS"}
"""Reasons that say something of the server's state and nothing of the command."""
PASSING = OF_SERVER - {"NOAUTH", "MAXCLIENTS"} | {"TRYAGAIN", "MOVED", "ASK"}
"""Refusals after which the command, which was not carried out, may be sent again."""

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
"""What a refusal may be counted as."""

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
    """A command by its kind: what it does, and to which keys or topics, less their own names."""

    verb: str
    places: str

    def __str__(self) -> str:
        return f"{self.verb} on {self.places}" if self.places else self.verb

    @property
    def writes(self) -> bool:
        """Whether it has written whenever it was taken, so that a server which takes it takes writes."""
        return self.verb in _WRITING or self.verb in Script.writing


def what_of(command: Command, prefix: str) -> What:
    """Name a command that may hold anything: of its arguments no more than kinds of keys and topics are told."""
    words = [_text(part) for part in command[:2]]
    verb = words[0].upper() if words else "a command"
    if verb in _SCRIPTED:
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
    """Name the command within a script that was refused; "" where it was none, or nobody can tell.

    Redis tells the line, in which two may stand; where a script has caught the error, it says itself what it was of.
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
    """Return what a refusal is counted as."""
    return error.word.lower() if error.word.lower() in REASONS else "other"


def is_password_refused(error: RedisRefused) -> bool:
    """Tell whether only another user name or password would help."""
    return error.word in ("WRONGPASS", "NOAUTH") or error.message.startswith("ERR AUTH")


def _kinds(places: Command, prefix: str) -> str:
    return ", ".join(dict.fromkeys(_kind(_text(place), prefix) for place in places if place))


def _kind(place: str, prefix: str) -> str:
    """Put `*` for whose a key or topic is: there are as many kinds as the product has, and not as clients name."""
    kind, colon, _ = place.removeprefix(f"{prefix}:").partition(":")
    return f"{prefix}:{kind}:*" if colon else place


def _text(part: object) -> str:
    """Read a word, and not much more: the rest may be a message."""
    return part[:200].decode(errors="replace") if isinstance(part, bytes) else str(part)[:200]
