"""Who may join a channel or send to it, as far as the channel's rule and the user's token go.

Each can only restrict. A token's patterns limit every join; the rule of the channel asks for more (or for
nobody); what passes both is put to `Handler.authorize`, whatever the rule is. The rule `handler` differs from
`anyone` in that a handler without an `authorize` of its own allows nothing. None of them looks at whether the
channel exists, so neither does the answer tell.
"""

from __future__ import annotations

from typing import Literal

from gateway.config import Rule
from gateway.connections.connection import Connection
from gateway.protocol.message import fits

Action = Literal["join", "send"]


def passes(rule: Rule, connection: Connection, channel: str, action: Action) -> bool:
    """Tell whether a client may act on a channel as far as rule and token go; the handler has the last word."""
    patterns = connection.profile.channels
    named = patterns is not None and any(fits(pattern, channel) for pattern in patterns)
    if action == "join" and patterns is not None and not named:
        return False
    match rule.join if action == "join" else rule.send:
        case "anyone":
            return True
        case "users":
            return bool(connection.profile.id)
        case "token":
            return named
        case "handler":
            return connection.handler.decides
        case "nobody":
            return False
