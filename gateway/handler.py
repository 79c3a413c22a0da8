"""What an application writes: its part of the conversation with each client."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from gateway.connection import Connection, Profile
from gateway.errors import UnknownCommand
from gateway.identity import identify

if TYPE_CHECKING:  # for the annotations an application's methods repeat
    from aiohttp import web

    from gateway.service import Service


class Handler:
    """Answers the commands of clients. Every method may be left out.

    The commands of one connection are handled one at a time, in order; those of different connections
    at the same time. Whatever a method raises ends only the command in hand: a `GatewayError` is sent to
    the client as its `$error`, anything else is logged and is `internal` to the client.
    """

    without_channel: Collection[str] = ()
    """Commands that are about no channel, such as one that joins another: a client that names none with them need not
    be allowed to send to its first.
    """

    async def authenticate(self, request: web.Request) -> Profile | None:
        """Say who wants to connect, before the upgrade; None refuses with 401.

        This one goes by the settings: a token where there is a key for tokens, else anybody under the name in
        `?name=`. One of your own replaces it; it may still ask `super()` for what it does not know.
        """
        return await identify(request)

    async def authorize(self, connection: Connection, channel: str, action: str) -> bool:
        """Say whether a client may `"join"` a channel or `"send"` to it. This one allows everything.

        Asked last, of what the client's token and the channel's rule allow: it can only restrict. Where the rule
        is `handler`, a handler without a method of its own allows nothing. Say nothing that tells whether the
        channel exists. Asked again, for each channel that a client chose to join, when its token is renewed.
        """
        return True

    async def on_open(self, service: Service, connection: Connection) -> None:
        """Hear that a client has come, after its first channels are joined and before its first command."""

    async def on(self, service: Service, connection: Connection, cmd: str, param: Any) -> object:
        """Handle one command. What this returns answers the request, if the client asked for an answer.

        What the client says goes to `connection.target`, where it may send; a channel that it wants to join is for
        `service.join_for`. All else that a service does is the server's own decision, and asks nobody.
        """
        raise UnknownCommand(f"unknown command {cmd!r}")

    async def on_close(self, service: Service, connection: Connection) -> None:
        """Hear that a client has gone, after its last command."""
