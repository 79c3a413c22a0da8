"""The Lua scripts of histories: appending, reading, and giving up are each decided and done in one step."""

from __future__ import annotations

from gateway.redis.script import Script

APPEND = Script("gateway.backplane", "position", "append", writes=True)
READ = Script("gateway.backplane", "position", "read")
RENEW = Script("gateway.backplane", "position", "renew")
DROP = Script("gateway.backplane", "position", "drop")

SCRIPTS = (APPEND, READ, RENEW, DROP)
"""Given to every server as soon as a link to publish over is up."""
