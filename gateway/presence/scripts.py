"""The Lua scripts of presence: each decides and writes in one step, so that of several nodes only one announces."""

from __future__ import annotations

from gateway.redis.script import Script


def _script(*names: str) -> Script:
    return Script("gateway.presence", *names)


OPEN, FORGET_USER = _script("open"), _script("forget_user")
JOIN, LEAVE = _script("tabs", "join"), _script("tabs", "leave")
RESERVE, RESTORE, COUNT = _script("reserve"), _script("tabs", "restore"), _script("count")
DUE, GONE = _script("due"), _script("gone")
TAKE, RENEW, END = _script("take"), _script("renew"), _script("end")
CLAIM, DISCLAIM, MEND, MARK = _script("claim"), _script("disclaim"), _script("mend"), _script("mark")

SCRIPTS = (
    OPEN,
    RESERVE,
    RESTORE,
    COUNT,
    JOIN,
    LEAVE,
    FORGET_USER,
    DUE,
    GONE,
    TAKE,
    RENEW,
    END,
    CLAIM,
    DISCLAIM,
    MEND,
    MARK,
)
