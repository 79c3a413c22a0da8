"""The Lua scripts of presence: what must be decided and done in one step."""

from __future__ import annotations

from gateway.backplane.script import Script


def _script(name: str) -> Script:
    return Script("gateway.presence", name)


OPEN, JOIN, LEAVE, FORGET_USER = _script("open"), _script("join"), _script("leave"), _script("forget_user")
RESERVE, RESTORE, COUNT = _script("reserve"), _script("restore"), _script("count")
DUE, GONE = _script("due"), _script("gone")
RENEW, CLAIM, DISCLAIM = _script("renew"), _script("claim"), _script("disclaim")

ALL = (OPEN, RESERVE, RESTORE, COUNT, JOIN, LEAVE, FORGET_USER, DUE, GONE, RENEW, CLAIM, DISCLAIM)
